# SPDX-License-Identifier: Apache-2.0
"""Use cases: channels, and the notices that wait for them."""

import asyncio
import base64
import binascii
import ipaddress
import ssl
from collections.abc import Sequence
from pathlib import Path

from sparecode_node.domain.audit import AuditEvent
from sparecode_node.domain.ids import NameKey, NodeId
from sparecode_node.domain.notices import (
    SETTLED_MAX,
    STREAMS,
    Channel,
    ChannelKind,
    EventClass,
)
from sparecode_node.domain.outcomes import Reason, Rejected
from sparecode_node.domain.personal_kinds import PersonalKind
from sparecode_node.domain.personal_notices import PersonalNotice
from sparecode_node.domain.users import fold
from sparecode_node.queries import notices
from sparecode_node.queries.notices import ChannelView, NoticeView, StoredNotice
from sparecode_node.queries.state import LocalState, ReadTransaction
from sparecode_node.queries.views import Page
from sparecode_node.services import fields
from sparecode_node.services.access.authorization import Session
from sparecode_node.services.ambient import Clock, Entropy
from sparecode_node.services.context import CallContext, Deadline, Read
from sparecode_node.services.errors import InvalidFieldError, refusal
from sparecode_node.services.idempotency import idempotent
from sparecode_node.services.load.costly_reads import CostlyReads
from sparecode_node.services.notices.addresses import (
    SMTP_PORTS,
    SYSLOG_SCHEME,
    AddressError,
    check,
    parse_url,
)
from sparecode_node.services.notices.event_file import FILE_NAME
from sparecode_node.services.notices.mail_settings import MailSettings, check_mail
from sparecode_node.services.notices.outcomes import (
    Attempt,
    ChannelTest,
    Exchange,
    Outcome,
)
from sparecode_node.services.notices.senders import UnusableError, open_sender
from sparecode_node.services.proposing import Proposer, applied
from sparecode_node.services.reading import Reader
from sparecode_node.services.secrets.channel_seals import ChannelSeals
from sparecode_node.statemachine.commands.notices import (
    RemoveChannel,
    SaveChannel,
    SendNoticesAgain,
)
from sparecode_node.statemachine.results import Applied

AUTHORITY_MAX = 16 * 1024
"""Characters of the authorities of a channel, in PEM."""
SECRET_PREFIX = "whsec_"
SECRET_BYTES_MIN, SECRET_BYTES_MAX = 24, 64
"""Bounds of Standard Webhooks."""
SECRET_MAX = 128
SECRET_BYTES = 32
"""Of one that a node draws."""
NUMBER_MAX = 2**63 - 1
TEST_ACTION = "TestChannel"
"""The action of a test notice. No event of the audit log has it."""
ANSWER_S = 0.5
"""What a test leaves of the caller's time for the answer."""


