# SPDX-License-Identifier: Apache-2.0
"""
The promises of several clusters together: a passcode works once, wherever its user is.

The position of a token only rises: no cluster accepts a passcode that is older than one
that any cluster has accepted.

A restored cluster has forgotten what it did after the backup, and all request ids. So a
decision or a "moved" binds the cluster until its next restore alone: in the next epoch it
may refuse what it has decided before. It still accepts nothing a second time, and no code
that the restore, or a slot taken back, has voided.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from sparecode_client import Decision, slot_of
from sparecode_node.domain.tokens import Token
from sparecode_node.statemachine.results import Decision as Decided
from tests.simulation.groups.group import Group
from tests.simulation.groups.tokens import TOKEN_USERS, NextTry, TokencodeTry
from tests.simulation.people import Try


@dataclass
class GroupRules:
    """What has happened, and which promises were broken by it."""

    violations: dict[str, str] = field(default_factory=dict)
    """Promise -> what was seen first."""
    accepted: dict[str, tuple[str, int, str, int]] = field(default_factory=dict)
    """Passcode -> the cluster, its epoch, the request id, and the index of its acceptance."""
    decided: dict[str, tuple[Group, int]] = field(default_factory=dict)
    """Request id -> the cluster that decided it, and the epoch in which it did."""
    never: dict[tuple[str, str], int] = field(default_factory=dict)
    """
    The clusters that have said that they never apply a request id, with it.

    Each with the epoch in which it said so last.
    """
    void: set[str] = field(default_factory=set)
    """Codes that a restore has voided, or a cluster that took their user's slot back."""
    positions: dict[str, int] = field(default_factory=dict)
    """User -> the last moment of the user's token that any cluster has accepted."""
    answers: dict[str, Decision] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=lambda: defaultdict(int))

    def violated(self, promise: str, seen: str) -> None:
        self.violations.setdefault(promise, seen)

    def on_decided(
        self, group: Group, request_id: str, wanted: Try, decision: Decided, index: int
    ) -> None:
        """Record that a cluster has decided an attempt, or repeats its decision."""
        about = f"{request_id} ({wanted.user} {wanted.what})"
        first = self._decided_in(request_id)
        if first is None:
            self.decided[request_id] = (group, group.epoch)
        elif first is not group:
            self.violated(
                "decided by one cluster", f"{about} in {first.name} and {group.name}"
            )
        is_accepted = decision is Decided.ACCEPTED
        self._check_never(group, request_id, wanted, is_accepted=is_accepted)
        if not is_accepted:
            if decision is Decided.NEXT_TOKENCODE_REQUIRED:
                self._on_first_step(wanted)
            self._count_refusal(group, wanted)
            return
        if self.answers.get(request_id, Decision.ACCEPTED) is not Decision.ACCEPTED:
            self.violated("one answer", f"{about}: accepted after a refusal was heard")
        place = (group.name, group.epoch, request_id, index)
        is_new = wanted.what not in self.accepted
        other = self.accepted.setdefault(wanted.what, place)
        # A copy of an attempt gets the decision from before the code was voided.
        if wanted.what in self.void and (is_new or other != place):
            self.violated("void for good", f"{about} in {group.name}")
        if other != place:
            self.violated("spent once", f"{wanted.what}: {other} and {place}")
        if is_new:
            self._on_accepted(group, wanted, about)

    def _check_never(
        self, group: Group, request_id: str, wanted: Try, *, is_accepted: bool
    ) -> None:
        said = self.never.get((group.name, request_id))
        # Of the user of a challenge that is deleted, a cluster knows no slot: it refuses.
        may_refuse = said != group.epoch or isinstance(wanted, NextTry)
        if said is not None and (is_accepted or not may_refuse):
            self.violated(
                "moved means never", f"{request_id} ({wanted.what}) in {group.name}"
            )

    def _on_accepted(self, group: Group, wanted: Try, about: str) -> None:
        """Record that a passcode was accepted for the first time."""
        if isinstance(wanted, TokencodeTry):
            self.counts["tokencodes accepted"] += 1
            self.counts["next accepted"] += isinstance(wanted, NextTry)
            self._on_position(wanted, about, group)
        else:
            self.counts["accepted"] += 1

    def _on_first_step(self, wanted: Try) -> None:
        """Record that a passcode counts together with the next one alone."""
        self.counts["next asked for"] += 1
        self._raise_position(wanted)

    def _on_position(self, wanted: TokencodeTry, about: str, group: Group) -> None:
        last = self._raise_position(wanted)
        if wanted.moment <= last:
            self.violated(
                "a position only rises",
                f"{about} in {group.name}, after the moment {last}",
            )

    def _raise_position(self, wanted: Try) -> int:
        """Record the moment of a token, and return the last one before it."""
        last = self.positions.get(wanted.user, -1)
        self.positions[wanted.user] = max(last, wanted.moment)
        return last

    def _count_refusal(self, group: Group, wanted: Try) -> None:
        """Count passcodes of tokens that are refused because they were accepted."""
        place = self.accepted.get(wanted.what)
        if isinstance(wanted, TokencodeTry) and place is not None:
            self.counts["tokencodes again"] += 1
            self.counts["tokencodes elsewhere"] += place[0] != group.name

    def on_moved(self, group: Group, request_id: str) -> None:
        """Record that a cluster says that the slot has moved away."""
        self.counts["moved"] += 1
        if self._decided_in(request_id) is group:
            self.violated("moved means never", f"{request_id} in {group.name}")
        self.never[group.name, request_id] = group.epoch

    def _decided_in(self, request_id: str) -> Group | None:
        """Return the cluster that has decided a request, and still knows of it."""
        group, epoch = self.decided.get(request_id, (None, 0))
        if group is None or group.is_lost or group.epoch != epoch:
            return None
        return group

    def on_restored(self, group: Group) -> None:
        """Compare: no code of an earlier state is live, wherever its user is now."""
        self._check_positions(group, group.positions())
        if live := group.live_codes():
            self.violated("void for good", f"live in {group.name}: {sorted(live)[:3]}")

    def on_void(self, group: Group, codes: Iterable[str]) -> None:
        """Record that a cluster goes on with a copy that lacks what was spent since."""
        ended = set(codes)
        if live := ended & group.live_codes():
            self.violated("void for good", f"live in {group.name}: {sorted(live)[:3]}")
        self.void |= ended

    def on_reclaimed(self, group: Group, slots: Collection[int]) -> None:
        """Compare: no passcode that another cluster accepted can be used here again."""
        tokens = group.positions().items()
        self._check_positions(
            group, {user: token for user, token in tokens if slot_of(user) in slots}
        )

    def _check_positions(self, group: Group, tokens: Mapping[str, Token]) -> None:
        for user, token in tokens.items():
            last = self.positions.get(user, -1)
            # Up to the second one, no passcode alone is accepted.
            position = max(token.spent, token.maybe_spent)
            if position < last and not token.out_of_step:
                self.violated(
                    "a position only rises",
                    f"{user} in {group.name}: {position} after {last}",
                )

    def on_answer(self, request_id: str, decision: Decision) -> None:
        """Record that a caller has heard a decision."""
        first = self.answers.setdefault(request_id, decision)
        if first is not decision:
            self.violated("one answer", f"{request_id}: {first} and {decision}")
        self.counts["answers"] += 1

    def check_homes(self, groups: Sequence[Group], slots: Sequence[int]) -> None:
        """Compare: at each moment at most one cluster serves a slot with users."""
        serving = [slot for group in groups for slot in group.homes(slots)]
        if len(serving) != len(set(serving)):
            homes = {group.name: sorted(group.homes(slots)) for group in groups}
            self.violated("one home", f"{homes}")

    def check_end(
        self, groups: Sequence[Group], slots: Sequence[int], codes: set[str]
    ) -> None:
        """Compare: nothing is lost, and what was accepted is used where it is now."""
        for slot in slots:
            homes = [group.name for group in groups if group.is_home(slot)]
            if len(homes) != 1:
                self.violated("no user lost", f"slot {slot} is served by {homes}")
            for group in groups:
                if not group.moves.serves(slot) and group.has_users(slot):
                    self.violated("no copy left", f"slot {slot} in {group.name}")
        used = set().union(*(group.used_codes() for group in groups))
        live = set().union(*(group.live_codes() for group in groups))
        if both := (used | self.void) & live:
            self.violated("spent once", f"used or void, and live: {sorted(both)[:3]}")
        if wrong := used - set(self.accepted):
            self.violated("spent once", f"used, never accepted: {sorted(wrong)[:3]}")
        # A restore may forget what it accepted, but it voids that.
        if wrong := self.accepted.keys() & codes - used - self.void:
            self.violated("spent once", f"accepted, not used: {sorted(wrong)[:3]}")
        if lost := codes - used - live - self.void:
            self.violated("no code lost", f"{sorted(lost)[:3]}")
        self._check_tokens(groups)

    def _check_tokens(self, groups: Sequence[Group]) -> None:
        here: dict[str, Token] = {}
        for group in groups:
            here |= group.positions()
            self._check_positions(group, group.positions())
        if missing := TOKEN_USERS.keys() - here.keys():
            self.violated("no user lost", f"no cluster serves {sorted(missing)}")
