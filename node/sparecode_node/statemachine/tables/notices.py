# SPDX-License-Identifier: Apache-2.0
"""Rows of channels, and of the notices that wait for their delivery: the outbox."""

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sparecode_node.domain.audit import AuditEvent
from sparecode_node.domain.ids import NameKey, UserId
from sparecode_node.domain.notices import (
    SECURITY_RANK,
    Channel,
    ChannelKind,
    EventClass,
)
from sparecode_node.domain.personal_notices import PersonalNotice

SECURITY = f"(rank <= {SECURITY_RANK})"
"""Whether a notice is about security, in SQL and in an index."""

NOTICE_TABLES = f"""
CREATE TABLE channels (
    channel TEXT PRIMARY KEY,        -- NFKC, casefold
    name TEXT NOT NULL,
    kind TEXT NOT NULL,
    enabled INTEGER NOT NULL,
    address TEXT NOT NULL,
    classes TEXT NOT NULL,           -- separated by spaces
    allow_private INTEGER NOT NULL,
    authority TEXT NOT NULL,         -- PEM; empty: those of the system
    sealed_secret BLOB NOT NULL,
    key_id INTEGER NOT NULL,
    version INTEGER NOT NULL,
    kept INTEGER NOT NULL,           -- its rows in `notices`
    security INTEGER NOT NULL,       -- those of them that are about security
    dropped INTEGER NOT NULL,        -- that no audit event has told yet
    drops_told_ms INTEGER NOT NULL,  -- when the last one did
    position INTEGER NOT NULL,       -- of a stream: the last event that was delivered
    sender TEXT NOT NULL,            -- mail: the address that it is from
    login TEXT NOT NULL,             -- mail: the name at the server; empty: none
    contact TEXT NOT NULL            -- mail: how people reach the help desk
) STRICT, WITHOUT ROWID;

CREATE TABLE notices (
    number INTEGER PRIMARY KEY AUTOINCREMENT,   -- order of the events
    channel TEXT NOT NULL REFERENCES channels (channel) ON DELETE CASCADE,
    notice_id TEXT NOT NULL,         -- the same for every channel
    rank INTEGER NOT NULL,           -- of its action: the highest is dropped first
    class TEXT NOT NULL,
    sequence INTEGER NOT NULL,       -- in the audit log
    at_ms INTEGER NOT NULL,
    actor TEXT NOT NULL,
    node TEXT NOT NULL,
    action TEXT NOT NULL,
    target TEXT NOT NULL,            -- mail: the token that it names, if another one
    outcome TEXT NOT NULL,
    reason TEXT NOT NULL,
    detail TEXT NOT NULL,
    since_ms INTEGER NOT NULL,       -- deliveries are tried since then
    dead INTEGER NOT NULL,
    cause TEXT NOT NULL,             -- why it is a dead letter
    kind TEXT NOT NULL,              -- mail: what it tells; empty: not to a person
    recipient TEXT NOT NULL,         -- mail: the address
    person TEXT NOT NULL,            -- mail: the name of the user that it is about
    language TEXT NOT NULL,          -- mail: of that user; empty: not known
    is_last INTEGER NOT NULL,        -- mail: more of its kind are left out for an hour
    user_id TEXT NOT NULL,           -- mail: that user; empty: none, or deleted
    to_manager INTEGER NOT NULL      -- mail: whether it goes to that user's manager
) STRICT;
CREATE INDEX notices_of_channel ON notices (channel, dead, number);
CREATE INDEX notices_to_drop
    ON notices (channel, {SECURITY}, actor, dead DESC, rank DESC, number);

CREATE TABLE notice_senders (
    channel TEXT NOT NULL REFERENCES channels (channel) ON DELETE CASCADE,
    security INTEGER NOT NULL,       -- notices about security are counted apart
    sender TEXT NOT NULL,            -- the actor of their events
    kept INTEGER NOT NULL,
    PRIMARY KEY (channel, security, sender)
) STRICT, WITHOUT ROWID;
CREATE INDEX notice_senders_by_kept
    ON notice_senders (channel, security, kept DESC, sender);

CREATE TABLE personal_counts (
    person TEXT NOT NULL,            -- the id of a user (with an address that is left),
                                     -- or the name of an administrator
    kind TEXT NOT NULL,
    count INTEGER NOT NULL,          -- notices of this kind in this hour
    ends_at_ms INTEGER NOT NULL,     -- of the hour
    PRIMARY KEY (person, kind)
) STRICT, WITHOUT ROWID;
CREATE INDEX personal_counts_by_end ON personal_counts (ends_at_ms);

CREATE TABLE former_addresses (
    user_id TEXT NOT NULL REFERENCES users (user_id) ON DELETE CASCADE,
    of_manager INTEGER NOT NULL,     -- whether it was the address of the user's manager
    email TEXT NOT NULL,
    ends_at_ms INTEGER NOT NULL,     -- until then it hears what the present one hears
    PRIMARY KEY (user_id, of_manager, email)
) STRICT, WITHOUT ROWID;
CREATE INDEX former_addresses_by_end ON former_addresses (ends_at_ms);
"""
"""Here, because `schema` has 500 lines already."""