class Channels:
    """
    Manages channels.

    Methods raise `InvalidFieldError`, `NotSignedInError`, `NotPermittedError`,
    `ApprovalNeededError`, `Refused` and `ProposeError`.
    """

    def __init__(
        self,
        *,
        proposer: Proposer,
        reader: Reader,
        state: LocalState,
        seals: ChannelSeals,
        tests: CostlyReads,
        clock: Clock,
        entropy: Entropy,
        folder: Path | None,
    ) -> None:
        self._proposer = proposer
        self._reader = reader
        self._state = state
        self._seals = seals
        self._tests = tests
        self._clock = clock
        self._entropy = entropy
        self._folder = folder

    def new_secret(self) -> str:
        """Draw a secret for a webhook. Nothing keeps it until a channel has it."""
        drawn = self._entropy.token_bytes(SECRET_BYTES)
        return SECRET_PREFIX + base64.b64encode(drawn).decode()

    @idempotent
    async def create(  # noqa: PLR0913 - one argument per field.
        self,
        context: CallContext,
        *,
        name: str,
        kind: ChannelKind,
        address: str = "",
        classes: Sequence[EventClass] = (),
        secret: str = "",
        allow_private: bool = False,
        authority: str = "",
        sender: str = "",
        login: str = "",
        contact: str = "",
    ) -> Applied:
        """
        Add a channel. It begins with the events after this change (P3).

        A webhook needs *classes* and a *secret*. Streams tell every event, and have no
        secret; a file has no *address* either, and its name is that of the files. Mail
        needs a *sender* and a *contact*, and a *secret* if it has a *login*.
        """
        deadline = self._proposer.deadline(context)
        session = await self._proposer.begin(context, deadline)
        key = fold(_name(name))
        _check_address(kind, address, allow_private=allow_private)
        wanted = _classes(classes or (tuple(EventClass) if kind in STREAMS else ()))
        _check_classes(kind, wanted)
        _check_authority(authority)
        _check_secret(kind, secret)
        settings = MailSettings(sender=sender, login=login, contact=contact)
        check_mail(kind, address, settings, has_password=bool(secret))
        if kind is ChannelKind.FILE and not FILE_NAME.fullmatch(key):
            raise InvalidFieldError(
                "name", "must be of a-z, 0-9 and - for a file, which has this name"
            )

        async def prepare() -> SaveChannel:
            key_id = self._seals.active_key
            return SaveChannel(
                channel=key,
                name=name,
                kind=kind,
                version=0,
                enabled=True,
                address=address,
                classes=wanted,
                allow_private=allow_private,
                authority=authority,
                sealed_secret=self._seals.seal_channel_secret(key, secret, key_id),
                key_id=key_id,
                sender=settings.sender,
                login=settings.login,
                contact=settings.contact,
            )

        return applied(
            await self._proposer.propose_fresh(context, session, deadline, prepare)
        )

    @idempotent
    async def update(  # noqa: PLR0913 - one argument per field.
        self,
        context: CallContext,
        *,
        name: str,
        enabled: bool | None = None,
        address: str | None = None,
        classes: Sequence[EventClass] = (),
        allow_private: bool | None = None,
        authority: str | None = None,
        secret: str = "",
        sender: str | None = None,
        login: str | None = None,
        contact: str | None = None,
    ) -> Applied:
        """Change a channel (P3). None and no *classes* or *secret* keep a value."""
        deadline = self._proposer.deadline(context)
        session = await self._proposer.begin(context, deadline)
        key = fold(_name(name))
        wanted = _classes(classes)
        _check_authority(authority or "")

        async def prepare() -> SaveChannel:
            known = await self._known(key)
            if secret:
                _check_secret(known.kind, secret)
            if wanted:
                _check_classes(known.kind, wanted)
            key_id = self._seals.active_key
            new_address = known.address if address is None else address
            private = known.allow_private if allow_private is None else allow_private
            _check_address(known.kind, new_address, allow_private=private)
            settings = MailSettings(
                sender=known.sender if sender is None else sender,
                login=known.login if login is None else login,
                contact=known.contact if contact is None else contact,
            )
            new_authority = known.authority if authority is None else authority
            # The password of another server or name is not sent to this one. A new
            # authority decides which server that is.
            moved = (new_address, settings.login, new_authority) != (
                known.address,
                known.login,
                known.authority,
            )
            check_mail(
                known.kind,
                new_address,
                settings,
                has_password=bool(secret) or not moved,
            )
            return SaveChannel(
                channel=key,
                name=known.name,
                kind=known.kind,
                version=known.version,
                enabled=known.enabled if enabled is None else enabled,
                address=new_address,
                classes=wanted or tuple(known.classes),
                allow_private=private,
                authority=new_authority,
                sealed_secret=self._seals.seal_channel_secret(key, secret, key_id)
                if secret
                else None,
                key_id=key_id,
                sender=settings.sender,
                login=settings.login,
                contact=settings.contact,
            )

        return applied(
            await self._proposer.propose_prepared(context, session, deadline, prepare)
        )

    @idempotent
    async def remove(self, context: CallContext, *, name: str) -> Applied:
        """Remove a channel, and the notices that wait for it (P3)."""
        command = RemoveChannel(channel=fold(_name(name)))
        return await self._proposer.change(context, command)

    @idempotent
    async def send_again(
        self, context: CallContext, *, channel: str, numbers: Sequence[int] = ()
    ) -> Applied:
        """Deliver dead letters again: those of *numbers*, or all."""
        if len(numbers) > SETTLED_MAX:
            raise InvalidFieldError("numbers", f"must have at most {SETTLED_MAX}")
        if any(not 0 < number <= NUMBER_MAX for number in numbers):
            raise InvalidFieldError("numbers", "must be numbers of notices")
        command = SendNoticesAgain(
            channel=fold(_name(channel, "channel")), numbers=tuple(numbers)
        )
        return await self._proposer.change(context, command)

    async def list(
        self, context: CallContext, *, stale_ok: bool = False
    ) -> Read[tuple[ChannelView, ...]]:
        """Return all channels with the state of their notices, by name."""

        async def query(
            transaction: ReadTransaction, _: int
        ) -> tuple[ChannelView, ...]:
            return await notices.views(transaction)

        return await self._reader.read(context, query, stale_ok=stale_ok)

    async def notices(
        self,
        context: CallContext,
        *,
        channel: str = "",
        dead_only: bool = False,
        page_size: int = 0,
        page_token: str = "",
        stale_ok: bool = False,
    ) -> Read[Page[NoticeView]]:
        """Return a page of notices that are not delivered, oldest first."""
        size = fields.page_size(page_size)
        key = fold(_name(channel, "channel")) if channel else NameKey("")

        async def query(transaction: ReadTransaction, _: int) -> Page[NoticeView]:
            return await notices.page(
                transaction,
                channel=key,
                dead_only=dead_only,
                size=size,
                page_token=page_token,
            )

        return await self._reader.read(context, query, stale_ok=stale_ok)

    async def test(self, context: CallContext, *, name: str) -> ChannelTest:
        """
        Send a test notice from this node, and return the exchange.

        It is no event, and nothing is kept of it. A disabled channel can be tested, too.
        A mail goes to the calling administrator, or else to the channel's own sender.
        Raises `RateError` and `OverloadedError`, as for costly reads (Q3).
        """
        deadline = self._reader.deadline(context)
        key = fold(_name(name))

        async def query(
            transaction: ReadTransaction, _: int, session: Session
        ) -> tuple[Channel | None, Session, str]:
            address = await notices.address_of(transaction, session.administrator)
            return await notices.find(transaction, key), session, address

        read = await self._reader.read_for(context, query, stale_ok=False)
        channel, session, address = read.value
        if channel is None:
            raise _unknown(key)
        async with self._tests.turn(session.administrator, deadline):
            notice = self._test_notice(channel, session, read.node_id, address)
            exchange = await self._exchange(channel, notice, deadline)
        return ChannelTest(
            delivered=exchange.attempt.outcome is Outcome.DELIVERED,
            cause=exchange.attempt.cause,
            sent=exchange.sent,
            received=exchange.received,
            node_id=read.node_id,
        )

    async def _exchange(
        self, channel: Channel, notice: StoredNotice, deadline: Deadline
    ) -> Exchange:
        try:
            sender = await open_sender(
                channel, self._seals, node_id=notice.event.node, folder=self._folder
            )
        except UnusableError as error:
            return _nothing_sent(str(error))
        try:
            async with asyncio.timeout(max(deadline.left_s() - ANSWER_S, 0)):
                return await sender.exchange(notice, self._clock.now_ms())
        except TimeoutError:
            return _nothing_sent("no answer within the time of the call")
        finally:
            await sender.close()

    def _test_notice(
        self, channel: Channel, session: Session, node_id: NodeId, address: str
    ) -> StoredNotice:
        now_ms = self._clock.now_ms()
        return StoredNotice(
            number=0,
            notice_id=f"{self._seals.cluster_id}-test-{self._entropy.uuid()}",
            event_class=EventClass.ADMINISTRATION,
            event=AuditEvent(
                sequence=0,
                at_ms=now_ms,
                actor=f"administrator:{session.administrator}",
                node=node_id,
                action=TEST_ACTION,
                target=channel.target,
                outcome="applied",
                reason="",
                detail="a test of this channel: nothing has happened",
            ),
            since_ms=now_ms,
            personal=PersonalNotice(
                kind=PersonalKind.TEST,
                recipient=address or channel.sender,
                person=session.administrator,
                language="",
                is_last=False,
            )
            if channel.kind is ChannelKind.MAIL
            else None,
        )

    async def _known(self, channel: NameKey) -> Channel:
        async with self._state.transaction() as transaction:
            known = await notices.find(transaction, channel)
        if known is None:
            raise _unknown(channel)
        return known


