# SPDX-License-Identifier: Apache-2.0
"""`/v1/authenticate` and `/v1/continue`."""

from collections.abc import Mapping
from dataclasses import dataclass, field

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
class Reply:
    """The JSON of an answer, and the decision for the counters; empty: there was none."""

    body: Mapping[str, object] = field(repr=False)
    decision: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Steps:
    """Both steps of an authentication."""

    authentication: Authentication
    continuation: Continuation
    entropy: Entropy

    async def first(self, caller: AgentCaller, request: Request) -> Reply:
        """Judge a passcode."""
        fields = await _fields(request, FIRST_FIELDS)
        answer = await self.authentication.authenticate(
            self.context(caller, request, AUTHENTICATE, fields.text("request_id")),
            username=fields.text("username", required=True),
            passcode=fields.text("passcode", required=True),
            client_address=fields.text("client_address"),
            resource=fields.text("resource"),
        )
        return _reply(answer)

    async def next(self, caller: AgentCaller, request: Request) -> Reply:
        """Judge the answer to a challenge."""
        fields = await _fields(request, NEXT_FIELDS)
        try:
            answer = await self.continuation.continue_authentication(
                self.context(caller, request, CONTINUE, fields.text("request_id")),
                challenge=fields.octets("challenge"),
                next_tokencode=fields.text("tokencode", required=True),
                new_pin=fields.text("new_pin"),
            )
        except InvalidFieldError as error:
            if error.field != "next_tokencode":
                raise
            raise InvalidFieldError("tokencode", error.message) from None
        return _reply(answer)

    def context(
        self, caller: AgentCaller, request: Request, method: str, in_body: str
    ) -> CallContext:
        """Return the context of a use case. *in_body*: the request id that is there."""
        address = address_of(request)
        return CallContext(
            caller=caller,
            request_id=_request_id(request, in_body) or self.entropy.uuid(),
            method=method,
            deadline_s=DEADLINE_S,
            peer=address,
            door=HTTP,
            source=f"HTTP from {address}",
        )


def _reply(answer: AgentAnswer) -> Reply:
    """Return an answer as JSON has it."""
    body: dict[str, object] = {
        "decision": answer.decision.name,
        "authentication_id": answer.authentication_id,
    }
    if answer.challenge:
        body["challenge"] = as_text(answer.challenge)
    return Reply(body=body, decision=answer.decision.value)


async def _fields(request: Request, known: frozenset[str]) -> Fields:
    if media_type(request) != JSON:
        raise RequestError(415, "MEDIA_TYPE", f"the body must be {JSON}")
    return Fields.parse(await body_of(request), known)


def _request_id(request: Request, in_body: str) -> str:
    """
    Return the id that a retry repeats: the header `Idempotency-Key`, or `request_id`.

    Empty: the caller has none, and no retry of this request is recognized.
    """
    keys = request.headers.getlist(IDEMPOTENCY_KEY)
    if not keys:
        return in_body
    # The draft standard writes it in quotes, most programs do not.
    key = keys[0].removeprefix('"').removesuffix('"')
    if not key:
        raise InvalidFieldError("request_id", "is empty in Idempotency-Key")
    if len(keys) > 1 or (in_body and in_body.lower() != key.lower()):
        raise InvalidFieldError(
            "request_id", "differs from Idempotency-Key: send one of them"
        )
    return key
