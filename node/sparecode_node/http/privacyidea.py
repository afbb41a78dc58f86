# SPDX-License-Identifier: Apache-2.0
"""
privacyIDEA's `/validate/check`, so that its plug-ins work with this node.

Its server has no request ids, and its clients send the passcode in a form: encoded once
or twice, and in parts if the client is written in PHP. A dialog goes on by
`transaction_id`, which is sealed like the State of RADIUS: any node can continue it
(K3). A new PIN takes three answers: the PIN, the PIN again, a tokencode.
"""

import importlib.metadata
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from urllib.parse import unquote

from starlette.requests import Request
from starlette.responses import JSONResponse

from sparecode_node.domain.users import fold
from sparecode_node.http.bodies import (
    FORM,
    JSON,
    PARTS,
    Fields,
    as_text,
    body_of,
    media_type,
)
from sparecode_node.http.plugins import Plugins, Sessions
from sparecode_node.http.problems import NO_STORE, RequestError
from sparecode_node.http.v1 import (
    AUTHENTICATE,
    CONTINUE,
    IDEMPOTENCY_KEY,
    Reply,
    Steps,
)
from sparecode_node.services.ambient import Clock
from sparecode_node.services.authentication.decisions import AgentAnswer
from sparecode_node.services.authentication.prompts import (
    UNKNOWN_CHALLENGE,
    Prompt,
    Prompts,
    wants_pin,
)
from sparecode_node.services.context import AgentCaller, CallContext
from sparecode_node.services.errors import InvalidFieldError
from sparecode_node.services.secrets.sealing import BrokenSealError
from sparecode_node.statemachine.results import Decision