def _nothing_sent(cause: str) -> Exchange:
    return Exchange(sent="", received="", attempt=Attempt(Outcome.UNREACHABLE, cause))


def _unknown(channel: NameKey) -> Exception:
    return refusal(
        Rejected(Reason.CHANNEL_UNKNOWN, f"there is no channel {channel}", "name")
    )


def _name(name: str, field: str = "name") -> str:
    return fields.text(field, name, at_least=1, at_most=fields.AGENT_NAME_MAX)


def _classes(classes: Sequence[EventClass]) -> tuple[str, ...]:
    """Return the classes in their own order, each once."""
    return tuple(each.value for each in EventClass if each in classes)


def _check_classes(kind: ChannelKind, classes: tuple[str, ...]) -> None:
    if kind in STREAMS and len(classes) != len(EventClass):
        raise InvalidFieldError("classes", f"must be empty: a {kind} tells every event")
    if kind is ChannelKind.MAIL:
        if classes:
            raise InvalidFieldError(
                "classes", "must be empty: people hear of what concerns them"
            )
        return
    if not classes:
        raise InvalidFieldError("classes", "must name at least one class")


def _check_address(kind: ChannelKind, address: str, *, allow_private: bool) -> None:
    if kind is ChannelKind.FILE:
        if address:
            raise InvalidFieldError(
                "address", "must be empty: the node.toml of each node names the folder"
            )
        return
    schemes = {
        ChannelKind.SYSLOG: (SYSLOG_SCHEME,),
        ChannelKind.MAIL: tuple(SMTP_PORTS),
    }
    try:
        parts = parse_url(address, *schemes.get(kind, ("https",)))
        host = parts.hostname or ""
        try:
            literal = ipaddress.ip_address(host)
        except ValueError:
            return  # A name is resolved, and checked, at each connection.
        check(host, literal, allow_private=allow_private)
    except AddressError as error:
        raise InvalidFieldError("address", str(error)) from None


