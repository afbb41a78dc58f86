# SPDX-License-Identifier: Apache-2.0
"""
Changes of members that were called not applied, against what leaders have appended.

A change that is made says nothing of who asked for it. So for each entry it is noted
whose wish it can be. If all of them hear "not applied", one of them has heard a lie.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from sparecode_node.replication.errors import NotAppliedError
from sparecode_node.replication.members import Configuration, MemberRole
from sparecode_node.replication.raft.membership_changes import (
    AddLearner,
    Change,
    Promote,
    Remove,
)
from tests.simulation.comparisons import Comparison
from tests.simulation.observed import Judge, Observed, attempt_of


@dataclass
class Wish:
    """A membership change or a hand-over, requested of one life of a node."""

    attempt: str
    deadline: float
    outcomes: list[object] = field(default_factory=list)
    node_died: bool = False
    change: Change | None = None
    """None: it is a hand-over."""
    travels: bool = False
    """Whether the node asks others for it, who may do it after it has answered."""

    @property
    def is_denied(self) -> bool:
        """Whether it was called not applied, and nothing else."""
        return bool(self.outcomes) and self._is_open_or_denied

    @property
    def _is_open_or_denied(self) -> bool:
        return all(isinstance(each, NotAppliedError) for each in self.outcomes)

    def may_be_done_by(self, node: Observed) -> bool:
        """Return whether a node that appends such a change now may do it for this wish."""
        asked_here = (
            self.attempt.startswith(attempt_of(node)) and self._is_open_or_denied
        )
        return self.travels or asked_here


@dataclass(frozen=True)
class Appended:
    """A change of members in the log of a leader."""

    index: int
    term: int
    wishes: tuple[Wish, ...]
    """For which of them it may be."""


@dataclass
class Changes:
    """The changes of members in one cluster."""

    judge: Judge
    _appended: list[Appended] = field(default_factory=list)

    def on_append(
        self, node: Observed, after: Configuration, wishes: Iterable[Wish]
    ) -> None:
        """Note whose wish it can be what a leader appends now."""
        journal = node.journal
        before, index = journal.configuration, journal.last_index + 1
        able = tuple(
            wish
            for wish in wishes
            if wish.change is not None
            and makes(wish.change, before, after)
            and wish.may_be_done_by(node)
        )
        if able:
            self._appended.append(Appended(index, node.term, able))

    def check(self, terms: Mapping[int, int], wishes: Iterable[Wish]) -> None:
        """See that no change was made that all who had asked for it took for not made."""
        self.judge.comparisons[Comparison.CHANGE_NOT_APPLIED] += sum(
            wish.is_denied for wish in wishes if wish.change is not None
        )
        for each in self._appended:
            is_committed = terms.get(each.index) == each.term
            if is_committed and all(wish.is_denied for wish in each.wishes):
                seen = f"entry {each.index} of term {each.term}: {each.wishes}"
                self.judge.violated("changes not applied", seen)


def makes(change: Change, before: Configuration, after: Configuration) -> bool:
    """Return whether a change leads from some members to others."""
    node_id = change.node_id
    old, new = before.member(node_id), after.member(node_id)
    match change:
        case AddLearner(member):
            return old is None and new is not None and new.address == member.address
        case Promote():
            roles = [each and each.role for each in (old, new)]
            return roles == [MemberRole.LEARNER, MemberRole.VOTER]
        case Remove():
            return node_id in set(after.removed) - set(before.removed)
