# SPDX-License-Identifier: Apache-2.0
"""Use cases: emergency codes that replace a lost token (I, R)."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace

from sparecode_node.domain.ids import SetId, TokenSerial
from sparecode_node.domain.notices import Channel
from sparecode_node.domain.outcomes import Reason, Rejected
from sparecode_node.domain.policy import Policy
from sparecode_node.domain.tokens import Token
from sparecode_node.domain.users import User
from sparecode_node.queries import emergency_access, tokens
from sparecode_node.queries import policy as policies
from sparecode_node.queries.state import LocalState, ReadTransaction
from sparecode_node.queries.views import EmergencyAccessView, Page
from sparecode_node.services import fields
from sparecode_node.services.access.authorization import Session
from sparecode_node.services.ambient import Entropy
from sparecode_node.services.context import CallContext, Read
from sparecode_node.services.emergency import issuing
from sparecode_node.services.emergency.issuing import (
    CodeDrawer,
    DrawnSet,
    Lifetime,
    SetTerms,
    ShownCode,
)
from sparecode_node.services.emergency.sealed_messages import (
    SealedMessages,
    SentMessage,
)
from sparecode_node.services.errors import InvalidFieldError, Refused
from sparecode_node.services.idempotency import idempotent
from sparecode_node.services.load.rates import Rates
from sparecode_node.services.proposing import Proposer
from sparecode_node.services.reading import Reader
from sparecode_node.services.secrets.kdf import Kdf
from sparecode_node.services.secrets.sealed_links import SealedLink
from sparecode_node.services.secrets.sealed_values import Draft
from sparecode_node.services.secrets.sealing import BrokenSealError, Sealing
from sparecode_node.statemachine.commands import Command
from sparecode_node.statemachine.commands.emergency_access import (
    DisableEmergencyAccess,
)
from sparecode_node.statemachine.results import (
    Applied,
    EmergencyAccessSaved,
    Result,
)

__all__ = [
    "Emergency",
    "GeneratedCodes",
    "IssuedCodes",
    "Lifetime",
    "SetTerms",
    "ShownCode",
]

DRAFT_BYTES_MAX = 16 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneratedCodes:
    """Codes that are not active until their draft is saved (I3)."""

    codes: tuple[ShownCode, ...]
    draft: bytes = field(repr=False)
    """Sealed; holds verifiers, never codes."""
    draft_ends_at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuedCodes:
    """Live codes, unless an earlier call with this request id issued others."""

    saved: EmergencyAccessSaved
    codes: tuple[ShownCode, ...]
    """Empty if *withheld*."""
    withheld: bool
    """An earlier call with this id issued the set; its codes cannot be shown again (I9)."""
    message: SentMessage | None = None
    """Set if the codes were to go by message: then *codes* is empty (I13)."""


class Emergency:
    """
    Issues sets of emergency codes, and shows the tokens in emergency access.

    Every method raises `InvalidFieldError`, `NotSignedInError`,
    `NotPermittedError`, `Refused` and `ProposeError`.
    """

    def __init__(
        self,
        *,
        proposer: Proposer,
        reader: Reader,
        state: LocalState,
        sealing: Sealing,
        kdf: Kdf,
        rates: Rates,
        entropy: Entropy,
        messages: SealedMessages,
    ) -> None:
        self._messages = messages
        self._proposer = proposer
        self._reader = reader
        self._state = state
        self._sealing = sealing
        self._drawer = CodeDrawer(
            sealing=sealing, kdf=kdf, rates=rates, entropy=entropy
        )
        self._entropy = entropy

    async def generate(
        self, context: CallContext, *, serial: str, count: int | None = None
    ) -> GeneratedCodes:
        """Draw codes and a draft of their set. Changes nothing. *count* None: the policy's default."""
        key = fields.serial(serial)
        deadline = self._proposer.deadline(context)
        session = await self._proposer.session(context, deadline)
        now_ms = await self._proposer.barrier(deadline)
        token, user, policy = await self._find(key)
        number = issuing.count_of(count, policy)
        if token is None:
            raise Refused(_unknown(key))
        problem = issuing.problem(token, user, number, policy, now_ms)
        if problem is not None:
            raise Refused(problem)
        if user is None:
            raise TypeError("an assigned token without a user")
        drawn = await self._drawer.draw(
            user, policy, number, deadline, administrator=session.administrator
        )
        draft = Draft(
            draft_id=self._entropy.uuid(),
            administrator=session.administrator,
            serial=key,
            user_id=user.user_id,
            auth_version=user.auth_version,
            policy_version=policy.version,
            key_id=drawn.key_id,
            set_id=drawn.set_id,
            code_length=policy.code_length,
            ends_at_ms=now_ms + policy.draft_lifetime_ms,
            verifiers=tuple(code.verifier for code in drawn.sealed),
        )
        return GeneratedCodes(
            codes=drawn.shown,
            draft=self._sealing.seal_draft(draft),
            draft_ends_at_ms=draft.ends_at_ms,
        )

    @idempotent
    async def save(
        self,
        context: CallContext,
        *,
        serial: str,
        draft: bytes,
        terms: SetTerms,
    ) -> EmergencyAccessSaved:
        """Make a generated set live, once, on any node (I3)."""
        key = fields.serial(serial)
        terms.check()
        deadline = self._proposer.deadline(context)
        session = await self._proposer.begin(context, deadline)
        command = terms.saving_draft(self._opened(draft, key, session))
        result = await self._proposer.propose(context, session, deadline, command)
        return _saved(result)

    @idempotent
    async def issue(
        self,
        context: CallContext,
        *,
        serial: str,
        count: int | None = None,
        terms: SetTerms,
        by_message: bool = False,
        to_manager: bool = False,
    ) -> IssuedCodes:
        """
        Generate and save in one step. The codes are returned after the commit (I2).

        *by_message*: they are mailed to their user instead, encrypted (I13); with
        *to_manager* to the manager on file with the user.
        """
        if to_manager and not by_message:
            raise InvalidFieldError("to_manager", "is only for codes by message")
        if by_message:
            return await self._messages.finish(
                self._issue_by_message(
                    context, serial, count, terms, to_manager=to_manager
                )
            )
        return await self._issue(context, serial, count, terms, terms.saving_set)

    @idempotent
    async def issue_fixed(
        self,
        context: CallContext,
        *,
        serial: str,
        terms: SetTerms,
    ) -> IssuedCodes:
        """Issue one code that can be used until it expires, not only once (I11)."""
        return await self._issue(context, serial, 1, terms, terms.fixed_code)

    async def _issue(
        self,
        context: CallContext,
        serial: str,
        count: int | None,
        terms: SetTerms,
        command: Callable[[TokenSerial, User | None, Policy, DrawnSet], Command],
        check: Callable[[], Awaitable[None]] | None = None,
    ) -> IssuedCodes:
        """
        Draw codes, and propose the command that *command* builds from them.

        *check* raises `Refused` if this node cannot issue them now. A retry gets the
        first answer all the same.
        """
        key = fields.serial(serial)
        terms.check()
        deadline = self._proposer.deadline(context)
        session = await self._proposer.begin(context, deadline)
        drawn = self._drawer.nothing()

        async def prepare() -> Command:
            nonlocal drawn
            if check is not None:
                await check()
            _, user, policy = await self._find(key)
            number = issuing.count_of(count, policy)
            # Without a user, apply returns the reason, or the first answer to this
            # request id.
            if user is not None:
                drawn = await self._drawer.draw(
                    user, policy, number, deadline, administrator=session.administrator
                )
            return command(key, user, policy, drawn)

        saved = _saved(
            await self._proposer.propose_prepared(context, session, deadline, prepare)
        )
        # An earlier call with this id committed another set. Its codes cannot be read
        # back (I9).
        withheld = saved.set_id != drawn.set_id
        return IssuedCodes(
            saved=saved, codes=() if withheld else drawn.shown, withheld=withheld
        )

    async def _issue_by_message(
        self,
        context: CallContext,
        serial: str,
        count: int | None,
        terms: SetTerms,
        *,
        to_manager: bool,
    ) -> IssuedCodes:
        """Issue a set whose codes no one sees but the page of the link (I13)."""
        deadline = self._proposer.deadline(context)
        channel: Channel | None = None
        drawn_for: dict[SetId, tuple[SealedLink, User]] = {}

        async def check() -> None:
            nonlocal channel
            channel = await self._messages.channel()

        def command(
            key: TokenSerial, user: User | None, policy: Policy, drawn: DrawnSet
        ) -> Command:
            if user is None:
                return terms.saving_set(key, user, policy, drawn)
            link = self._messages.seal(user, drawn)
            drawn_for[drawn.set_id] = link, user
            return terms.saving_set(
                key, user, policy, drawn, link, to_manager=to_manager
            )

        issued = await self._issue(context, serial, count, terms, command, check)
        saved = issued.saved
        sealed = drawn_for.get(SetId(saved.set_id))
        if sealed is None or channel is None:
            message = self._messages.sent_earlier(saved)
        else:
            link, user = sealed
            message = await self._messages.send(
                channel,
                link,
                user,
                fields.serial(serial),
                saved,
                deadline,
            )
        return replace(issued, codes=(), message=message)

    async def get(
        self, context: CallContext, serial: str, *, stale_ok: bool = False
    ) -> Read[EmergencyAccessView]:
        """Return the emergency access of one token, with its sets."""
        key = fields.serial(serial)

        async def query(
            transaction: ReadTransaction, now_ms: int
        ) -> EmergencyAccessView:
            view = await emergency_access.get(transaction, key, now_ms=now_ms)
            if view is None:
                raise Refused(_unknown(key))
            return view

        return await self._reader.read(context, query, stale_ok=stale_ok)

    async def list(
        self,
        context: CallContext,
        *,
        page_size: int = 0,
        page_token: str = "",
        live_codes_max: int = 0,
        end_before_ms: int | None = None,
        stale_ok: bool = False,
    ) -> Read[Page[EmergencyAccessView]]:
        """Return a page of the tokens in emergency access, in the order of serials."""
        size = fields.page_size(page_size)
        if live_codes_max < 0:
            raise InvalidFieldError("live_codes_max", "must be 0 (all) or more")
        fields.time_ms("end_before", end_before_ms)

        async def query(
            transaction: ReadTransaction, now_ms: int
        ) -> Page[EmergencyAccessView]:
            return await emergency_access.page(
                transaction,
                size=size,
                page_token=page_token,
                live_codes_max=live_codes_max,
                end_before_ms=end_before_ms,
                now_ms=now_ms,
            )

        return await self._reader.read(context, query, stale_ok=stale_ok)

    @idempotent
    async def disable(
        self, context: CallContext, *, serial: str, reinstate_token: bool = False
    ) -> Applied:
        """Void all live codes of a token. *reinstate_token*: accept the token again (R2)."""
        command = DisableEmergencyAccess(
            serial=fields.serial(serial), reinstate_token=reinstate_token
        )
        return await self._proposer.change(context, command)

    async def _find(
        self, serial: TokenSerial
    ) -> tuple[Token | None, User | None, Policy]:
        """Return the token, its user and the policy, from this node's state."""
        async with self._state.transaction() as transaction:
            policy = await policies.current(transaction)
            token_and_user = await tokens.find_with_user(transaction, serial)
        token, user = token_and_user or (None, None)
        return token, user, policy

    def _opened(self, draft: bytes, serial: TokenSerial, session: Session) -> Draft:
        """Open the draft, and check its administrator and token (I3)."""
        if len(draft) > DRAFT_BYTES_MAX:
            raise InvalidFieldError("draft", f"has more than {DRAFT_BYTES_MAX} bytes")
        try:
            opened = self._sealing.unseal_draft(draft)
        except BrokenSealError as error:
            raise InvalidFieldError("draft", str(error)) from None
        if opened.serial != serial:
            raise InvalidFieldError("draft", "was generated for another token")
        if opened.administrator != session.administrator:
            raise InvalidFieldError("draft", "was generated by another administrator")
        return opened


def _unknown(serial: TokenSerial) -> Rejected:
    return Rejected(Reason.TOKEN_UNKNOWN, f"there is no token {serial}", "serial")


def _saved(result: Result) -> EmergencyAccessSaved:
    if not isinstance(result, EmergencyAccessSaved):
        raise TypeError(f"unexpected result: {type(result).__name__}")
    return result
