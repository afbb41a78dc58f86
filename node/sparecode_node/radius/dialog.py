# SPDX-License-Identifier: Apache-2.0
"""
A request becomes a use case of agents, and its decision an answer.

The user's next tokencode and new PIN take further packets, which any node can answer.
"""

import ipaddress
import itertools
from dataclasses import dataclass, field, replace

from sparecode_node.domain.challenges import NextStep
from sparecode_node.domain.ids import NameKey, RequestId
from sparecode_node.domain.outcomes import Reason
from sparecode_node.domain.users import fold
from sparecode_node.radius import packets
from sparecode_node.radius.answers import Answer, accepted, challenged, rejected
from sparecode_node.radius.packets import PasswordFormError, Request
from sparecode_node.radius.request_ids import RequestIds, Source, ids_of
from sparecode_node.services.access.security_log import (
    RADIUS_UNSUPPORTED,
    SecurityLog,
)
from sparecode_node.services.authentication.decisions import AgentAnswer
from sparecode_node.services.authentication.first_step import Authentication
from sparecode_node.services.authentication.next_step import Continuation
from sparecode_node.services.authentication.prompts import (
    UNKNOWN_CHALLENGE,
    Prompt,
    Prompts,
    wants_pin,
)
from sparecode_node.services.context import RADIUS, AgentCaller, CallContext
from sparecode_node.services.errors import InvalidFieldError, RateError, Refused
from sparecode_node.services.fields import (
    CLIENT_ADDRESS_MAX,
    RESOURCE_MAX,
)
from sparecode_node.services.load.rates import THIS_AGENT
from sparecode_node.services.secrets.radius_seals import RadiusSeals, RadiusState
from sparecode_node.services.secrets.sealing import BrokenSealError
from sparecode_node.statemachine.results import Decision

DEADLINE_S = 8.0
"""A NAS gives up after three tries of 3 to 5 s; later it does not listen any more."""
NO_LOCAL_USER = "\b\n\r\177INCORRECT"
"""
What sshd sends instead of the password of a user that its machine does not admit.

It repeats or cuts the text to the length that was typed (`fake_password` of OpenSSH).
"""

AUTHENTICATE = "AuthenticationService/Authenticate"
CONTINUE = "AuthenticationService/ContinueAuthentication"
REPEATED_MS = 30_000
"""How long a request under a new identifier can be a repeated one."""

ENTER_PASSCODE = "Enter your PIN and tokencode:"
PROMPT_STATE = b"passcode "
"""
How the State of a challenge for a passcode begins. No seal begins like this.

It permits nothing: a passcode with it is judged as one without. What follows is equal
for copies of the request, and another one for each request: a proxy may take requests
with equal States for one session.
"""
ONLY_PAP = "This server needs PAP"
TOO_FAST = "Too many tries. Wait some seconds, then try again"
PIN_NEEDS_SIGNATURE = "A new PIN is needed, but it cannot be chosen here"


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """What a user has entered."""

    username: str
    password: str = field(repr=False)

    @property
    def name_key(self) -> NameKey:
        """The folded name."""
        return fold(self.username)