VERSION = importlib.metadata.version("sparecode")
DECODED_ONCE = ("privacyidea-cp", "privacyidea-ldap-proxy", "simplesamlphp")
"""User-Agents whose fields are percent-encoded once. All others encode them twice."""
REFUSED = "wrong otp value"
ENTER_PASSCODE = "Enter your PIN and tokencode:"
"""The refusal of an empty passcode. PAM's plug-in then shows it as its prompt."""
CODES: Mapping[int, int] = {400: 905, 401: 4033, 403: 4033, 405: 905, 413: 905}
"""privacyIDEA's numbers of errors; -500 stands for the others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """The fields of a request."""

    username: str
    passcode: str = field(repr=False)
    transaction_id: bytes = field(repr=False)
    """Empty: a dialog begins."""
    realm: str
    client: str

    @property
    def parts(self) -> tuple[bytes, ...]:
        """What two equal calls have in common. Secret."""
        texts = (self.username, self.passcode, self.realm, self.client)
        return (self.transaction_id, *(each.encode() for each in texts))


@dataclass(frozen=True, slots=True, kw_only=True)
class PrivacyIdea:
    """Answers `/validate/check`."""

    steps: Steps
    prompts: Prompts
    plugins: Plugins
    sessions: Sessions
    clock: Clock

    async def check(self, caller: AgentCaller, request: Request) -> Reply:
        """Judge a passcode, or what the user has entered after a challenge."""
        check = await read(request)
        if not check.transaction_id:
            answer = await self.steps.authentication.authenticate(
                await self._context(caller, request, AUTHENTICATE, check),
                username=check.username,
                passcode=check.passcode,
                client_address=check.client,
                resource=check.realm,
                # Plug-ins send an empty one to ask for a challenge. It is no guess.
                is_guess=bool(check.passcode),
            )
            return self._reply(answer, check)
        try:
            state = self.prompts.opened(
                check.transaction_id, caller.identity, fold(check.username)
            )
        except BrokenSealError:
            return await self._refuse(caller, request, check)
        if wants_pin(state):
            if not await self.steps.continuation.is_answerable(caller, state.challenge):
                return await self._refuse(caller, request, check)
            return self._asked(await self.prompts.after_pin(state, check.passcode))
        try:
            return self._reply(
                await self._continued(
                    caller,
                    request,
                    check,
                    challenge=self.prompts.challenge_in(state),
                    tokencode=check.passcode,
                    new_pin=state.new_pin,
                ),
                check,
            )
        except InvalidFieldError as error:
            # Nothing was judged, and the challenge can still be answered (K3).
            return self._asked(self.prompts.again(error, state, check.transaction_id))

    async def _context(
        self, caller: AgentCaller, request: Request, method: str, check: Check
    ) -> CallContext:
        """Return the context, with the id of an equal call if the caller may repeat it."""
        context = self.steps.context(caller, request, method, "")
        if (
            caller.identity not in self.plugins.repeating
            or IDEMPOTENCY_KEY in request.headers
        ):
            return context
        request_id = await self.sessions.request_id(
            context, caller.identity, check.parts
        )
        return replace(context, request_id=request_id or context.request_id)

    async def _continued(
        self,
        caller: AgentCaller,
        request: Request,
        check: Check,
        *,
        challenge: bytes,
        tokencode: str,
        new_pin: str,
    ) -> AgentAnswer:
        return await self.steps.continuation.continue_authentication(
            await self._context(caller, request, CONTINUE, check),
            challenge=challenge,
            next_tokencode=tokencode,
            new_pin=new_pin,
        )

    async def _refuse(
        self, caller: AgentCaller, request: Request, check: Check
    ) -> Reply:
        """Refuse in a commit, as a challenge of another cluster (U1)."""
        answer = await self._continued(
            caller,
            request,
            check,
            challenge=UNKNOWN_CHALLENGE,
            tokencode="000000",
            new_pin="",
        )
        return self._reply(answer, check)

    def _reply(self, answer: AgentAnswer, check: Check) -> Reply:
        if answer.challenge:
            state = self.prompts.begun(answer.challenge, fold(check.username))
            return self._asked(
                self.prompts.first(state), decision=answer.decision.value
            )
        accepted = answer.decision is Decision.ACCEPTED
        refused = REFUSED if check.passcode else ENTER_PASSCODE
        return Reply(
            body=self._body(
                {"message": "matching 1 tokens" if accepted else refused},
                "ACCEPT" if accepted else "REJECT",
            ),
            decision=answer.decision.value,
        )

    def _asked(self, prompt: Prompt, *, decision: str = "") -> Reply:
        """Return a challenge. Neither serial nor kind of the token leave the node."""
        transaction_id, message = as_text(prompt.state), prompt.message
        challenge = {
            "serial": "",
            "type": "hotp",
            "client_mode": "interactive",
            "message": message,
            "transaction_id": transaction_id,
        }
        detail = {
            "message": message,
            "messages": [message],
            "transaction_id": transaction_id,
            "multi_challenge": [challenge],
        }
        return Reply(body=self._body(detail, "CHALLENGE"), decision=decision)

    def _body(
        self, detail: Mapping[str, object], authentication: str
    ) -> dict[str, object]:
        return {
            **envelope(self.clock.now_ms()),
            "detail": detail,
            "result": {
                "status": True,
                "value": authentication == "ACCEPT",
                "authentication": authentication,
            },
        }


def envelope(now_ms: int) -> dict[str, object]:
    """Return what each answer has around its result."""
    return {
        "jsonrpc": "2.0",
        "id": 1,
        "time": now_ms / 1000,
        "version": f"Sparecode {VERSION}",
        "versionnumber": VERSION,
        "signature": "",
    }


class Failures:
    """Errors in the form of privacyIDEA: the same statuses and headers as a problem."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def __call__(
        self,
        status: int,
        reason: str,
        detail: str,
        *,
        field: str = "",  # noqa: ARG002 - The words name it.
        headers: Mapping[str, str] | None = None,
    ) -> JSONResponse:
        """Return an error."""
        error = {"code": CODES.get(status, -500), "message": f"{reason}: {detail}"}
        body = {
            **envelope(self._clock.now_ms()),
            "detail": None,
            "result": {"status": False, "error": error},
        }
        return JSONResponse(body, status, headers={**NO_STORE, **(headers or {})})


async def read(request: Request) -> Check:
    """Return the fields of a form or of JSON. Raises `RequestError`, `InvalidFieldError`."""
    kind = media_type(request)
    if kind not in (FORM, PARTS, JSON):
        raise RequestError(
            415, "MEDIA_TYPE", f"the body must be {FORM}, {PARTS} or {JSON}"
        )
    body = await body_of(request)
    fields = (
        Fields.any(body)
        if kind == JSON
        else Fields.form(body, request.headers["content-type"])
    )
    agent = request.headers.get("user-agent", "").lower()
    encoded_twice = kind != JSON and not agent.startswith(DECODED_ONCE)

    def text(name: str, *, required: bool = False) -> str:
        value = fields.text(name, required=required)
        if not encoded_twice:
            return value
        try:
            return unquote(value, errors="strict")
        except UnicodeDecodeError:
            raise InvalidFieldError(name, "must be Unicode text") from None

    name = "transaction_id" if fields.text("transaction_id") else "state"
    return Check(
        username=text("user", required=True),
        passcode=text("pass", required=True),
        transaction_id=fields.octets(name) if fields.text(name) else b"",
        realm=text("realm"),
        client=text("client"),
    )
