# SPDX-License-Identifier: Apache-2.0
"""Channels, and the notices that wait for them."""

import contextlib
import json
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, field

from sparecode_node.domain.audit import AuditEvent
from sparecode_node.domain.etags import CHANNEL, etag
from sparecode_node.domain.ids import NameKey
from sparecode_node.domain.notices import Channel, ChannelKind, EventClass
from sparecode_node.domain.personal_kinds import PersonalKind
from sparecode_node.domain.personal_notices import PersonalNotice
from sparecode_node.queries import audit, pages
from sparecode_node.queries.audit import AuditRecord
from sparecode_node.queries.pages import PageTokenError
from sparecode_node.queries.segments import MissingSegmentError
from sparecode_node.queries.state import ReadTransaction
from sparecode_node.queries.views import Page
from sparecode_node.statemachine.tables.notices import COLUMNS, channel_in

NUMBER_DIGITS_MAX = 18


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredNotice:
    """A notice, with the event that it tells."""

    number: int
    notice_id: str
    event_class: EventClass
    event: AuditEvent
    since_ms: int
    """Deliveries are tried since then."""
    personal: PersonalNotice | None = None
    """To whom a mail goes; None: it is no mail."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NoticeView:
    """A notice that is not delivered, without the content of its event."""

    number: int
    notice_id: str
    channel: str
    """The channel's name as it is displayed."""
    event_class: EventClass
    action: str
    sequence: int
    at_ms: int
    dead: bool
    cause: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelView:
    """A channel with the state of its notices."""

    channel: Channel
    waiting: int
    dead: int
    oldest_at_ms: int | None
    """When the oldest waiting notice happened; None: none waits."""
    etag: str = field(default="", compare=False)


async def channels(transaction: ReadTransaction) -> list[Channel]:
    """Return all channels, ordered by name."""
    rows = await transaction.all(f"SELECT {COLUMNS} FROM channels ORDER BY channel")
    return [channel_in(tuple(row)) for row in rows]


async def find(transaction: ReadTransaction, channel: NameKey) -> Channel | None:
    """Return a channel; None: there is none of this name."""
    row = await transaction.one(
        f"SELECT {COLUMNS} FROM channels WHERE channel = :channel", channel=channel
    )
    return None if row is None else channel_in(tuple(row))


async def address_of(transaction: ReadTransaction, administrator: str) -> str:
    """Return the address on file of an administrator; empty: there is none."""
    row = await transaction.one(
        "SELECT email FROM administrators JOIN users USING (user_id) "
        "WHERE name = :name",
        name=administrator,
    )
    return "" if row is None else str(row["email"])


async def views(transaction: ReadTransaction) -> tuple[ChannelView, ...]:
    """Return all channels with the state of their notices, ordered by name."""
    rows = await transaction.all(
        "SELECT channel, count(*) FILTER (WHERE NOT dead) AS waiting, "
        "count(*) FILTER (WHERE dead) AS dead, "
        "min(at_ms) FILTER (WHERE NOT dead) AS oldest FROM notices GROUP BY channel"
    )
    counts = {row["channel"]: row for row in rows}
    found = []
    for each in await channels(transaction):
        if each.kind is ChannelKind.SYSLOG:
            found.append(await _syslog_view(transaction, each))
            continue
        row = counts.get(each.channel)
        found.append(
            ChannelView(
                channel=each,
                waiting=0 if row is None else row["waiting"],
                dead=0 if row is None else row["dead"],
                oldest_at_ms=None if row is None else row["oldest"],
                etag=etag(each, CHANNEL),
            )
        )
    return tuple(found)