COLUMNS = (
    "channel, name, kind, enabled, address, classes, allow_private, authority, "
    "sealed_secret, key_id, version, sender, login, contact"
)


def channel_in(row: Sequence[Any]) -> Channel:
    """Return the channel in a row of `COLUMNS`."""
    values = dict(zip(COLUMNS.split(", "), row, strict=True))
    return Channel(
        **values
        | {
            "kind": ChannelKind(values["kind"]),
            "enabled": bool(values["enabled"]),
            "classes": tuple(EventClass(each) for each in values["classes"].split()),
            "allow_private": bool(values["allow_private"]),
        }
    )


def find(db: sqlite3.Connection, channel: NameKey) -> Channel | None:
    """Return a channel; None: there is none of this name."""
    row = db.execute(
        f"SELECT {COLUMNS} FROM channels WHERE channel = ?", (channel,)
    ).fetchone()
    return None if row is None else channel_in(row)


def count(db: sqlite3.Connection) -> int:
    """Return the number of channels."""
    (number,) = db.execute("SELECT count(*) FROM channels").fetchone()
    return int(number)


@dataclass(frozen=True, slots=True, kw_only=True)
class Keeping:
    """A channel that keeps notices, with the number that it has."""

    channel: NameKey
    kind: ChannelKind
    kept: int
    classes: tuple[str, ...]


def keeping(db: sqlite3.Connection) -> list[Keeping]:
    """Return the enabled channels except streams: these read the audit log."""
    rows = db.execute(
        "SELECT channel, kind, kept, classes FROM channels "
        "WHERE enabled AND kind IN (?, ?) ORDER BY channel",
        (ChannelKind.WEBHOOK, ChannelKind.MAIL),
    )
    return [
        Keeping(
            channel=NameKey(channel),
            kind=ChannelKind(kind),
            kept=kept,
            classes=tuple(classes.split()),
        )
        for channel, kind, kept, classes in rows
    ]


def mail_channel(db: sqlite3.Connection) -> str | None:
    """Return the name of the channel that sends mail, enabled or not."""
    row = db.execute(
        "SELECT name FROM channels WHERE kind = ?", (ChannelKind.MAIL,)
    ).fetchone()
    return None if row is None else str(row[0])


def former_addresses(
    db: sqlite3.Connection, user_id: UserId, *, now_ms: int, of_manager: bool = False
) -> list[str]:
    """Return the former addresses of a user that still hear, the oldest first."""
    rows = db.execute(
        "SELECT email FROM former_addresses WHERE user_id = ? AND of_manager = ? "
        "AND ends_at_ms > ? ORDER BY ends_at_ms, email",
        (user_id, of_manager, now_ms),
    )
    return [email for (email,) in rows]


def keep_address(
    db: sqlite3.Connection,
    user_id: UserId,
    email: str,
    *,
    now_ms: int,
    ends_at_ms: int,
    most: int,
    of_manager: bool = False,
) -> None:
    """
    Let an address hear for some time, though the user has another one now.

    Among more than *most*, the oldest ones stay: an attacker who changes the address
    again and again cannot push the owner's out. One that is kept already is kept for
    longer.
    """
    (kept,) = db.execute(
        "SELECT count(*) FROM former_addresses "
        "WHERE user_id = ? AND of_manager = ? AND ends_at_ms > ? AND email != ?",
        (user_id, of_manager, now_ms, email),
    ).fetchone()
    if kept < most:
        db.execute(
            "INSERT INTO former_addresses (user_id, of_manager, email, ends_at_ms) "
            "VALUES (?, ?, ?, ?) ON CONFLICT (user_id, of_manager, email) "
            "DO UPDATE SET ends_at_ms = excluded.ends_at_ms",
            (user_id, of_manager, email, ends_at_ms),
        )


