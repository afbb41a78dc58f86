# SPDX-License-Identifier: Apache-2.0
"""Checks that the channels of notices deliver, each kind in its own way (N2)."""

import contextlib
import datetime as dt
import os
import sqlite3
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sparecode_node.domain.notices import ChannelKind
from sparecode_node.domain.outcomes import plural
from sparecode_node.services.files.guarded_files import is_foreign, is_open_to_all
from sparecode_node.services.notices.event_file import last_event
from sparecode_node.statemachine.tables import meta, segments
from sparecode_node.statemachine.tables.schema import read_only_uri
from sparecode_node.tool.doctor.findings import Finding, fail, ok, warn

SUBJECT = "notices"
WARN_MINUTES = 20
"""The alert has the same limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Channel:
    name: str
    channel: str
    kind: ChannelKind
    position: int


def check_notices(
    data_dir: Path,
    state: Path,
    folder: Path | None,
    now: dt.datetime,
    *,
    running: bool,
) -> Iterator[Finding]:
    """
    Check all channels; yield nothing if there is no state, or none of feature level 2.

    *folder* is the node's `event_folder`. A node that does not run has an old state: then
    it is judged as of its last call.
    """
    if not state.exists():
        return
    with (
        contextlib.suppress(sqlite3.DatabaseError),  # `check_state` reports it.
        contextlib.closing(sqlite3.connect(read_only_uri(state), uri=True)) as db,
    ):
        channels = [
            _Channel(
                name=row[0], channel=row[1], kind=ChannelKind(row[2]), position=row[3]
            )
            for row in db.execute(
                "SELECT name, channel, kind, position FROM channels WHERE enabled "
                "ORDER BY channel"
            )
        ]
        if meta.read(db, "not_open", 0):
            files = [each for each in channels if each.kind is ChannelKind.FILE]
            if files != channels:
                yield warn(
                    SUBJECT,
                    "webhooks, mail and syslog deliver nothing before the restored "
                    "cluster is opened: sparecode cluster open",
                )
            channels = files
        now_ms = int(now.timestamp() * 1000)
        if not running:
            now_ms = min(now_ms, meta.read(db, "now_ms", now_ms))
        found = list(_check_dead_letters(db))
        for each in channels:
            match each.kind:
                case ChannelKind.SYSLOG:
                    found += _check_syslog(db, each, now_ms)
                case ChannelKind.FILE:
                    found += _check_file(db, each, data_dir, folder, now_ms)
                case ChannelKind.WEBHOOK | ChannelKind.MAIL:
                    found += _check_waiting(db, each, now_ms)
        yield from found
        if channels and not found:
            names = ", ".join(f"{each.name} ({each.kind})" for each in channels)
            yield ok(SUBJECT, f"nothing waits for long: {names}")


def _check_dead_letters(db: sqlite3.Connection) -> Iterator[Finding]:
    """Check what was given up, of disabled channels, too: an answer of 410 disables one."""
    rows = db.execute(
        "SELECT name, enabled, count(*) FROM notices JOIN channels USING (channel) "
        "WHERE dead GROUP BY channel ORDER BY channel"
    )
    for name, enabled, dead in rows.fetchall():
        disabled = "" if enabled else ", and is disabled"
        yield warn(
            SUBJECT,
            f"channel {name} has {plural(dead, 'dead letter')}{disabled}: sparecode notices "
            "list --dead tells why, and sparecode notices send-again sends them again",
        )


def _check_waiting(
    db: sqlite3.Connection, channel: _Channel, now_ms: int
) -> Iterator[Finding]:
    waiting, oldest_ms = db.execute(
        "SELECT count(*), min(at_ms) FROM notices WHERE channel = ? AND NOT dead",
        (channel.channel,),
    ).fetchone()
    if oldest_ms is not None and _is_late(oldest_ms, now_ms):
        yield warn(
            SUBJECT,
            f"channel {channel.name} has not delivered {plural(waiting, 'notice')}, the "
            f"oldest of {_since(oldest_ms, now_ms)}: sparecode notices test "
            f"{channel.name} shows what the receiver answers",
        )


def _check_syslog(
    db: sqlite3.Connection, channel: _Channel, now_ms: int
) -> Iterator[Finding]:
    waiting, oldest_ms = _after(db, channel.position)
    if oldest_ms is not None and _is_late(oldest_ms, now_ms):
        yield warn(
            SUBJECT,
            f"channel {channel.name} has sent nothing after event {channel.position}: "
            f"{plural(waiting, 'event')} wait, the oldest of {_since(oldest_ms, now_ms)}. "
            f"sparecode notices test {channel.name} shows whether the receiver can be "
            "reached",
        )


def _check_file(
    db: sqlite3.Connection,
    channel: _Channel,
    data_dir: Path,
    folder: Path | None,
    now_ms: int,
) -> Iterator[Finding]:
    """Check the folder and the file of this node: the state does not know of them."""
    if folder is None:
        yield ok(
            SUBJECT,
            f"channel {channel.name} writes no file here: node.toml names no event_folder",
        )
        return
    problem = _folder_problem(folder, data_dir)
    if problem:
        yield fail(SUBJECT, f"channel {channel.name} writes no events: {problem}")
        return
    path = folder / f"{channel.channel}.jsonl"
    try:
        last = last_event(path)
    except OSError as error:
        yield warn(
            SUBJECT,
            f"channel {channel.name} not checked: {path}: {error.strerror}; run doctor as "
            "the node's user",
        )
        return
    own = last is not None and last[0] == meta.read(db, "cluster_id", "")
    begin = last[1] if last is not None and own else channel.position
    waiting, oldest_ms = _after(db, begin)
    if oldest_ms is not None and _is_late(oldest_ms, now_ms):
        yield warn(
            SUBJECT,
            f"channel {channel.name} lacks {plural(waiting, 'event')} in {path}, the oldest "
            f"of {_since(oldest_ms, now_ms)}: is its disk full? See stream_interrupted in "
            "the node's log",
        )


def _folder_problem(folder: Path, data_dir: Path) -> str:
    """Return why the node refuses a folder, and what to do; empty: it does not."""
    try:
        status = folder.stat()
        owner = data_dir.stat().st_uid
    except OSError as error:
        return f"{folder}: {error.strerror}; mount or create it for the node's user"
    if not stat.S_ISDIR(status.st_mode):
        return f"{folder} is no folder"
    if is_foreign(status, owner):
        return f"{folder} belongs to another user: give it to the node's user"
    if is_open_to_all(status):
        return f"every user can write into {folder}: chmod o-w {folder}"
    # Root may write everywhere, which tells nothing about the node's user.
    if os.geteuid() == owner and not os.access(folder, os.W_OK | os.X_OK):
        return f"{folder} cannot be written to: give it to the node's user"
    return ""


def _after(db: sqlite3.Connection, position: int) -> tuple[int, int | None]:
    """Return how many events follow a position, and when the first one happened."""
    newest, first, first_ms = db.execute(
        "SELECT max(sequence), min(sequence), "
        "(SELECT at_ms FROM audit_events WHERE sequence > :position "
        "ORDER BY sequence LIMIT 1) FROM audit_events",
        {"position": position},
    ).fetchone()
    if newest is None or newest <= position:
        return 0, None
    if position + 1 < first:  # The next event is sealed, and in another file.
        sealed = next(
            (each for each in segments.all_sealed(db) if each.last_sequence > position),
            None,
        )
        first_ms = sealed.last_at_ms if sealed else first_ms
    return newest - position, first_ms


def _is_late(at_ms: int, now_ms: int) -> bool:
    return now_ms - at_ms >= WARN_MINUTES * 60_000


def _since(at_ms: int, now_ms: int) -> str:
    at = dt.datetime.fromtimestamp(at_ms / 1000, dt.UTC)
    return f"{at:%Y-%m-%d %H:%M} UTC ({(now_ms - at_ms) // 60_000} minutes ago)"
