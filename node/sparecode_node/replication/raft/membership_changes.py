# SPDX-License-Identifier: Apache-2.0
"""
Changing the members, on a leader: one change at a time (Raft thesis, 4.1 to 4.2).

A change is an entry of the log. It is appended only when the previous change and an
entry of this leader's own term are committed. Otherwise two leaders could each have
appended a change, and a quorum of one might not meet a quorum of the other.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from sparecode_node.domain.addresses import in_one_spelling
from sparecode_node.domain.ids import NodeId
from sparecode_node.domain.outcomes import Reason, Rejected
from sparecode_node.fault_points import Point, reach
from sparecode_node.replication.errors import (
    ChangeRefusedError,
    NoPrimaryError,
    NotAppliedError,
    OutcomeUnknownError,
    OverloadedError,
)
from sparecode_node.replication.log.journal import Journal
from sparecode_node.replication.members import Configuration, Member, MemberRole
from sparecode_node.replication.raft.leader import Leader
from sparecode_node.replication.raft.rollback import Hello
from sparecode_node.replication.raft.roster import Roster
from sparecode_node.replication.settings import COMMAND_BYTES_MAX, MEMBERS_MAX

CHANGES_WAITING_MAX = 16
"""Requested, and not appended; the leader sheds further changes."""


@dataclass(frozen=True, slots=True)
class AddLearner:
    """Add a learner, which receives the log."""

    member: Member

    @property
    def node_id(self) -> NodeId:
        """The node to add."""
        return self.member.node_id


@dataclass(frozen=True, slots=True)
class Promote:
    """Make a learner a voter, once it has caught up."""

    node_id: NodeId


@dataclass(frozen=True, slots=True)
class Remove:
    """Remove a member."""

    node_id: NodeId


Change: TypeAlias = AddLearner | Promote | Remove
ChangeOutcome: TypeAlias = int | NotAppliedError | OutcomeUnknownError
"""The index of the committed entry, or why there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingChange:
    """A requested change of the members."""

    change: Change
    deadline: float
    callback: Callable[[ChangeOutcome], object]


@dataclass(slots=True)
class _CatchUp:
    """A learner on its way to the end that the log had when the round began (4.2.1)."""

    target: int
    began: float
    ready_until: float = float("-inf")
    """Its last round was short enough to let it vote, until this moment."""


