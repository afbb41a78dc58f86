# SPDX-License-Identifier: Apache-2.0
"""
A request becomes a use case of agents, and its decision an answer.

The user's next tokencode and new PIN take further packets. Everything that the next
packet needs is sealed in its State, so any node can continue (K3).
"""

import ipaddress
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

from sparecode_node.domain.challenges import NextStep
from sparecode_node.domain.ids import RequestId
from sparecode_node.domain.passcodes import normalized
from sparecode_node.radius import packets
from sparecode_node.radius.answers import Answer, accepted, challenged, rejected
from sparecode_node.radius.packets import PasswordFormError, Request
from sparecode_node.services.access.security_log import SecurityLog
from sparecode_node.services.authentication.decisions import AgentAnswer
from sparecode_node.services.authentication.first_step import Authentication
from sparecode_node.services.authentication.next_step import Continuation
from sparecode_node.services.context import AgentCaller, CallContext
from sparecode_node.services.errors import InvalidFieldError
from sparecode_node.services.fields import (
    CLIENT_ADDRESS_MAX,
    RESOURCE_MAX,
    USERNAME_MAX,
)
from sparecode_node.services.people.radius_clients import RadiusClient
from sparecode_node.services.secrets.radius_seals import RadiusSeals, RadiusState
from sparecode_node.services.secrets.sealing import BrokenSealError
from sparecode_node.statemachine.results import Decision

DEADLINE_S = 8.0
"""A NAS gives up after three tries of 3 to 5 s; later it does not listen any more."""
NO_LOCAL_USER = "\b\n\r\177INCORRECT"
"""
What sshd sends instead of the password of a user that its machine does not know.

It is no guess. As part of an unknown name it costs the same as one, and charges nobody.
"""
NEW_PIN_MAX = 32
"""Characters of a PIN that fit into a State, whatever the policy allows."""

AUTHENTICATE = "AuthenticationService/Authenticate"
CONTINUE = "AuthenticationService/ContinueAuthentication"
REPEATED_MS = 30_000
"""How long a request under a new identifier can be a repeated one."""
REPEATS_MAX = 32
"""Equal requests of one session while request ids are remembered: ten minutes."""
SESSION = (
    packets.USER_NAME,
    packets.STATE,
    packets.NAS_IDENTIFIER,
    packets.NAS_PORT,
    packets.CALLING_STATION_ID,
    packets.ACCT_SESSION_ID,
)

