# SPDX-License-Identifier: Apache-2.0
"""`AuthenticationService`: the only service for agents."""

from sparecode.v1 import authentication_pb2 as pb
from sparecode.v1 import authentication_pb2_grpc as pb_grpc
from sparecode_node.rpc import calls, conversion
from sparecode_node.rpc.identity import Context
from sparecode_node.services.authentication.first_step import Authentication
from sparecode_node.services.authentication.next_step import Continuation
from sparecode_node.statemachine.results import Decision

DECISIONS = {
    pb.AUTHENTICATION_DECISION_ACCEPTED: Decision.ACCEPTED,
    pb.AUTHENTICATION_DECISION_REFUSED: Decision.REFUSED,
    pb.AUTHENTICATION_DECISION_NEXT_TOKENCODE_REQUIRED: (
        Decision.NEXT_TOKENCODE_REQUIRED
    ),
    pb.AUTHENTICATION_DECISION_NEW_PIN_REQUIRED: Decision.NEW_PIN_REQUIRED,
}


class AuthenticationServicer(pb_grpc.AuthenticationServiceServicer):
    """Translates between the wire and both steps of authentication."""

    def __init__(
        self, authentication: Authentication, continuation: Continuation
    ) -> None:
        self._authentication = authentication
        self._continuation = continuation

    async def Authenticate(
        self, request: pb.AuthenticateRequest, context: Context
    ) -> pb.AuthenticateResponse:
        """Judge a passcode. The answer contains neither a reason nor other details (A6)."""
        call = calls.agent_call(
            context, "AuthenticationService/Authenticate", request.request_id
        )
        answer = await self._authentication.authenticate(
            call,
            username=request.username,
            passcode=request.passcode,
            client_address=request.client_address,
            resource=request.resource,
        )
        return pb.AuthenticateResponse(
            decision=conversion.enum_number(answer.decision, DECISIONS),
            authentication_id=answer.authentication_id,
            challenge=answer.challenge,
        )

    async def ContinueAuthentication(
        self, request: pb.ContinueAuthenticationRequest, context: Context
    ) -> pb.ContinueAuthenticationResponse:
        """Judge the answer to a challenge."""
        call = calls.agent_call(
            context, "AuthenticationService/ContinueAuthentication", request.request_id
        )
        answer = await self._continuation.continue_authentication(
            call,
            challenge=request.challenge,
            next_tokencode=request.next_tokencode,
            new_pin=request.new_pin,
        )
        return pb.ContinueAuthenticationResponse(
            decision=conversion.enum_number(answer.decision, DECISIONS),
            authentication_id=answer.authentication_id,
            challenge=answer.challenge,
        )