def _check_authority(authority: str) -> None:
    if len(authority) > AUTHORITY_MAX:
        raise InvalidFieldError(
            "authority", f"must have at most {AUTHORITY_MAX} characters"
        )
    if not authority:
        return
    try:
        ssl.create_default_context(cadata=authority)
    except (ssl.SSLError, ValueError, TypeError):  # TypeError: not ASCII.
        raise InvalidFieldError("authority", "must be certificates in PEM") from None


def _check_secret(kind: ChannelKind, secret: str) -> None:
    if kind in STREAMS:
        if secret:
            raise InvalidFieldError("secret", f"must be empty: a {kind} has none")
        return
    if kind is ChannelKind.MAIL:
        if secret:
            fields.secret("secret", secret, at_most=SECRET_MAX)
        return
    fields.secret("secret", secret, at_most=SECRET_MAX)
    prefix, encoded = secret[: len(SECRET_PREFIX)], secret[len(SECRET_PREFIX) :]
    try:
        key = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if prefix != SECRET_PREFIX or not SECRET_BYTES_MIN <= len(key) <= SECRET_BYTES_MAX:
        raise InvalidFieldError(
            "secret",
            f"must be {SECRET_PREFIX} and {SECRET_BYTES_MIN} to {SECRET_BYTES_MAX} "
            "bytes in base64",
        )
