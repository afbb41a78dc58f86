# SPDX-License-Identifier: Apache-2.0
"""
Rules about notices, judged by what receivers got and by the agreed log (N1, N2).

The events come from a machine without failures that applies the same log; their ids
follow from their places in it. Nothing here asks the outbox what it should hold.
"""

import collections
import contextlib
import sqlite3
from collections.abc import Sequence
from dataclasses import astuple, dataclass, field

from sparecode_node.domain.audit import AuditEvent
from sparecode_node.domain.notices import class_of
from sparecode_node.statemachine.commands import Call
from sparecode_node.statemachine.machine import StateMachine
from tests.simulation.comparisons import Comparison
from tests.simulation.invariants import Machine
from tests.simulation.rules import CodeRules

OWN = ("FailNotices", "NOTICES_DROPPED")
"""A channel does not tell these of itself."""


@dataclass
class Told:
    """What one receiver has got."""

    events: dict[str, AuditEvent] = field(default_factory=dict)
    """Notice id -> its event, in the order of first arrivals."""
    refused: set[str] = field(default_factory=set)
    newest: dict[str, int] = field(default_factory=dict)
    """Subject -> the highest sequence number that has arrived."""
    last: int = 0
    """Of a stream: the last event that has arrived; 0: none."""


class Expected:
    """The events of the agreed log, each with the id that its notices must have."""

    def __init__(self, applied: dict[int, tuple[Call, ...]]) -> None:
        with contextlib.closing(sqlite3.connect(":memory:")) as db:
            machine = StateMachine(db)
            self.events: dict[str, AuditEvent] = {}
            head = 0
            for index in range(1, max(applied, default=0) + 1):
                machine.apply(index, applied.get(index, ()))
                rows = db.execute(
                    "SELECT sequence, at_ms, actor, node, action, target, outcome, "
                    "reason, detail FROM audit_events WHERE sequence > ? "
                    "ORDER BY sequence",
                    (head,),
                ).fetchall()
                for number, row in enumerate(rows, start=1):
                    event = AuditEvent(**dict(zip(_FIELDS, row, strict=True)))
                    self.events[f"simulated-{index}-{number}"] = event
                    head = event.sequence
            self.untold = dict(db.execute("SELECT channel, dropped FROM channels"))
        self.head = head

    def wanted(self, channel: str, classes: Sequence[str]) -> dict[str, AuditEvent]:
        """Return the events that a channel must tell, since its creation."""
        target = f"channel {channel}"
        begun = False
        wanted: dict[str, AuditEvent] = {}
        for notice_id, event in self.events.items():
            created = (event.action, event.target) == ("SaveChannel", target)
            begun = begun or (created and event.outcome == "applied")
            own = event.action in OWN and event.target == target
            if begun and not own and class_of(event.action) in classes:
                wanted[notice_id] = event
        return wanted

    def said_dropped(self, channel: str) -> int:
        """Return how many notices of a channel the audit log calls dropped."""
        return self.untold.get(channel, 0) + sum(
            int(event.detail.split()[0])
            for event in self.events.values()
            if (event.action, event.target) == ("NOTICES_DROPPED", f"channel {channel}")
        )


_FIELDS = tuple(AuditEvent.__dataclass_fields__)


