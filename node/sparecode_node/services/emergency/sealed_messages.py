# SPDX-License-Identifier: Apache-2.0
"""
Use cases: codes go to their user, or the user's manager, as a sealed message (I13).

The node that issues a set draws the key of its link and keeps it in memory until the
mail is sent. It is in no command: a notice of the outbox would put it into the log. So
there is one attempt, by this node, after the commit. If the node stops in between, the
key is gone, and the set is void after an hour.
"""

import asyncio
import logging
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import urlencode, urlsplit

from sparecode_node.domain.ids import SetId, TokenSerial
from sparecode_node.domain.notices import Channel, ChannelKind
from sparecode_node.domain.outcomes import Reason, Rejected
from sparecode_node.domain.sealed_codes import (
    WAITING_MS,
    MailOutcome,
    MessageObstacle,
    address_of,
    is_allowed,
    obstacle,
)
from sparecode_node.domain.users import User
from sparecode_node.queries import notices, sealed_codes, tokens
from sparecode_node.queries import policy as policies
from sparecode_node.queries.sealed_codes import SealedCodesView
from sparecode_node.queries.state import LocalState
from sparecode_node.queries.views import TokenView
from sparecode_node.replication.errors import OverloadedError, ProposeError
from sparecode_node.replication.replicator import Replicator
from sparecode_node.services import fields
from sparecode_node.services.ambient import Clock, Entropy
from sparecode_node.services.context import CallContext, Deadline
from sparecode_node.services.emergency.issuing import DrawnSet
from sparecode_node.services.errors import Refused
from sparecode_node.services.load.rates import Rates
from sparecode_node.services.notices.addresses import CLEARTEXT
from sparecode_node.services.notices.code_letters import write_code_letter
from sparecode_node.services.notices.letters import Letter, LetterUnwritableError
from sparecode_node.services.notices.mail import Delivered, MailSender
from sparecode_node.services.notices.outcomes import Outcome
from sparecode_node.services.notices.senders import UnusableError, open_sender
from sparecode_node.services.proposing import Proposer
from sparecode_node.services.secrets import sealed_links
from sparecode_node.services.secrets.channel_seals import ChannelSeals
from sparecode_node.services.secrets.sealed_links import SealedLink
from sparecode_node.statemachine.commands.emergency_access import (
    NoteSealedCodes,
    OpenSealedCodes,
)
from sparecode_node.statemachine.results import EmergencyAccessSaved

log = logging.getLogger(__name__)
T = TypeVar("T")

PAGE = "/codes"
"""The page of a link, on every node's console."""
READER, MANAGER = "for", "manager"
"""What a link tells its page: it names only the words of the page."""
LINKS_MAX = 3
"""Consoles that a mail names: one may be down for the hour."""
MAIL_S_MIN = 5.0
"""What a mail gets at least, even if the caller has less time left."""
ANSWER_S = 1.0
"""What sending leaves of the caller's time for the answer."""
NOTE_S = 5.0
CLOSE_S = 5.0
"""How long a node that stops waits for mails that are being sent."""
HASHED_MAX = 64
"""Characters of what a page sends: 43 each."""