def count_personal(
    db: sqlite3.Connection, person: str, kind: str, *, now_ms: int, hour_ms: int
) -> int:
    """Count a notice to a person, and return which of its kind it is in this hour."""
    (count,) = db.execute(
        "INSERT INTO personal_counts (person, kind, count, ends_at_ms) "
        "VALUES (?, ?, 1, ?) ON CONFLICT (person, kind) DO UPDATE SET "
        "count = CASE WHEN ends_at_ms <= ? THEN 1 ELSE count + 1 END, "
        "ends_at_ms = CASE WHEN ends_at_ms <= ? THEN excluded.ends_at_ms "
        "ELSE ends_at_ms END RETURNING count",
        (person, kind, now_ms + hour_ms, now_ms, now_ms),
    ).fetchone()
    return int(count)


def save(db: sqlite3.Connection, channel: Channel) -> None:
    """Save a channel. Its notices stay; a new one begins with the events after now."""
    names = COLUMNS.split(", ")
    changes = ", ".join(f"{name} = excluded.{name}" for name in names[1:])
    db.execute(
        f"INSERT INTO channels ({COLUMNS}, kept, security, dropped, drops_told_ms, position) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0, 0, 0, 0, "
        "(SELECT coalesce(max(sequence), 0) FROM audit_events)) "
        f"ON CONFLICT (channel) DO UPDATE SET {changes}",
        (
            channel.channel,
            channel.name,
            channel.kind,
            channel.enabled,
            channel.address,
            " ".join(channel.classes),
            channel.allow_private,
            channel.authority,
            channel.sealed_secret,
            channel.key_id,
            channel.version,
            channel.sender,
            channel.login,
            channel.contact,
        ),
    )


def remove(db: sqlite3.Connection, channel: NameKey) -> int:
    """
    Remove a channel with its notices, and return how many these were.

    Those are counted that were dropped before, if no audit event has told them.
    """
    done = db.execute("DELETE FROM notices WHERE channel = ?", (channel,))
    (untold,) = db.execute(
        "DELETE FROM channels WHERE channel = ? RETURNING dropped", (channel,)
    ).fetchone() or (0,)
    return done.rowcount + int(untold)


def add(
    db: sqlite3.Connection,
    channel: str,
    event: AuditEvent,
    *,
    notice_id: str,
    event_class: EventClass,
    rank: int,
    personal: PersonalNotice | None = None,
) -> None:
    """Add the notice of an event for a channel; *personal*: to a person."""
    db.execute(
        "INSERT INTO notices (channel, notice_id, rank, class, sequence, at_ms, actor, "
        "node, action, target, outcome, reason, detail, since_ms, dead, cause, "
        "kind, recipient, person, language, is_last, user_id, to_manager) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0, '', ?, ?, ?, ?, ?, ?, ?)",
        (
            channel,
            notice_id,
            rank,
            event_class,
            event.sequence,
            event.at_ms,
            event.actor,
            event.node,
            event.action,
            (personal and personal.target) or event.target,
            event.outcome,
            event.reason,
            event.detail,
            event.at_ms,
            *(
                ("", "", "", "", 0, "", 0)
                if personal is None
                else (
                    personal.kind,
                    personal.recipient,
                    personal.person,
                    personal.language,
                    personal.is_last,
                    personal.user_id,
                    personal.to_manager,
                )
            ),
        ),
    )
    _count(db, channel, event.actor, security=rank <= SECURITY_RANK, number=1)


def drop_one(
    db: sqlite3.Connection, channel: str, *, now_ms: int, every_ms: int
) -> int:
    """
    Drop a notice of the sender that has the most: a flood costs only its sender.

    Notices about security lose only while they have more than half of the channel. Of the
    sender, the oldest dead letter is dropped, or else the oldest of the highest rank.
    Returns how many were dropped since the last audit event that told of it, if it was
    at least *every_ms* ago; 0: no event is due.
    """
    security, sender = db.execute(
        "SELECT security, sender FROM notice_senders WHERE channel = :channel AND "
        "security = (SELECT 2 * security > kept FROM channels WHERE channel = :channel) "
        "ORDER BY kept DESC, sender LIMIT 1",
        {"channel": channel},
    ).fetchone()
    db.execute(
        "DELETE FROM notices WHERE number = (SELECT number FROM notices "
        f"WHERE channel = ? AND {SECURITY} = ? AND actor = ? "
        "ORDER BY dead DESC, rank DESC, number LIMIT 1)",
        (channel, security, sender),
    )
    _count(db, channel, sender, security=bool(security), number=-1)
    (dropped, told_ms) = db.execute(
        "UPDATE channels SET dropped = dropped + 1 WHERE channel = ? "
        "RETURNING dropped, drops_told_ms",
        (channel,),
    ).fetchone()
    if now_ms - told_ms < every_ms:
        return 0
    db.execute(
        "UPDATE channels SET dropped = 0, drops_told_ms = ? WHERE channel = ?",
        (now_ms, channel),
    )
    return int(dropped)


