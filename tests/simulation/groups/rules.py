# SPDX-License-Identifier: Apache-2.0
"""The promises of several clusters together: a code works once, wherever its user is."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from sparecode_client import Decision
from sparecode_node.statemachine.results import Decision as Decided
from tests.simulation.groups.group import Group
from tests.simulation.people import Try


@dataclass
class GroupRules:
    """What has happened, and which promises were broken by it."""

    violations: dict[str, str] = field(default_factory=dict)
    """Promise -> what was seen first."""
    accepted: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Code -> the cluster and the request id that it was accepted for."""
    decided: dict[str, str] = field(default_factory=dict)
    """Request id -> the cluster that decided it."""
    never: set[tuple[str, str]] = field(default_factory=set)
    """The clusters that have said that they never apply a request id, with it."""
    answers: dict[str, Decision] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=lambda: defaultdict(int))

    def violated(self, promise: str, seen: str) -> None:
        self.violations.setdefault(promise, seen)

    def on_decided(
        self, group: str, request_id: str, wanted: Try, decision: Decided
    ) -> None:
        """Record that a cluster has decided an attempt, or repeats its decision."""
        first = self.decided.setdefault(request_id, group)
        if first != group:
            self.violated(
                "decided by one cluster",
                f"{request_id} ({wanted.user} {wanted.what}) in {first} and {group}",
            )
        if (group, request_id) in self.never:
            self.violated("moved means never", f"{request_id} in {group}")
        if decision is not Decided.ACCEPTED:
            return
        place = (group, request_id)
        other = self.accepted.setdefault(wanted.what, place)
        if other != place:
            self.violated("spent once", f"{wanted.what}: {other} and {place}")
        self.counts["accepted"] += other is place

    def on_moved(self, group: str, request_id: str) -> None:
        """Record that a cluster says that the slot has moved away."""
        self.counts["moved"] += 1
        if self.decided.get(request_id) == group:
            self.violated("moved means never", f"{request_id} in {group}")
        self.never.add((group, request_id))

    def on_answer(self, request_id: str, decision: Decision) -> None:
        """Record that a caller has heard a decision."""
        first = self.answers.setdefault(request_id, decision)
        if first is not decision:
            self.violated("one answer", f"{request_id}: {first} and {decision}")
        self.counts["answers"] += 1

    def check_homes(self, groups: Sequence[Group], slots: Sequence[int]) -> None:
        """Compare: at each moment at most one cluster serves a slot with users."""
        for slot in slots:
            serving = [
                group.name
                for group in groups
                if group.moves.serves(slot) and group.has_users(slot)
            ]
            if len(serving) > 1:
                self.violated("one home", f"slot {slot}: {', '.join(serving)}")

    def check_end(
        self, groups: Sequence[Group], slots: Sequence[int], codes: set[str]
    ) -> None:
        """Compare: nothing is lost, and what was accepted is used where it is now."""
        for slot in slots:
            homes = [
                group.name
                for group in groups
                if group.moves.serves(slot) and group.has_users(slot)
            ]
            if len(homes) != 1:
                self.violated("no user lost", f"slot {slot} is served by {homes}")
            for group in groups:
                if not group.moves.serves(slot) and group.has_users(slot):
                    self.violated("no copy left", f"slot {slot} in {group.name}")
        used = set().union(*(group.used_codes() for group in groups))
        live = set().union(*(group.live_codes() for group in groups))
        if both := used & live:
            self.violated("spent once", f"used and live: {sorted(both)[:3]}")
        if used != set(self.accepted):
            wrong = used ^ set(self.accepted)
            self.violated("spent once", f"used, or accepted: {sorted(wrong)[:3]}")
        if lost := codes - used - live:
            self.violated("no code lost", f"{sorted(lost)[:3]}")