ENTER_NEXT = "Wait for the next tokencode, then enter it:"
ENTER_NEW_PIN = "Enter a new PIN:"
REPEAT_PIN = "Enter the new PIN again:"
PIN_THEN_NEXT = "Wait for the next tokencode, then enter the tokencode alone:"
PINS_DIFFER = "The PINs differ. Enter a new PIN:"
ONLY_PAP = "This server needs PAP"
RADIUS_UNSUPPORTED = "RADIUS request without PAP"


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where a request came from."""

    client: RadiusClient
    host: str
    port: int


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
        self._seals = seals
        self._security_log = security_log

    def request_id(self, source: Source, request: Request) -> RequestId:
        """Return the id of a request, equal for its retransmission to any node (D3)."""
        return self._seals.request_id(
            source.client.identity.encode(), *_identifying(source, request)
        )

    async def answer(
        self, source: Source, request: Request, request_id: RequestId
    ) -> Answer:
        """
        Return the answer to an Access-Request.

        Raises `Refused` and `ProposeError` if nothing is decided, or the decision is
        not known here. The client then gets no answer, and tries again (A7).
        """
        if not request.has(packets.USER_PASSWORD):
            self._security_log.note(
                RADIUS_UNSUPPORTED,
                agent=source.client.identity,
                cause="hashed secrets need PAP: configure the client for PAP",
            )
            return rejected(ONLY_PAP)
        try:
            username = request.first(packets.USER_NAME).decode()
            password = request.password()
        except (PasswordFormError, UnicodeDecodeError):
            return rejected()
        if _is_repeatable(source, request):
            request_id = await self._repeated(source, request, request_id)
        if password == NO_LOCAL_USER:
            username, password = f"{NO_LOCAL_USER} {username}"[:USERNAME_MAX], ""
        state = request.first(packets.STATE)
        try:
            if state:
                return await self._continued(
                    source, state, password, request_id=request_id
                )
            return await self._begun(
                source, request, username, password, request_id=request_id
            )
        except InvalidFieldError:
            return rejected()  # Beyond a bound: nothing that could be right.

    async def _repeated(
        self, source: Source, request: Request, request_id: RequestId
    ) -> RequestId:
        """Return the id of a request that may repeat one of the last 30 s (D3)."""
        base = request_id.encode()
        later = (
            self._seals.request_id(base, number.to_bytes(1))
            for number in range(REPEATS_MAX)
        )
        return await self._authentication.first_current(
            _context(source, _method(request), request_id),
            itertools.chain([request_id], later),
            within_ms=REPEATED_MS,
        )

    async def _begun(
        self,
        source: Source,
        request: Request,
        username: str,
        password: str,
        *,
        request_id: RequestId,
    ) -> Answer:
        answer = await self._authentication.authenticate(
            _context(source, AUTHENTICATE, request_id),
            username=username,
            passcode=password,
            client_address=calling_station(request),
            resource=resource(request, source),
        )
        return self._answer(source, answer)

    async def _continued(
        self, source: Source, sealed: bytes, typed: str, *, request_id: RequestId
    ) -> Answer:
        """Answer the next packet of a dialog."""
        identity = source.client.identity
        try:
            state = self._seals.unseal_state(sealed, identity)
        except BrokenSealError:
            # Refused in a commit, like a challenge of another cluster (U1).
            return await self._decided(
                source, b"-", tokencode="000000", new_pin="", request_id=request_id
            )
        if state.challenge.step is NextStep.NEW_PIN and not state.repeated:
            return await self._chosen(state, typed)
        try:
            return await self._decided(
                source,
                self._seals.seal_challenge(state.challenge),
                tokencode=typed,
                new_pin=state.new_pin,
                request_id=request_id,
            )
        except InvalidFieldError as error:
            # Nothing was judged, and the challenge can still be answered (K3).
            if error.field == "new_pin":
                return self._again(state, error.message)
            prompt = PIN_THEN_NEXT if state.new_pin else ENTER_NEXT
            return challenged(prompt, sealed, echo=True)

    async def _chosen(self, state: RadiusState, typed: str) -> Answer:
        """Answer a new PIN, or its repetition. Nothing is decided yet."""
        pin = normalized(typed)
        if state.new_pin:
            if pin != state.new_pin:
                return challenged(
                    PINS_DIFFER,
                    self._seals.seal_state(replace(state, new_pin="")),
                    echo=False,
                )
            return challenged(
                PIN_THEN_NEXT,
                self._seals.seal_state(replace(state, repeated=True)),
                echo=True,
            )
        problem = await self._continuation.new_pin_problem(state.challenge, pin)
        if not pin or len(pin.encode()) > NEW_PIN_MAX:
            problem = problem or f"a PIN has 1 to {NEW_PIN_MAX} characters"
        if problem:
            return self._again(state, problem)
        return challenged(
            REPEAT_PIN, self._seals.seal_state(replace(state, new_pin=pin)), echo=False
        )

    def _again(self, state: RadiusState, problem: str) -> Answer:
        """Ask for another PIN, because *problem*."""
        begun = RadiusState(challenge=state.challenge)
        return challenged(
            f"{problem[:1].upper()}{problem[1:]}. {ENTER_NEW_PIN}",
            self._seals.seal_state(begun),
            echo=False,
        )

    async def _decided(
        self,
        source: Source,
        challenge: bytes,
        *,
        tokencode: str,
        new_pin: str,
        request_id: RequestId,
    ) -> Answer:
        answer = await self._continuation.continue_authentication(
            _context(source, CONTINUE, request_id),
            challenge=challenge,
            next_tokencode=tokencode,
            new_pin=new_pin,
        )
        return self._answer(source, answer)

    def _answer(self, source: Source, answer: AgentAnswer) -> Answer:
        match answer.decision:
            case Decision.ACCEPTED:
                return accepted(source.client.settings)
            case Decision.REFUSED:
                return rejected()
            case _:
                pass
        challenge = self._seals.unseal_challenge(answer.challenge)
        sealed = self._seals.seal_state(RadiusState(challenge=challenge))
        if challenge.step is NextStep.NEW_PIN:
            return challenged(ENTER_NEW_PIN, sealed, echo=False)
        return challenged(ENTER_NEXT, sealed, echo=True)


def _method(request: Request) -> str:
    return CONTINUE if request.has(packets.STATE) else AUTHENTICATE


def _is_repeatable(source: Source, request: Request) -> bool:
    """Return whether a session can be told, and the client may repeat its requests."""
    return source.client.settings.repeats_with_new_authenticator and (
        request.has(packets.NAS_PORT) or request.has(packets.ACCT_SESSION_ID)
    )


def _identifying(source: Source, request: Request) -> Sequence[bytes]:
    """
    Return what makes two packets of a client the same request.

    Usually that is the packet. pam_radius keeps for the next server its source port,
    NAS-Port and what the user has typed, and changes identifier and authenticator.
    """
    if not _is_repeatable(source, request):
        return (request.identifying(),)
    try:
        typed = request.password().encode()
    except PasswordFormError:
        return (request.identifying(),)
    return (
        b"session",
        f"{source.host} {source.port}".encode(),
        resource(request, source).encode(),
        calling_station(request).encode(),
        *map(request.first, SESSION),
        typed,
    )


def _context(source: Source, method: str, request_id: RequestId) -> CallContext:
    return CallContext(
        caller=AgentCaller(identity=source.client.identity),
        request_id=request_id,
        method=method,
        deadline_s=DEADLINE_S,
        peer=source.host,
        door="radius",
    )


def calling_station(request: Request) -> str:
    """Return the user's address as the client reports it, for rates and audit."""
    return _readable(request.first(packets.CALLING_STATION_ID), CLIENT_ADDRESS_MAX)


def resource(request: Request, source: Source) -> str:
    """Return the door and the NAS, for the audit log."""
    name = _readable(request.first(packets.NAS_IDENTIFIER), RESOURCE_MAX)
    address = _address(request)
    nas = " ".join(filter(None, (name, address))) or source.host
    return f"RADIUS, NAS {nas}"[:RESOURCE_MAX]


def _address(request: Request) -> str:
    for kind, size in ((packets.NAS_IP_ADDRESS, 4), (packets.NAS_IPV6_ADDRESS, 16)):
        value = request.first(kind)
        if len(value) == size:
            return str(ipaddress.ip_address(value))
    return ""


def _readable(value: bytes, most: int) -> str:
    """Return octets as one line of text; what cannot be shown becomes `?`."""
    text = value.decode(errors="replace")
    return "".join(each if each.isprintable() else "?" for each in text)[:most]