@dataclass(slots=True)
class Membership:
    """On a leader: the requested changes. Belongs to the engine's thread."""

    leader: Leader
    roster: Roster
    journal: Journal
    round_s: float
    """
    A round that is no longer than this shows that the learner keeps up: an election may
    take as long, and no caller waits longer than for one.
    """
    _waiting: list[PendingChange] = field(default_factory=list)
    _appended: list[tuple[int, PendingChange]] = field(default_factory=list)
    _rounds: dict[str, _CatchUp] = field(default_factory=dict)
    _led_since: float | None = None
    """When this node was first seen to lead."""

    def submit(self, pending: PendingChange) -> None:
        """Queue a change, or answer why not."""
        if not self.leader.is_leader():
            pending.callback(NoPrimaryError("this node does not lead"))
        elif len(self._waiting) >= CHANGES_WAITING_MAX:
            pending.callback(OverloadedError("too many changes of members wait"))
        else:
            self._waiting.append(pending)

    def step(self, now: float) -> None:
        """Continue; called in every tick, and only while this node leads."""
        if self._led_since is None:
            self._led_since = now
        self._answer_committed()
        self._expire(now)
        for pending in self._waiting:
            if isinstance(pending.change, Promote):
                self._watch(pending.change.node_id, now)
        if self._may_change() and not self._begin_one(now):
            self._record_hellos()

    def _begin_one(self, now: float) -> bool:
        """
        Append a change that waits, if one is possible now; return whether it was appended.

        None before the names of the journals: a founder that loses its disk is noticed.
        """
        return self.journal.configuration.is_named and any(
            self._begin(pending, now) for pending in tuple(self._waiting)
        )

    # --- One at a time

    def _may_change(self) -> bool:
        return (
            self._own_term_is_committed()
            and self._can_be_read()
            and self._last_change_is_committed()
            and not self.leader.is_handing_over()
        )

    def _own_term_is_committed(self) -> bool:
        return self.leader.knows_commit_index()

    def _can_be_read(self) -> bool:
        """Return whether every voter has shown the name of its journal."""
        members = self.journal.configuration
        voters = map(members.member, members.voters)
        return all(self._journal_of(voter) for voter in voters if voter)

    def _journal_of(self, member: Member) -> str:
        hello = self.roster.hello(member.node_id)
        return member.journal_id or ("" if hello is None else hello.journal_id)

    def _last_change_is_committed(self) -> bool:
        return self.journal.configured_at <= self.leader.raftCommitIndex

    def _begin(self, pending: PendingChange, now: float) -> bool:
        """Append a change if that is possible now; return whether it was appended."""
        before = self.journal.configuration
        try:
            after = self._after(pending.change, before, now)
        except ChangeRefusedError as error:
            self._waiting.remove(pending)
            pending.callback(error)
            return False
        if after is None:
            return False
        self._waiting.remove(pending)
        if after == before:  # An earlier request did it, and that is committed.
            pending.callback(self.journal.configured_at)
            return False
        index = self.leader.append_configuration(after)
        reach(Point.MEMBERS_APPENDED)
        self._appended.append((index, pending))
        return True

    # --- What may be changed

    def _after(
        self, change: Change, before: Configuration, now: float
    ) -> Configuration | None:
        """Return the members after a change; None: not yet. Raises `ChangeRefusedError`."""
        match change:
            case AddLearner(member):
                return _with_learner(before, member)
            case Promote(node_id):
                return self._promoted(before, node_id, now)
            case Remove(node_id):
                return self._without(before, node_id, now)

    def _promoted(
        self, before: Configuration, node_id: NodeId, now: float
    ) -> Configuration | None:
        member = _existing(before, node_id)
        if member.role is MemberRole.VOTER:
            return before
        # A voter's journal must have a known name, so that its loss is noticed.
        if not (member.journal_id and self._keeps_up(node_id, now)):
            return None
        return self._committable(before.promoted(node_id), now)

    def _without(
        self, before: Configuration, node_id: NodeId, now: float
    ) -> Configuration | None:
        if node_id in before.removed:
            return before
        _existing(before, node_id)
        if node_id == self.journal.identity.node_id:
            raise refused(f"{node_id} leads; it must hand over before it is removed")
        return self._committable(before.without(node_id), now)

    def _committable(self, after: Configuration, now: float) -> Configuration | None:
        """
        Refuse a change that could not be committed, or that would be the last one.

        A new leader has not heard all voters yet, and waits.
        """
        me = self.journal.identity.node_id
        there = sorted(v for v in after.voters if v == me or self.roster.in_contact(v))
        needed = len(after.voters) // 2 + 1
        if len(there) < needed:
            if self._led_since is None or now - self._led_since <= self.round_s:
                return None
            raise refused(
                f"after it, {needed} of {len(after.voters)} voters would be needed, and"
                f" only these are in contact: {', '.join(there) or 'none'}"
            )
        return after

    # --- Catching up

    def _watch(self, learner: str, now: float) -> None:
        """Begin the first round of a learner, or the next one."""
        current = self._rounds.get(learner)
        if current is None:
            self._rounds[learner] = _CatchUp(self.journal.last_index, now)
        elif self.roster.match_index(learner) >= current.target:
            short = now - current.began <= self.round_s
            ready_until = now + self.round_s if short else float("-inf")
            self._rounds[learner] = _CatchUp(self.journal.last_index, now, ready_until)

    def _keeps_up(self, learner: str, now: float) -> bool:
        current = self._rounds.get(learner)
        return current is not None and now <= current.ready_until

    # --- What members show

    def _record_hellos(self) -> None:
        """
        Write the journals and addresses that members show into the configuration.

        No quorum changes because of it, so one entry may have all of them.
        """
        before = after = self.journal.configuration
        for member in before.members:
            hello = self.roster.hello(member.node_id)
            if hello is None or _is_written(hello, member):
                continue
            current = replace(
                member,
                journal_id=member.journal_id or hello.journal_id,
                address=hello.address or member.address,
            )
            after = after.with_member(current)
        if after != before:
            self.leader.append_configuration(after)

    # --- Answering

    def _answer_committed(self) -> None:
        if not self._appended:
            return
        committed = self.leader.raftCommitIndex
        done = [(i, pending) for i, pending in self._appended if i <= committed]
        self._appended = [(i, p) for i, p in self._appended if i > committed]
        for index, pending in done:
            reach(Point.MEMBERS_COMMITTED)
            pending.callback(index)

    def _expire(self, now: float) -> None:
        if not (self._waiting or self._appended or self._rounds):
            return
        late = [p for p in self._waiting if p.deadline <= now]
        self._waiting = [p for p in self._waiting if p.deadline > now]
        for pending in late:
            pending.callback(self._why_not_begun(pending.change))
        unknown = [p for _, p in self._appended if p.deadline <= now]
        self._appended = [(i, p) for i, p in self._appended if p.deadline > now]
        for pending in unknown:
            pending.callback(OutcomeUnknownError("the change is not committed in time"))
        waiting = {p.change.node_id for p in self._waiting}
        for learner in self._rounds.keys() - waiting:
            del self._rounds[learner]

    def _why_not_begun(self, change: Change) -> ChangeRefusedError:
        if not self._can_be_read():
            return refused("not every voter has shown its journal to this primary yet")
        if not self._may_change():
            return refused("the previous change is not committed yet")
        lacks = self.journal.last_index - self.roster.match_index(change.node_id)
        if not self.roster.in_contact(change.node_id):
            return refused(f"{change.node_id} is not in contact with the primary")
        return refused(f"{change.node_id} has not caught up: it lacks {lacks} entries")

    def leadership_lost(self) -> None:
        """Answer all requests: the next leader decides about the appended ones."""
        appended, self._appended = self._appended, []
        waiting, self._waiting = self._waiting, []
        self._rounds.clear()
        self._led_since = None
        for _, pending in appended:
            pending.callback(OutcomeUnknownError("the primary lost its leadership"))
        for pending in waiting:
            pending.callback(NoPrimaryError("the primary lost its leadership"))


