# SPDX-License-Identifier: Apache-2.0
"""`/v1/authenticate` and `/v1/continue`."""

from dataclasses import dataclass

from starlette.requests import Request

from sparecode_node.http.bodies import JSON, Fields, as_text, body_of, media_type
from sparecode_node.http.callers import address_of
from sparecode_node.http.problems import RequestError
from sparecode_node.services.ambient import Entropy
from sparecode_node.services.authentication.decisions import AgentAnswer
from sparecode_node.services.authentication.first_step import Authentication
from sparecode_node.services.authentication.next_step import Continuation
from sparecode_node.services.context import HTTP, AgentCaller, CallContext
from sparecode_node.services.errors import InvalidFieldError

AUTHENTICATE = "AuthenticationService/Authenticate"
CONTINUE = "AuthenticationService/ContinueAuthentication"
DEADLINE_S = 10.0
IDEMPOTENCY_KEY = "idempotency-key"

FIRST_FIELDS = frozenset(
    {"username", "passcode", "client_address", "resource", "request_id"}
)
NEXT_FIELDS = frozenset({"challenge", "tokencode", "new_pin", "request_id"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Steps:
    """Both steps of an authentication."""

    authentication: Authentication
    continuation: Continuation
    entropy: Entropy

    async def first(self, caller: AgentCaller, request: Request) -> AgentAnswer:
        """Judge a passcode."""
        fields = await _fields(request, FIRST_FIELDS)
        return await self.authentication.authenticate(
            self._context(caller, request, AUTHENTICATE, fields),
            username=fields.text("username", required=True),
            passcode=fields.text("passcode", required=True),
            client_address=fields.text("client_address"),
            resource=fields.text("resource"),
        )

    async def next(self, caller: AgentCaller, request: Request) -> AgentAnswer:
        """Judge the answer to a challenge."""
        fields = await _fields(request, NEXT_FIELDS)
        return await self.continuation.continue_authentication(
            self._context(caller, request, CONTINUE, fields),
            challenge=fields.octets("challenge"),
            next_tokencode=fields.text("tokencode", required=True),
            new_pin=fields.text("new_pin"),
        )

    def _context(
        self, caller: AgentCaller, request: Request, method: str, fields: Fields
    ) -> CallContext:
        address = address_of(request)
        return CallContext(
            caller=caller,
            request_id=_request_id(request, fields) or self.entropy.uuid(),
            method=method,
            deadline_s=DEADLINE_S,
            peer=address,
            door=HTTP,
            source=f"HTTP from {address}",
        )


def encoded(answer: AgentAnswer) -> dict[str, str]:
    """Return an answer as JSON has it."""
    body = {
        "decision": answer.decision.name,
        "authentication_id": answer.authentication_id,
    }
    if answer.challenge:
        body["challenge"] = as_text(answer.challenge)
    return body


async def _fields(request: Request, known: frozenset[str]) -> Fields:
    if media_type(request) != JSON:
        raise RequestError(415, "MEDIA_TYPE", f"the body must be {JSON}")
    return Fields.parse(await body_of(request), known)


def _request_id(request: Request, fields: Fields) -> str:
    """
    Return the id that a retry repeats: the header `Idempotency-Key`, or `request_id`.

    Empty: the caller has none, and no retry of this request is recognized.
    """
    in_body = fields.text("request_id")
    keys = request.headers.getlist(IDEMPOTENCY_KEY)
    if not keys:
        return in_body
    # The draft standard writes it in quotes, most programs do not.
    key = keys[0].removeprefix('"').removesuffix('"')
    if len(keys) > 1 or (in_body and in_body.lower() != key.lower()):
        raise InvalidFieldError(
            "request_id", "differs from Idempotency-Key: send one of them"
        )
    return key