class Dialog:
    """Answers requests of registered clients."""

    def __init__(
        self,
        *,
        authentication: Authentication,
        continuation: Continuation,
        seals: RadiusSeals,
        security_log: SecurityLog,
    ) -> None:
        self._authentication = authentication
        self._continuation = continuation
        self._prompts = Prompts(continuation=continuation, seals=seals)
        self._seals = seals
        self._security_log = security_log

    def check_room(self, source: Source, request: Request) -> None:
        """Raise `HashingOverloadedError` if no request of the client can be judged now."""
        self._authentication.check_room(_caller(source, request))

    def ids_of(self, source: Source, request: Request) -> RequestIds:
        """Return the ids of a request, equal for its copies on any node (D3)."""
        return ids_of(source, request, self._seals)

    async def answer(
        self, source: Source, request: Request, request_ids: RequestIds
    ) -> Answer:
        """
        Return the answer to an Access-Request.

        Raises `Refused` and `ProposeError` if nothing is decided, or the decision is
        not known here. The client then gets no answer, and tries again (A7).
        """
        if not request.is_signed:
            self._authentication.count_unsigned(_caller(source, request))
        if not request.has(packets.USER_PASSWORD):
            self._security_log.note(
                RADIUS_UNSUPPORTED,
                agent=source.client.identity,
                cause="hashed secrets need PAP: configure the client for PAP",
            )
            return rejected(ONLY_PAP)
        try:
            credentials = _credentials(request)
        except (PasswordFormError, UnicodeDecodeError):
            return rejected()  # No passcode could be right.
        context = _context(source, request, request_ids.packet)
        if _wants_prompt(source, request, credentials):
            return await self._prompt(source, request, credentials, context)
        request_id = await self._undecided_id(context, request_ids)
        try:
            answer = await self._decided(source, request, credentials, request_id)
        except InvalidFieldError:
            return rejected()  # Beyond a bound: nothing that could be right.
        except RateError as error:
            if error.whose == THIS_AGENT:
                raise
            # Silence would make the client take this node for dead: one caller who
            # hammers one name would keep everyone out.
            return rejected(TOO_FAST, verdict="rate_limited")
        return replace(answer, verdict="unreadable") if request.is_garbled else answer

    async def _decided(
        self,
        source: Source,
        request: Request,
        credentials: Credentials,
        request_id: RequestId,
    ) -> Answer:
        """Return the answer to a passcode, or to the next step of one."""
        step = self._next_step if _continues(request) else self._first_step
        try:
            return await step(source, request, credentials, request_id)
        except Refused as error:
            if error.rejected.reason is not Reason.SLOT_MOVED:
                raise
            # It is final, and the slot alone decides it, whether or not the user exists.
            # Silence would make the client take this node for dead.
            return rejected()

    async def _prompt(
        self,
        source: Source,
        request: Request,
        credentials: Credentials,
        context: CallContext,
    ) -> Answer:
        """
        Ask for a passcode, whether or not the user exists (A6).

        Raises `ProposeError` if this node could not judge it.
        """
        try:
            await self._authentication.count_prompt(
                context,
                _caller(source, request),
                name_key=credentials.name_key,
                client_address=calling_station(request),
            )
        except RateError as error:
            if error.whose == THIS_AGENT:
                raise
            return rejected(TOO_FAST, verdict="rate_limited")
        state = PROMPT_STATE + context.request_id.encode()
        return challenged(ENTER_PASSCODE, state, echo=False)

    async def _undecided_id(
        self, context: CallContext, request_ids: RequestIds
    ) -> RequestId:
        """
        Return the id under which to decide a request (D3).

        For 30 s the requests of a session are the same. Later each packet counts for
        itself, so a recorded packet is at most one more request.
        """
        if not request_ids.sessions:
            return request_ids.packet
        ages = await self._authentication.decided_ms_ago(context, request_ids.sessions)
        for session_id in request_ids.sessions:
            if session_id in ages:
                is_current = ages[session_id] <= REPEATED_MS
                return session_id if is_current else request_ids.packet
        return request_ids.first

    async def _first_step(
        self,
        source: Source,
        request: Request,
        credentials: Credentials,
        request_id: RequestId,
    ) -> Answer:
        """Answer a passcode."""
        is_guess = not (request.is_garbled or is_no_guess(credentials.password))
        answer = await self._authentication.authenticate(
            _context(source, request, request_id),
            username=credentials.username,
            passcode=credentials.password if is_guess else "",
            client_address=calling_station(request),
            resource=nas(request),
            is_guess=is_guess,
        )
        return self._answer(request, answer, credentials.name_key)

    async def _next_step(
        self,
        source: Source,
        request: Request,
        credentials: Credentials,
        request_id: RequestId,
    ) -> Answer:
        """Answer what the user has entered after a challenge."""
        sealed, password = request.first(packets.STATE), credentials.password
        try:
            state = self._prompts.opened(
                sealed, source.client.identity, credentials.name_key
            )
        except BrokenSealError:
            return await self._refuse(source, request, credentials, request_id)
        choosing = state.challenge.step is NextStep.NEW_PIN
        if request.is_garbled or (choosing and not request.is_signed):
            return await self._refuse(source, request, credentials, request_id, state)
        if wants_pin(state):
            if not await self._continuation.is_answerable(
                _caller(source, request), state.challenge
            ):
                return await self._refuse(source, request, credentials, request_id)
            return _asked(await self._prompts.after_pin(state, password))
        try:
            return await self._decide(
                source,
                request,
                credentials,
                request_id,
                challenge=self._prompts.challenge_in(state),
                tokencode=password,
                new_pin=state.new_pin,
            )
        except InvalidFieldError as error:
            # Nothing was judged, and the challenge can still be answered (K3).
            if not request.is_signed:
                # Another prompt would tell the form of an octet that was changed.
                return await self._refuse(
                    source, request, credentials, request_id, state
                )
            return _asked(self._prompts.again(error, state, sealed))

    async def _refuse(
        self,
        source: Source,
        request: Request,
        credentials: Credentials,
        request_id: RequestId,
        state: RadiusState | None = None,
    ) -> Answer:
        """
        Refuse in a commit, as a challenge of another cluster (U1).

        *state*: whose user's rate it counts in. None: it did not open.
        """
        sealed = self._prompts.challenge_in(state) if state else b""
        return await self._decide(
            source,
            request,
            credentials,
            request_id,
            challenge=sealed or UNKNOWN_CHALLENGE,
            tokencode="000000",
            new_pin="",
            is_guess=False,
        )

    async def _decide(
        self,
        source: Source,
        request: Request,
        credentials: Credentials,
        request_id: RequestId,
        *,
        challenge: bytes,
        tokencode: str,
        new_pin: str,
        is_guess: bool = True,
    ) -> Answer:
        answer = await self._continuation.continue_authentication(
            _context(source, request, request_id),
            challenge=challenge,
            next_tokencode=tokencode,
            new_pin=new_pin,
            client_address=calling_station(request),
            resource=nas(request),
            is_guess=is_guess,
        )
        return self._answer(request, answer, credentials.name_key)

    def _answer(
        self, request: Request, answer: AgentAnswer, name_key: NameKey
    ) -> Answer:
        match answer.decision:
            case Decision.ACCEPTED:
                return accepted(answer.attributes)
            case Decision.REFUSED:
                return rejected()
            case _:
                pass
        state = self._prompts.begun(answer.challenge, name_key)
        if state.challenge.step is NextStep.NEW_PIN and not request.is_signed:
            # Replayed with changed octets, the packet with the PIN would reveal it:
            # the answers tell digits from other characters.
            return rejected(PIN_NEEDS_SIGNATURE)
        return _asked(self._prompts.first(state))


