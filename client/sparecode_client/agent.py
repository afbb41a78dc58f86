# SPDX-License-Identifier: Apache-2.0
"""The client of an authentication agent."""

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
    An authentication agent: asks any node whether passcodes are right.

    *nodes* are the addresses of the nodes' agent listeners (port 7300). The first
    call tries them in this order. The certificate identifies the agent.

    Raises:
        OSError: A file cannot be read.
        ValueError: An address or a file is wrong.
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
        Return the decision on *passcode*, as *username* typed it.

        A passcode is accepted once in the whole cluster. A retry with the same
        *request_id* returns the first decision. *client_address* and *resource* only
        go into the audit log. *within* is the timeout of this call.

        Raises:
            OutcomeUnknown: Perhaps a code was spent. Call again with the error's
                `request_id` within ten minutes.
            SparecodeError: There is no decision. The passcode was not accepted (A7).
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
        Return the decision on the next step that *authentication* requires.

        Call it within two minutes. `NEXT_TOKENCODE_REQUIRED` needs the tokencode that
        the token shows after the previous one: the user has to wait for it.
        `NEW_PIN_REQUIRED` also needs a *new_pin* that the user chooses. The agent that
        received the decision continues it once, on any node. A refused user starts
        over.

        Raises:
            InvalidArgument: `field` has no tokencode, or a PIN that the policy does not
                allow. The decision can still be continued.
            OutcomeUnknown: Call again with the error's `request_id` within ten minutes.
            SparecodeError: There is no decision. The user was not accepted (A7).
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
    """Return the decision. Raise `NodeFailed` if this release does not know it."""
    wire = authentication_pb2.AuthenticationDecision
    decision = enum_in(Decision, wire, answer.decision)
    if decision is None:
        raise NodeFailed("DECISION", f"unknown decision {answer.decision}")
    return Authentication(
        decision=decision,
        authentication_id=answer.authentication_id,
        challenge=answer.challenge,
    )
