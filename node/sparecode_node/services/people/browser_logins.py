# SPDX-License-Identifier: Apache-2.0
"""
Use cases: a program signs in, and its administrator approves it in the console (P9).

As RFC 8628, with two differences. The program is known by nothing but its device code,
so the request names the administrator, and no other one can approve it. And the state
holds keyed hashes: neither the log nor a backup has a code that works.
"""

from base64 import urlsafe_b64encode
from dataclasses import dataclass, field

from sparecode_node.domain.browser_logins import (
    BROWSER_LOGIN_MS,
    CLIENT_NAME_MAX,
    POLL_MS,
    USER_CODE_ALPHABET,
    USER_CODE_LENGTH,
    LoginState,
    is_user_code,
    normalized_code,
    shown_code,
)
from sparecode_node.domain.ids import AdministratorName, NameKey
from sparecode_node.domain.users import fold
from sparecode_node.queries import administrators, browser_logins
from sparecode_node.queries.browser_logins import WaitingLogin
from sparecode_node.queries.state import LocalState
from sparecode_node.replication.replicator import Proposal
from sparecode_node.services import fields
from sparecode_node.services.access.authorization import Session
from sparecode_node.services.ambient import Clock, Entropy
from sparecode_node.services.context import CallContext, Deadline
from sparecode_node.services.errors import InvalidFieldError, Refused
from sparecode_node.services.idempotency import idempotent
from sparecode_node.services.load.rates import Rates
from sparecode_node.services.people.device_cookies import DeviceCookies
from sparecode_node.services.people.sessions import (
    BEARER_BYTES,
    SignedIn,
    opened,
)
from sparecode_node.services.proposing import Proposer, applied
from sparecode_node.services.secrets.sealing import Sealing, session_id
from sparecode_node.statemachine.commands.browser_logins import (
    ApproveBrowserLogin,
    CollectBrowserLogin,
    RefuseBrowserLogin,
    StartBrowserLogin,
)
from sparecode_node.statemachine.handlers.browser_logins import ENDED, REFUSED, UNKNOWN
from sparecode_node.statemachine.results import Applied

