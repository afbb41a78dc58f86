# SPDX-License-Identifier: Apache-2.0
"""The little that an authentication agent needs."""

from datetime import timedelta

from sparecode.v1 import authentication_pb2
from sparecode_client.connection.channels import (
    AGENTS_PORT,
    Nodes,
    PathLike,
    TlsConnect,
    addresses,
)
from sparecode_client.connection.client import (
    DEFAULT_TIMEOUT,
    Caller,
    Client,
    new_request_id,
)
from sparecode_client.connection.wire import enum_in
from sparecode_client.errors import NodeFailed
from sparecode_client.values.authentication import Authentication, Decision


class AsyncAgent(Caller):
    """
    An authentication agent: asks any node of the cluster about passcodes.

    *nodes* are the addresses of the listeners for agents (port 7300), tried in
    this order at first. The certificate says which agent it is.
    """

    def __init__(
        self,
        nodes: Nodes,
        *,
        ca: PathLike,
        certificate: PathLike,
        key: PathLike,
        timeout: timedelta = DEFAULT_TIMEOUT,
    ) -> None:
        connect = TlsConnect(ca, certificate=certificate, key=key)
        self._client = Client(addresses(nodes, AGENTS_PORT), connect, timeout=timeout)

    async def authenticate(
        self,
        username: str,
        passcode: str,
        *,
        client_address: str = "",
        resource: str = "",
        request_id: str | None = None,
        within: timedelta | None = None,
    ) -> Authentication:
        """
        Ask whether *passcode*, as typed, lets *username* in.

        A passcode is accepted once, on whichever node; the answer to a retry with
        the same *request_id* is that of the first try. *client_address* and
        *resource* are for the audit log only. *within* is this call's time-out.

        Raises:
            OutcomeUnknown: Perhaps a code was spent. Call again with its
                `request_id`, within ten minutes.
            SparecodeError: There is no decision; certainly no acceptance (A7).
        """
        request = authentication_pb2.AuthenticateRequest(
            request_id=request_id or new_request_id(),
            username=username,
            passcode=passcode,
            client_address=client_address,
            resource=resource,
        )
        answer = await self._client.unary(
            lambda node: node.authentication.Authenticate,
            request,
            within=within,
        )
        return _decision_in(answer)

    async def continue_authentication(
        self,
        authentication: Authentication,
        next_tokencode: str,
        *,
        new_pin: str = "",
        request_id: str | None = None,
        within: timedelta | None = None,
    ) -> Authentication:
        """
        Give the next step that the decision *authentication* required, within two minutes.

        `NEXT_TOKENCODE_REQUIRED`: what the token shows after the tokencode that was
        given, hence after the user has waited for it. `NEW_PIN_REQUIRED`: that, and
        a *new_pin* of the user's choice. Each decision is continued once, by the
        agent that got it, on whichever node; who is refused begins again.

        Raises:
            InvalidArgument: What was given is no tokencode, or no PIN as the policy
                wants it (`field` says which). The decision can still be continued.
            OutcomeUnknown: Call again with its `request_id`, within ten minutes.
            SparecodeError: There is no decision; certainly no acceptance (A7).
        """
        request = authentication_pb2.ContinueAuthenticationRequest(
            request_id=request_id or new_request_id(),
            challenge=authentication.challenge,
            next_tokencode=next_tokencode,
            new_pin=new_pin,
        )
        answer = await self._client.unary(
            lambda node: node.authentication.ContinueAuthentication,
            request,
            within=within,
        )
        return _decision_in(answer)


def _decision_in(
    answer: authentication_pb2.AuthenticateResponse
    | authentication_pb2.ContinueAuthenticationResponse,
) -> Authentication:
    """Return a decision. Raises `NodeFailed` for one that is newer than this code."""
    wire = authentication_pb2.AuthenticationDecision
    decision = enum_in(Decision, wire, answer.decision)
    if decision is None:
        raise NodeFailed("DECISION", f"unknown decision {answer.decision}")
    return Authentication(
        decision=decision,
        authentication_id=answer.authentication_id,
        challenge=answer.challenge,
    )