NO_CHANNEL = Rejected(
    Reason.NOT_BY_MESSAGE,
    "codes cannot go by message: no channel for mail is enabled that encrypts its "
    "connection",
    "by_message",
)
NO_CONSOLE = Rejected(
    Reason.NOT_BY_MESSAGE,
    "codes cannot go by message: this node knows no console that could show them",
    "by_message",
)
EARLIER = (
    "an earlier call with this request ID issued the set, and the audit log tells what "
    "became of its mail"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SentMessage:
    """What became of the mail with the link."""

    outcome: MailOutcome
    recipient: str
    to_manager: bool
    """Whether the recipient is the user's manager."""
    cause: str
    """In words; empty: it was sent."""
    ends_at_ms: int
    """If the codes are not opened by then, they are void."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedCodes:
    """What the page of a link gets, once: it alone has the key."""

    ciphertext: bytes = field(repr=False)
    associated: bytes
    token: TokenView
    ends_at_ms: int | None
    issued_at_ms: int
    issuer: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageChoice:
    """A way for codes of a token to go by message, as a form offers it."""

    to_manager: bool
    recipient: str
    """Empty: none is on file."""
    obstacle: MessageObstacle | None
    """What this node knows to stand in the way."""


class SealedMessages:
    """Sends the links of codes, and hands the encrypted codes out."""

    def __init__(
        self,
        *,
        replicator: Replicator,
        proposer: Proposer,
        state: LocalState,
        seals: ChannelSeals,
        rates: Rates,
        clock: Clock,
        entropy: Entropy,
        consoles: Mapping[str, str],
    ) -> None:
        self._replicator = replicator
        self._proposer = proposer
        self._state = state
        self._seals = seals
        self._rates = rates
        self._clock = clock
        self._entropy = entropy
        self._consoles = tuple(
            address
            for node_id, address in sorted(
                consoles.items(), key=lambda each: each[0] != replicator.node_id
            )
        )[:LINKS_MAX]
        self._sending: set[asyncio.Task[Any]] = set()

    async def finish(self, work: Coroutine[Any, Any, T]) -> T:
        """
        Run *work* to its end, even if the call that waits for it is canceled.

        A set that is committed needs its mail, and a refused mail voids the set.
        """
        task = asyncio.create_task(work, name="codes by message")
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)
        return await asyncio.shield(task)

    async def close(self) -> None:
        """Wait for the mails that are being sent, and cancel those that take too long."""
        tasks = tuple(self._sending)
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=CLOSE_S)
            for each in late:
                each.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def channel(self) -> Channel:
        """
        Return the channel for mail, of which there is one, if it encrypts.

        In clear text the link could be read on its way. Raises `Refused`
        (`NOT_BY_MESSAGE`).
        """
        if not self._consoles:
            raise Refused(NO_CONSOLE)
        async with self._state.transaction() as transaction:
            channels = await notices.channels(transaction)
        found = _encrypting(channels)
        if found is None:
            raise Refused(NO_CHANNEL)
        return found

    async def choices(self, serial: TokenSerial) -> tuple[MessageChoice, ...]:
        """
        Return the ways for codes of a token to go by message: to the user, to the manager.

        They are for a form. Whether codes may go is decided when they are issued.
        """
        async with self._state.transaction() as transaction:
            policy = await policies.current(transaction)
            found = await tokens.find_with_user(transaction, serial)
            channels = await notices.channels(transaction)
        token, user = found or (None, None)

        def problem(*, to_manager: bool) -> MessageObstacle | None:
            if not is_allowed(policy, to_manager=to_manager):
                return MessageObstacle.POLICY
            if not self._consoles:
                return MessageObstacle.NO_CONSOLE
            if _encrypting(channels) is None:
                return MessageObstacle.NO_CHANNEL
            if token is None or user is None:
                return MessageObstacle.NO_USER
            return obstacle(
                user,
                token.pin_rule,
                to_manager=to_manager,
                now_ms=self._clock.now_ms(),
            )

        return tuple(
            MessageChoice(
                to_manager=to_manager,
                recipient=address_of(user, to_manager=to_manager) if user else "",
                obstacle=problem(to_manager=to_manager),
            )
            for to_manager in (False, True)
        )

    def seal(self, user: User, drawn: DrawnSet) -> SealedLink:
        """Encrypt a drawn set for a new link."""
        return sealed_links.seal(
            self._entropy,
            [each.code for each in drawn.shown],
            associated=sealed_links.associated_data(
                self._seals.cluster_id, drawn.set_id, user.user_id
            ),
        )

    async def send(
        self,
        channel: Channel,
        link: SealedLink,
        user: User,
        serial: TokenSerial,
        saved: EmergencyAccessSaved,
        deadline: Deadline,
    ) -> SentMessage:
        """
        Mail the link of a set that was just committed, and record what became of it.

        A set whose mail was certainly not sent is void at once.
        """
        ends_at_ms = saved.at_ms + WAITING_MS
        try:
            outcome, cause = await self._mail(
                channel, link, user, serial, saved, ends_at_ms, deadline
            )
        except Exception as error:
            # Logged here: the call that would raise it may have been canceled. The words
            # of an error of the letter are not among it: they could quote the link.
            log.exception(
                "a sealed message failed",
                extra={
                    "set_id": saved.set_id,
                    "places": error.places
                    if isinstance(error, LetterUnwritableError)
                    else "",
                },
            )
            await self._note(serial, saved, MailOutcome.FAILED, "error of the node")
            raise
        await self._note(serial, saved, outcome, cause)
        return SentMessage(
            outcome=outcome,
            recipient=saved.recipient,
            to_manager=saved.to_manager,
            cause=cause,
            ends_at_ms=ends_at_ms,
        )

    async def _note(
        self,
        serial: TokenSerial,
        saved: EmergencyAccessSaved,
        outcome: MailOutcome,
        cause: str,
    ) -> None:
        note = NoteSealedCodes(
            serial=serial, set_id=_set_id(saved), outcome=outcome, cause=cause
        )
        try:
            await self._replicator.propose(
                self._proposer.node_proposal(note, self._entropy.uuid()),
                timeout_s=NOTE_S,
            )
        except ProposeError as error:
            # The mail is sent or not, all the same. An unopened set ends by itself.
            log.warning(
                "outcome of a sealed message not recorded",
                extra={"set_id": saved.set_id, "outcome": outcome, "cause": str(error)},
            )

    def sent_earlier(self, saved: EmergencyAccessSaved) -> SentMessage:
        """Return what is known of the message of an earlier call with this request id."""
        return SentMessage(
            outcome=MailOutcome.UNKNOWN,
            recipient=saved.recipient,
            to_manager=saved.to_manager,
            cause=EARLIER,
            ends_at_ms=saved.at_ms + WAITING_MS,
        )

    def count(self, context: CallContext) -> None:
        """Count a call of the link's page. Raises `RateError` if there are too many."""
        self._rates.stranger(context.peer)

    async def open(
        self, context: CallContext, *, opener: str, page: str
    ) -> OpenedCodes | None:
        """
        Hand the encrypted codes of a link to a page, once in the cluster.

        *page*: a number that the page has drawn. The same page gets them again for a
        minute, because an answer may be lost. None: the link opens nothing (any more),
        for whatever reason. Raises `RateError`, `InvalidFieldError` and `ProposeError`.
        """
        fields.secret("opener", opener, at_most=HASHED_MAX)
        fields.secret("page", page, at_most=HASHED_MAX)
        self.count(context)
        deadline = Deadline.of(context, self._clock)
        opener, page = sealed_links.hash_of(opener), sealed_links.hash_of(page)
        now_ms = await self._proposer.barrier(deadline)
        async with self._state.transaction() as transaction:
            sealed = await sealed_codes.by_opener(transaction, opener, now_ms)
            token = (
                await tokens.get(transaction, sealed.serial, now_ms=now_ms)
                if sealed
                else None
            )
        if sealed is None or token is None or sealed.page not in ("", page):
            return None
        if not sealed.page:
            result = await self._replicator.propose(
                self._proposer.node_proposal(
                    OpenSealedCodes(opener=opener, page=page), self._entropy.uuid()
                ),
                timeout_s=deadline.left_s(),
            )
            if isinstance(result, Rejected):
                return None
        return self._opened(sealed, token)

    def _opened(self, sealed: SealedCodesView, token: TokenView) -> OpenedCodes:
        return OpenedCodes(
            ciphertext=sealed.ciphertext,
            associated=sealed_links.associated_data(
                self._seals.cluster_id, sealed.set_id, sealed.user_id
            ),
            token=token,
            ends_at_ms=min(
                (
                    each
                    for each in (sealed.ends_at_ms, token.expires_at_ms)
                    if each is not None
                ),
                default=None,
            ),
            issued_at_ms=sealed.issued_at_ms,
            issuer=sealed.issuer,
        )

    async def _mail(
        self,
        channel: Channel,
        link: SealedLink,
        user: User,
        serial: TokenSerial,
        saved: EmergencyAccessSaved,
        ends_at_ms: int,
        deadline: Deadline,
    ) -> tuple[MailOutcome, str]:
        def letter() -> Letter:
            return write_code_letter(
                user,
                serial=serial,
                links=self._links(link, user, to_manager=saved.to_manager),
                ends_at_ms=ends_at_ms,
                contact=channel.contact,
                to_manager=saved.to_manager,
            )

        try:
            sender = await open_sender(
                channel, self._seals, node_id=self._replicator.node_id, folder=None
            )
        except UnusableError as error:
            return MailOutcome.FAILED, str(error)
        if not isinstance(sender, MailSender):
            raise TypeError(f"{channel.name} sends no mail")
        try:
            async with asyncio.timeout(max(_left_s(deadline) - ANSWER_S, MAIL_S_MIN)):
                delivered = await sender.deliver(
                    letter,
                    recipient=saved.recipient,
                    at_ms=saved.at_ms,
                    mail_id=f"{saved.set_id}.codes",
                )
        except TimeoutError:
            return MailOutcome.UNKNOWN, "no answer of the mail server in time"
        finally:
            await sender.close()
        return _judged(delivered)

    def _links(
        self, link: SealedLink, user: User, *, to_manager: bool
    ) -> Sequence[str]:
        """Return the link at each console. What follows `#` is not sent to a server."""
        shown = {"language": user.language} if user.language else {}
        if to_manager:
            shown[READER] = MANAGER
        query = f"?{urlencode(shown)}" if shown else ""
        return [
            f"{each.rstrip('/')}{PAGE}{query}#{link.secret}" for each in self._consoles
        ]


def _encrypting(channels: Sequence[Channel]) -> Channel | None:
    """Return the enabled channel for mail that encrypts; None: there is none."""
    for each in channels:
        clear = urlsplit(each.address).scheme == CLEARTEXT
        if each.kind is ChannelKind.MAIL and each.enabled and not clear:
            return each
    return None


def _judged(delivered: Delivered) -> tuple[MailOutcome, str]:
    attempt = delivered.attempt
    if attempt.outcome is Outcome.DELIVERED:
        return MailOutcome.SENT, ""
    if delivered.is_unknown:
        return MailOutcome.UNKNOWN, attempt.cause
    return MailOutcome.FAILED, attempt.cause


def _left_s(deadline: Deadline) -> float:
    try:
        return deadline.left_s()
    except OverloadedError:
        return 0.0  # The set is committed, so its mail is tried all the same.


def _set_id(saved: EmergencyAccessSaved) -> SetId:
    return SetId(saved.set_id)
