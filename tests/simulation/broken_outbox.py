# SPDX-License-Identifier: Apache-2.0
"""Runs in which something is wrong in one way, made by hand: of notices."""

import contextlib
import sqlite3
from types import SimpleNamespace
from typing import Any

from sparecode_node.domain.audit import AuditEvent
from sparecode_node.statemachine.tables.notices import NOTICE_TABLES
from tests.simulation.broken_runs import BROKEN, breaks
from tests.simulation.invariants import Invariants
from tests.simulation.outbox_rules import Expected, OutboxRules

CHANNEL = "all"
CLASSES = ("tokens", "administration")


def event(
    sequence: int, target: str = "alice", action: str = "UpdateUser"
) -> AuditEvent:
    return AuditEvent(
        sequence=sequence,
        at_ms=0,
        actor="administrator:root",
        node="n1",
        action=action,
        target=target,
        outcome="applied",
        reason="",
        detail="",
    )


def rules() -> OutboxRules:
    """Return rules that know two entries of the log."""
    made = OutboxRules(channels={CHANNEL: CLASSES}, streams=("stream",))
    made.applied.update({1: (), 2: ()})
    return made


CREATED = event(1, f"channel {CHANNEL}", "SaveChannel")
STREAMED = event(1, "channel stream", "SaveChannel")


def log_of(*events: AuditEvent, untold: int = 0) -> Expected:
    """Return the events that the log makes, each the first of its entry."""
    made: Any = SimpleNamespace(untold={CHANNEL: untold})
    made.events = {f"c-{each.sequence}-1": each for each in events}
    made.wanted = lambda *arguments: Expected.wanted(made, *arguments)
    made.said_dropped = lambda channel: Expected.said_dropped(made, channel)
    return made  # type: ignore[no-any-return]


@breaks("one event for an id")
def an_id_of_two_events() -> Invariants:
    made = rules()
    made.on_notice(CHANNEL, "c-1-1", event(1))
    made.on_notice(CHANNEL, "c-1-1", event(2))
    return made


@breaks("one event for an id")
def a_number_of_two_events() -> Invariants:
    made = rules()
    made.on_events("stream", [event(1), event(1, "bob")])
    return made


@breaks("repeated under the same id")
def an_event_of_two_ids() -> Invariants:
    made = rules()
    made.on_notice(CHANNEL, "c-1-1", event(1))
    made.on_notice(CHANNEL, "c-1-2", event(1))
    return made


@breaks("a subject's notices in order")
def an_earlier_notice_after_a_later_one() -> Invariants:
    made = rules()
    made.on_notice(CHANNEL, "c-2-1", event(2))
    made.on_notice(CHANNEL, "c-1-1", event(1))
    return made


@breaks("told after its commit")
def a_notice_of_an_entry_that_no_one_has_applied() -> Invariants:
    made = rules()
    made.on_notice(CHANNEL, "c-3-1", event(3))
    return made


@breaks("a stream without gaps")
def a_stream_with_a_gap() -> Invariants:
    made = rules()
    made.on_events("stream", [event(1), event(3)])
    return made


@breaks("a bounded outbox")
def a_channel_with_too_many_notices() -> Invariants:
    return counted(kept=2, most=1)


@breaks("a bounded outbox")
def a_channel_that_counts_wrong() -> Invariants:
    return counted(kept=3, most=5)


def counted(*, kept: int, most: int) -> OutboxRules:
    """Look at a channel that has two notices, and says how many it has."""
    made = rules()
    with contextlib.closing(sqlite3.connect(":memory:")) as db:
        db.executescript(NOTICE_TABLES)
        insert(db, "channels", channel=CHANNEL, kept=kept)
        for sequence in (1, 2):
            insert(db, "notices", number=sequence, channel=CHANNEL, sequence=sequence)
        made.check_bounds("n1", db, most)
    return made


def insert(db: sqlite3.Connection, table: str, **values: object) -> None:
    """Insert a row; what is not said is 0 or empty."""
    empty: dict[str, object] = {"INTEGER": 0, "BLOB": b""}
    columns = db.execute(f"PRAGMA table_info({table})")
    row = {name: empty.get(kind, "") for _, name, kind, *_ in columns} | values
    names = ", ".join(row)
    marks = ", ".join("?" * len(row))
    db.execute(f"INSERT INTO {table} ({names}) VALUES ({marks})", (*row.values(),))  # noqa: S608


@breaks("notices arrive")
def a_notice_that_waits_in_the_end() -> Invariants:
    made = rules()
    made.check_drained("all: 1 notices")
    return made


@breaks("only committed events")
def a_notice_of_no_event() -> Invariants:
    made = rules()
    made.on_notice(CHANNEL, "c-2-1", event(2))
    made._check_webhook(CHANNEL, log_of(), CLASSES)
    return made


@breaks("only committed events")
def a_notice_with_another_content() -> Invariants:
    made = rules()
    made.on_notice(CHANNEL, "c-1-1", CREATED)
    made.on_notice(CHANNEL, "c-2-1", event(2, "bob"))
    made._check_webhook(CHANNEL, log_of(CREATED, event(2)), CLASSES)
    return made


@breaks("all arrive or are said to be dropped")
def a_notice_that_does_not_arrive() -> Invariants:
    made = rules()
    made.on_notice(CHANNEL, "c-1-1", CREATED)
    made._check_webhook(CHANNEL, log_of(CREATED, event(2)), CLASSES)
    return made


@breaks("a whole stream")
def a_stream_without_an_event() -> Invariants:
    made = rules()
    made.on_events("stream", [STREAMED])
    made._check_stream("stream", log_of(STREAMED, event(2)))
    return made


def a_dropped_notice_that_the_log_tells() -> OutboxRules:
    """Break nothing."""
    made = rules()
    made.on_notice(CHANNEL, "c-1-1", CREATED)
    made._check_webhook(CHANNEL, log_of(CREATED, event(2), untold=1), CLASSES)
    return made


OUTBOX_RUNS = [
    make for makes in BROKEN.values() for make in makes if make.__module__ == __name__
]