@dataclass
class OutboxRules(CodeRules):
    """The invariants of log and codes, and those of notices."""

    told: dict[str, Told] = field(default_factory=lambda: collections.defaultdict(Told))
    """By channel."""
    channels: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Webhooks, and the classes that they want."""
    streams: tuple[str, ...] = ()

    # --- Told by the receivers

    def on_notice(self, channel: str, notice_id: str, event: AuditEvent) -> None:
        """See that an id has one event, and that a subject's events are in order."""
        told = self.told[channel]
        self._check_committed(channel, notice_id)
        if (first := told.events.get(notice_id)) is not None:
            self.comparisons[Comparison.NOTICE_REPEATED] += 1
            if first != event:
                seen = f"{channel}: {notice_id} is {first}, and {event}"
                self.violated("one event for an id", seen)
            return
        for other_id, other in told.events.items():
            if other.sequence == event.sequence:
                seen = f"{channel}: {event} is {other_id}, and {notice_id}"
                self.violated("repeated under the same id", seen)
        told.events[notice_id] = event
        newest = told.newest.get(event.target, 0)
        if notice_id not in told.refused:
            self.comparisons[Comparison.NOTICE_ORDER] += bool(newest)
            if event.sequence < newest:
                seen = f"{channel}: {event} after {newest}"
                self.violated("a subject's notices in order", seen)
        told.newest[event.target] = max(newest, event.sequence)

    def on_refused(self, channel: str, notice_id: str) -> None:
        """Record that a receiver has refused a notice, which may come later then."""
        self.told[channel].refused.add(notice_id)

    def on_events(self, channel: str, events: Sequence[AuditEvent]) -> None:
        """See that a stream leaves nothing out."""
        told = self.told[channel]
        for event in events:
            if told.last and event.sequence > told.last + 1:
                seen = f"{channel}: {event.sequence} after {told.last}"
                self.violated("a stream without gaps", seen)
            told.last = max(told.last, event.sequence)
            first = told.events.setdefault(str(event.sequence), event)
            if first != event:
                self.violated("one event for an id", f"{channel}: {first}, and {event}")

    def _check_committed(self, channel: str, notice_id: str) -> None:
        index = int(notice_id.split("-")[1])
        if index not in self.applied:
            seen = f"{channel}: {notice_id}, before it was applied anywhere"
            self.violated("told after its commit", seen)

    def check_bounds(self, node: str, db: sqlite3.Connection, most: int) -> None:
        """See that no channel keeps more notices than it may."""
        rows = db.execute(
            "SELECT channel, kept, (SELECT count(*) FROM notices "
            "WHERE notices.channel = channels.channel) FROM channels"
        )
        for channel, kept, count in rows.fetchall():
            if kept != count or count > most:
                seen = f"{node}: {channel} keeps {count}, and says {kept}"
                self.violated("a bounded outbox", seen)

    # --- When it is over

    def check_drained(self, waiting: str) -> None:
        """See that nothing waits where all receivers are up again."""
        if waiting:
            self.violated("notices arrive", waiting)

    def check_states(self, nodes: Sequence[Machine]) -> None:
        super().check_states(nodes)
        if "no exception" in self.violations:
            return
        expected = Expected(self.applied)
        for channel, classes in self.channels.items():
            self._check_webhook(channel, expected, classes)
        for channel in self.streams:
            self._check_stream(channel, expected)

    def _check_webhook(
        self, channel: str, expected: Expected, classes: Sequence[str]
    ) -> None:
        told, wanted = self.told[channel].events, expected.wanted(channel, classes)
        for notice_id, event in told.items():
            if notice_id not in wanted or astuple(wanted[notice_id]) != astuple(event):
                seen = f"{channel}: {notice_id} {event}, not {wanted.get(notice_id)}"
                self.violated("only committed events", seen)
        self.comparisons[Comparison.NOTICE] += len(told.keys() & wanted.keys())
        missing = wanted.keys() - told.keys()
        dropped = expected.said_dropped(channel)
        self.comparisons[Comparison.NOTICE_DROPPED] += dropped
        if len(missing) > dropped:
            seen = f"{channel}: {len(missing)} are missing, of which {dropped} dropped:"
            self.violated("all arrive or are said to be dropped", f"{seen} {missing}")

    def _check_stream(self, channel: str, expected: Expected) -> None:
        told = self.told[channel].events
        since = next(
            (
                event.sequence
                for event in expected.events.values()
                if (event.action, event.target) == ("SaveChannel", f"channel {channel}")
            ),
            0,
        )
        for event in expected.events.values():
            if event.sequence < since:
                continue
            self.comparisons[Comparison.STREAMED] += 1
            if told.get(str(event.sequence)) != event:
                seen = f"{channel}: {event}, not {told.get(str(event.sequence))}"
                self.violated("a whole stream", seen)