def _asked(prompt: Prompt) -> Answer:
    return challenged(prompt.message, prompt.state, echo=prompt.echo)


def is_no_guess(password: str) -> bool:
    """Return whether a password is empty, or sshd's text for a user it does not admit."""
    return all(
        character == expected
        for character, expected in zip(
            password, itertools.cycle(NO_LOCAL_USER), strict=False
        )
    )


def _credentials(request: Request) -> Credentials:
    """
    Return what the user has entered.

    Raises `PasswordFormError` and `UnicodeDecodeError` if no passcode could be right.
    """
    username = request.first(packets.USER_NAME).decode()
    if request.is_garbled:
        return Credentials(username=username, password="")
    return Credentials(username=username, password=request.password())


def _continues(request: Request) -> bool:
    """Return whether a request answers a challenge that follows a passcode."""
    return request.has(packets.STATE) and not request.first(packets.STATE).startswith(
        PROMPT_STATE
    )


def _wants_prompt(source: Source, request: Request, credentials: Credentials) -> bool:
    """
    Return whether a request is to be answered by a challenge for a passcode.

    Not an unsigned one: whether the password is empty must not show (D2).
    """
    return (
        source.client.settings.prompts_for_passcode
        and request.is_signed
        and not request.has(packets.STATE)
        and not credentials.password
    )


def _caller(source: Source, request: Request) -> AgentCaller:
    return AgentCaller(
        identity=source.client.identity,
        certificate=source.certificate,
        radius_secret_id=source.secret_id,
        radius_signed=request.is_signed
        and source.client.settings.unsigned_until_signed,
    )


def _context(source: Source, request: Request, request_id: RequestId) -> CallContext:
    return CallContext(
        caller=_caller(source, request),
        request_id=request_id,
        method=CONTINUE if _continues(request) else AUTHENTICATE,
        deadline_s=DEADLINE_S,
        peer=source.host,
        door=RADIUS,
        source=f"{source.door} from {source.host}",
    )


def calling_station(request: Request) -> str:
    """Return the user's address as the client reports it, for rates and audit."""
    return _readable(request.first(packets.CALLING_STATION_ID), CLIENT_ADDRESS_MAX)


def nas(request: Request) -> str:
    """Return the NAS by its own claims, for the audit log."""
    name = _readable(request.first(packets.NAS_IDENTIFIER), RESOURCE_MAX)
    claims = " ".join(filter(None, (name, _address(request))))
    return f"NAS {claims}"[:RESOURCE_MAX] if claims else ""


def _address(request: Request) -> str:
    for kind, size in ((packets.NAS_IP_ADDRESS, 4), (packets.NAS_IPV6_ADDRESS, 16)):
        value = request.first(kind)
        if len(value) == size:
            return str(ipaddress.ip_address(value))
    return ""


def _readable(value: bytes, limit: int) -> str:
    """
    Return octets as one line of text; what cannot be shown becomes `?`.

    So do commas and semicolons, which separate the facts in the audit log.
    """
    text = value.decode(errors="replace")
    return "".join(
        each if each.isprintable() and each not in ",;" else "?" for each in text
    )[:limit]