def take_untold(
    db: sqlite3.Connection, *, now_ms: int, every_ms: int
) -> list[tuple[str, int]]:
    """
    Return the channels with drops that no audit event has told, as told from now on.

    Those whose last event of drops was less than *every_ms* ago wait.
    """
    due = db.execute(
        "SELECT channel, dropped FROM channels "
        "WHERE dropped AND drops_told_ms <= ? ORDER BY channel",
        (now_ms - every_ms,),
    ).fetchall()
    if due:
        db.executemany(
            "UPDATE channels SET dropped = 0, drops_told_ms = ? WHERE channel = ?",
            [(now_ms, channel) for channel, _ in due],
        )
    return [(channel, int(dropped)) for channel, dropped in due]


def newest_number(db: sqlite3.Connection) -> int:
    """Return the number of the newest notice that ever was; 0: there was none."""
    row = db.execute(
        "SELECT seq FROM sqlite_sequence WHERE name = 'notices'"
    ).fetchone()
    return 0 if row is None else int(row[0])


def newest_event(db: sqlite3.Connection) -> int:
    """Return the sequence number of the newest event, up to which a stream can be."""
    row = db.execute("SELECT coalesce(max(sequence), 0) FROM audit_events").fetchone()
    return int(row[0])


def acknowledge(
    db: sqlite3.Connection, channel: NameKey, numbers: Sequence[int]
) -> None:
    """Delete delivered notices of a channel."""
    for number in numbers:
        for sender, security in db.execute(
            "DELETE FROM notices WHERE number = ? AND channel = ? "
            f"RETURNING actor, {SECURITY}",
            (number, channel),
        ).fetchall():
            _count(db, channel, sender, security=bool(security), number=-1)


def advance(db: sqlite3.Connection, channel: NameKey, sequence: int) -> None:
    """Record that a stream has delivered the events up to a sequence number."""
    db.execute(
        "UPDATE channels SET position = max(position, ?) WHERE channel = ?",
        (sequence, channel),
    )


def fail(
    db: sqlite3.Connection, channel: NameKey, numbers: Sequence[int], cause: str
) -> int:
    """Make notices dead letters, and return how many were none before."""
    done = db.executemany(
        "UPDATE notices SET dead = 1, cause = ? "
        "WHERE number = ? AND channel = ? AND NOT dead",
        [(cause, number, channel) for number in numbers],
    )
    return done.rowcount


def revive(
    db: sqlite3.Connection, channel: NameKey, numbers: Sequence[int], now_ms: int
) -> int:
    """Let dead letters wait again, all or those of *numbers*; return how many."""
    if not numbers:
        done = db.execute(
            "UPDATE notices SET dead = 0, cause = '', since_ms = ? "
            "WHERE channel = ? AND dead",
            (now_ms, channel),
        )
        return done.rowcount
    done = db.executemany(
        "UPDATE notices SET dead = 0, cause = '', since_ms = ? "
        "WHERE number = ? AND channel = ? AND dead",
        [(now_ms, number, channel) for number in numbers],
    )
    return done.rowcount


def _count(
    db: sqlite3.Connection, channel: str, sender: str, *, security: bool, number: int
) -> None:
    """Add to the counts of a channel and of a sender in it."""
    db.execute(
        "UPDATE channels SET kept = kept + ?, security = security + ? "
        "WHERE channel = ?",
        (number, number * security, channel),
    )
    key = (channel, security, sender)
    db.execute(
        "INSERT INTO notice_senders (channel, security, sender, kept) "
        "VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET kept = kept + excluded.kept",
        (*key, number),
    )
    db.execute(
        "DELETE FROM notice_senders "
        "WHERE channel = ? AND security = ? AND sender = ? AND kept = 0",
        key,
    )