async def _syslog_view(transaction: ReadTransaction, channel: Channel) -> ChannelView:
    """Return a channel that waits with its part of the audit log. Files never wait."""
    begin = await position(transaction, channel.channel)
    newest = (await audit.head(transaction)).sequence
    first: tuple[AuditRecord, ...] = ()
    with contextlib.suppress(MissingSegmentError):
        first = await audit.following(transaction, after=begin, up_to=newest, rows=1)
    return ChannelView(
        channel=channel,
        waiting=max(newest - begin, 0),
        dead=0,
        oldest_at_ms=first[0].event.at_ms if first else None,
        etag=etag(channel, CHANNEL),
    )


async def position(transaction: ReadTransaction, channel: NameKey) -> int:
    """Return the sequence number of the last event that a stream has delivered."""
    row = await transaction.one(
        "SELECT position FROM channels WHERE channel = :channel", channel=channel
    )
    return 0 if row is None else int(row["position"])


async def waiting(
    transaction: ReadTransaction,
    channel: NameKey,
    *,
    without: Sequence[int],
    most: int,
) -> list[StoredNotice]:
    """Return the oldest notices of a channel that are no dead letters."""
    rows = await transaction.all(
        "SELECT * FROM notices WHERE channel = :channel AND dead = 0 "
        "AND number NOT IN (SELECT value FROM json_each(:without)) "
        "ORDER BY number LIMIT :most",
        channel=channel,
        without=json.dumps(list(without)),
        most=most,
    )
    return [_notice(row) for row in rows]


async def overdue(
    transaction: ReadTransaction, channel: NameKey, *, before_ms: int, most: int
) -> tuple[int, ...]:
    """Return the numbers of notices whose deliveries are tried since before a time."""
    rows = await transaction.all(
        "SELECT number FROM notices WHERE channel = :channel AND dead = 0 "
        "AND since_ms <= :before ORDER BY number LIMIT :most",
        channel=channel,
        before=before_ms,
        most=most,
    )
    return tuple(row["number"] for row in rows)


async def page(
    transaction: ReadTransaction,
    *,
    channel: NameKey,
    dead_only: bool,
    size: int,
    page_token: str,
) -> Page[NoticeView]:
    """Return a page of notices that are not delivered, oldest first."""
    after = pages.decode(page_token)
    if after and not (
        after.isascii() and after.isdigit() and len(after) <= NUMBER_DIGITS_MAX
    ):
        raise PageTokenError
    rows = await transaction.all(
        """
        SELECT number, notice_id, name, class, action, sequence, at_ms, dead, cause
        FROM notices JOIN channels USING (channel)
        WHERE number > :after AND (:channel = '' OR channel = :channel)
            AND (NOT :dead_only OR dead)
        ORDER BY number LIMIT :rows
        """,
        after=int(after or 0),
        channel=channel,
        dead_only=dead_only,
        rows=size + 1,
    )
    found = [
        NoticeView(
            number=row["number"],
            notice_id=row["notice_id"],
            channel=row["name"],
            event_class=EventClass(row["class"]),
            action=row["action"],
            sequence=row["sequence"],
            at_ms=row["at_ms"],
            dead=bool(row["dead"]),
            cause=row["cause"],
        )
        for row in rows
    ]
    return pages.page(found, size, lambda each: str(each.number))


def _notice(row: sqlite3.Row) -> StoredNotice:
    return StoredNotice(
        number=row["number"],
        notice_id=row["notice_id"],
        event_class=EventClass(row["class"]),
        event=AuditEvent(
            sequence=row["sequence"],
            at_ms=row["at_ms"],
            actor=row["actor"],
            node=row["node"],
            action=row["action"],
            target=row["target"],
            outcome=row["outcome"],
            reason=row["reason"],
            detail=row["detail"],
        ),
        since_ms=row["since_ms"],
        personal=PersonalNotice(
            kind=PersonalKind(row["kind"]),
            recipient=row["recipient"],
            person=row["person"],
            language=row["language"],
            is_last=bool(row["is_last"]),
            user_id=row["user_id"],
            to_manager=bool(row["to_manager"]),
        )
        if row["kind"]
        else None,
    )