def _is_written(hello: Hello, member: Member) -> bool:
    """Return whether the configuration has what a member shows."""
    named = bool(member.journal_id) or not hello.journal_id
    return named and hello.address in ("", member.address)


def _with_learner(before: Configuration, member: Member) -> Configuration:
    node_id, known = member.node_id, before.member(member.node_id)
    if node_id in before.removed:
        detail = f"{node_id} was removed; start the node under a new id"
        raise refused(detail, Reason.MEMBER_REMOVED)
    if known is not None:
        if _spelled(known.address) != _spelled(member.address):
            detail = (
                f"{node_id} is already a member, at {known.address}, and not at"
                f" {member.address}"
            )
            raise refused(detail, Reason.MEMBER_EXISTS)
        return before
    if len(before.members) >= MEMBERS_MAX:
        raise refused(f"there are {MEMBERS_MAX} members, which is the maximum")
    learner = Member(node_id=node_id, address=member.address, role=MemberRole.LEARNER)
    after = before.with_member(learner)
    if len(after.to_bytes()) > COMMAND_BYTES_MAX:
        raise refused("the configuration would be too large for the log")
    return after


def _spelled(address: str) -> str:
    return in_one_spelling(address) or address


def _existing(before: Configuration, node_id: NodeId) -> Member:
    member = before.member(node_id)
    if member is None:
        detail = f"{node_id} is not a member; members are {', '.join(before.ids)}"
        raise refused(detail, Reason.MEMBER_UNKNOWN)
    return member


def refused(
    detail: str, reason: Reason = Reason.MEMBER_NOT_READY
) -> ChangeRefusedError:
    """Return the refusal of a change."""
    return ChangeRefusedError(Rejected(reason, detail))