DEVICE_CODE_MAX = 64
PAGE = "/account/command-line"
"""The console's page where the user code is typed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StartedLogin:
    """A request that waits for its approval, with its codes, which are shown once."""

    device_code: str = field(repr=False)
    user_code: str = field(repr=False)
    page: str
    """The address of the page where the user code is typed; empty: unknown."""
    ends_at_ms: int
    interval_ms: int
    """The time between two polls."""


class BrowserLogins:
    """Starts, approves, refuses and collects sign-ins of programs."""

    def __init__(
        self,
        *,
        proposer: Proposer,
        state: LocalState,
        sealing: Sealing,
        rates: Rates,
        device_cookies: DeviceCookies,
        clock: Clock,
        entropy: Entropy,
        console: str,
    ) -> None:
        """*console*: the address of a console, for the answers; empty: unknown."""
        self._proposer = proposer
        self._state = state
        self._sealing = sealing
        self._rates = rates
        self._device_cookies = device_cookies
        self._clock = clock
        self._entropy = entropy
        self._console = console

    async def start(
        self, context: CallContext, *, administrator: str, client_name: str = ""
    ) -> StartedLogin:
        """
        Let a program ask to sign in as *administrator*.

        The context's device cookie tells a known device from strangers (L7). The answer
        is the same for a name that does not exist: then no one can approve it.
        Raises `InvalidFieldError`, `RateError`, `Refused` (`BROWSER_LOGINS_FULL`), and
        `ProposeError`.
        """
        fields.text(
            "administrator",
            administrator,
            at_least=1,
            at_most=fields.ADMINISTRATOR_NAME_MAX,
        )
        fields.text("client_name", client_name, at_most=CLIENT_NAME_MAX)
        name = AdministratorName(fold(administrator))
        deadline = self._proposer.deadline(context)
        async with self._state.transaction() as transaction:
            device = await self._device_cookies.known(
                transaction, context.device_cookie, name
            )
        self._rates.browser_login(
            peer=context.peer, client=device.device if device else ""
        )
        device_code = self._secret()
        user_code = ""

        async def prepare() -> Proposal:
            nonlocal user_code
            listed = await self._listed(name)
            user_code = self._entropy.choices(USER_CODE_ALPHABET, USER_CODE_LENGTH)
            command = StartBrowserLogin(
                login_id=self._login_ids(context, device_code)[0],
                code_tag=self._sealing.user_code_tags(listed, user_code)[0],
                administrator=listed,
                device=device.device if device else "",
                address=context.peer,
                client_name=client_name,
            )
            return self._proposer.node_proposal(command, self._entropy.uuid())

        await self._proposer.decide(prepare, deadline)
        return StartedLogin(
            device_code=device_code,
            user_code=shown_code(user_code),
            page=f"{self._console}{PAGE}" if self._console else "",
            ends_at_ms=self._clock.now_ms() + BROWSER_LOGIN_MS,
            interval_ms=POLL_MS,
        )

    async def find(self, context: CallContext, *, user_code: str) -> WaitingLogin:
        """
        Return the caller's waiting request with this user code.

        Guesses have the rate of passwords. Raises `NotSignedInError`, `RateError`,
        `InvalidFieldError`, `Refused` (`BROWSER_LOGIN_UNKNOWN`), and `ProposeError`.
        """
        deadline = self._proposer.deadline(context)
        session = await self._proposer.session(context, deadline)
        found = await self._found(context, session, deadline, user_code)
        if found is None or found.state is not LoginState.WAITING:
            raise Refused(UNKNOWN)
        return found

    @idempotent
    async def approve(self, context: CallContext, *, user_code: str) -> Applied:
        """Let the program sign in as the caller. Raises as `find`."""
        return await self._decide(context, user_code, ApproveBrowserLogin)

    @idempotent
    async def refuse(self, context: CallContext, *, user_code: str) -> Applied:
        """Refuse the program. Raises as `find`."""
        return await self._decide(context, user_code, RefuseBrowserLogin)

    async def _decide(
        self,
        context: CallContext,
        user_code: str,
        decision: type[ApproveBrowserLogin | RefuseBrowserLogin],
    ) -> Applied:
        deadline = self._proposer.deadline(context)
        session = await self._proposer.begin(context, deadline)
        login = await self._found(context, session, deadline, user_code)
        # Apply answers for an unknown one, too: a retry may come after its end.
        command = decision(login_id=login.login_id if login else "")
        return applied(
            await self._proposer.propose(context, session, deadline, command)
        )

    @idempotent
    async def collect(
        self, context: CallContext, *, device_code: str
    ) -> SignedIn | None:
        """
        Return the session of an approved request, once; None: it is not decided yet.

        The session is bound to the client certificate of the call, which must be the one
        that started the request (P2).
        Raises `Refused` (`BROWSER_LOGIN_UNKNOWN`, `BROWSER_LOGIN_REFUSED`,
        `REQUEST_ID_REUSED`), `RateError` if it polls too often, `InvalidFieldError`, and
        `ProposeError`.
        """
        fields.request_id(context.request_id)
        fields.secret("device_code", device_code, at_most=DEVICE_CODE_MAX)
        deadline = self._proposer.deadline(context)
        login = await self._waiting(context, device_code, deadline)
        if login is None:
            raise Refused(ENDED)
        self._rates.poll(login_id=login.login_id)
        if login.state is LoginState.REFUSED:
            raise Refused(REFUSED)
        if login.state is LoginState.WAITING:
            return None
        bearer = self._secret()
        command = CollectBrowserLogin(
            login_id=login.login_id,
            administrator=login.administrator,
            session_id=session_id(bearer, context.client_certificate),
            address=context.peer,
        )

        async def prepare() -> Proposal:
            return self._proposer.proposal(
                context, command, caller=f"administrator:{login.administrator}"
            )

        result = opened(await self._proposer.decide(prepare, deadline))
        async with self._state.transaction() as transaction:
            current = await administrators.password_parameters(
                transaction, login.administrator
            )
        return SignedIn(
            bearer=bearer,
            opened=result,
            device_cookie=self._device_cookies.make(login.administrator, current.salt)
            if current
            else "",
        )

    async def _listed(self, name: AdministratorName) -> AdministratorName:
        """Return the name as it is stored; a keyed hash if there is none, as at sign-in."""
        async with self._state.transaction() as transaction:
            if await administrators.password_parameters(transaction, name):
                return name
        tag = self._sealing.name_tags(NameKey(name))[0]
        return AdministratorName(f"unknown {tag.hex()}")

    async def _found(
        self,
        context: CallContext,
        session: Session,
        deadline: Deadline,
        user_code: str,
    ) -> WaitingLogin | None:
        """Return the caller's request with a user code, at the rate of passwords."""
        name = session.administrator
        self._rates.sign_in(
            administrator=name, peer=context.peer, client=session.session_id
        )
        code = normalized_code(user_code)
        if not is_user_code(code):
            raise InvalidFieldError(
                "user_code",
                f"must be the {USER_CODE_LENGTH} letters that the command line shows",
            )
        now_ms = await self._proposer.barrier(deadline)
        async with self._state.transaction() as transaction:
            return await browser_logins.by_user_code(
                transaction, self._sealing.user_code_tags(name, code), name, now_ms
            )

    async def _waiting(
        self, context: CallContext, device_code: str, deadline: Deadline
    ) -> WaitingLogin | None:
        """
        Return the request with a device code.

        One that this node does not know is looked up again behind a barrier: it may have
        been made a moment ago on another node.
        """
        login_ids = self._login_ids(context, device_code)
        async with self._state.transaction() as transaction:
            known = await browser_logins.by_device_code(
                transaction, login_ids, self._clock.now_ms()
            )
        if known is not None:
            return known
        self._rates.stranger(context.peer)
        now_ms = await self._proposer.barrier(deadline)
        async with self._state.transaction() as transaction:
            return await browser_logins.by_device_code(transaction, login_ids, now_ms)

    def _login_ids(self, context: CallContext, device_code: str) -> tuple[str, ...]:
        """Return the keyed hashes of a device code, bound to the client's certificate."""
        bound = session_id(device_code, context.client_certificate)
        return tuple(each.hex() for each in self._sealing.device_code_tags(bound))

    def _secret(self) -> str:
        drawn = urlsafe_b64encode(self._entropy.token_bytes(BEARER_BYTES))
        return drawn.decode().rstrip("=")
