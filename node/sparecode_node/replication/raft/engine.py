# SPDX-License-Identifier: Apache-2.0
"""
PySyncObj 0.3.17, unedited, with its private methods overridden where it is unsafe.

Its terms, elections, commit rule, and handling of entries by a follower are used.
DESIGN.md lists what is not used, and why. The overrides have the names that mangling
gives them inside `SyncObj`, which looks them up through the instance: so they take
effect. They fit one release, which is checked here.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NoReturn

from pysyncobj import SyncObj, SyncObjConf, syncobj
from pysyncobj import journal as pysyncobj_journal
from pysyncobj import pickle as pysyncobj_pickle
from pysyncobj.poller import POLL_EVENT_TYPE
from pysyncobj.syncobj import _RAFT_STATE as RAFT_STATE
from pysyncobj.version import VERSION

from sparecode_node.replication.applied_state import AppliedState
from sparecode_node.replication.codec import CodecError, decode_entry
from sparecode_node.replication.errors import (
    ClockError,
    Fatal,
    NoPrimaryError,
    NoQuorumError,
)
from sparecode_node.replication.log.journal import CONFIGURATION, Journal
from sparecode_node.replication.log.skips import SHOWN_MAX, Skips, SkipSettings
from sparecode_node.replication.members import Configuration
from sparecode_node.replication.raft.clock_watch import Agreement
from sparecode_node.replication.raft.follower import REGULAR
from sparecode_node.replication.raft.frames import Message
from sparecode_node.replication.raft.guard import Guard, PeerNode, Wire
from sparecode_node.replication.raft.handover import HandOver
from sparecode_node.replication.raft.membership_changes import Membership
from sparecode_node.replication.raft.proposals import Proposals
from sparecode_node.replication.raft.read_index import ReadPoint
from sparecode_node.replication.raft.retention import Retention
from sparecode_node.replication.raft.rollback import Hello, Rollbacks
from sparecode_node.replication.raft.roster import Roster
from sparecode_node.replication.raft.sender import Sender
from sparecode_node.replication.settings import RaftSettings

PINNED = "0.3.17"
if VERSION != PINNED:  # Not an assertion: -O must not remove it.
    raise ImportError(f"the overrides are for PySyncObj {PINNED}, this is {VERSION}")


OFF = (
    # Commands enter by `proposals` only, and the engine never forwards them.
    "_applyCommand",
    # Membership: applied when appended, several changes at once, as pickles.
    "addNodeToCluster",
    "removeNodeFromCluster",
    "_addNodeToCluster",
    "_removeNodeFromCluster",
    "_SyncObj__changeCluster",
    "_SyncObj__doChangeCluster",
    "_SyncObj__updateClusterConfiguration",
    # Snapshots: a partial one moves the commit index over unverified entries.
    "_SyncObj__loadDumpFile",
    "forceLogCompaction",
    "_forceLogCompaction",
    # The target of a transfer campaigns without checking its term.
    "transferLeadership",
    "_transferLeadership",
    # Code versions travel as pickles.
    "setCodeVersion",
    "_setCodeVersion",
    # PySyncObj's own threads.
    "_autoTickThread",
)
"""The parts of PySyncObj that are off: each raises `Fatal` when it is called."""


def _own_journal(journal: object) -> pysyncobj_journal.Journal:
    if not isinstance(journal, Journal):
        raise Fatal("PySyncObj must not create its own journal")
    return journal


# `SyncObjConf.journalFile` is meant for a path; ours is a journal.
syncobj.createJournal = _own_journal
# The notifier would wake the poller for commands of PySyncObj's own queue, which is
# off.
syncobj.PIPE_NOTIFIER_ENABLED = False  # type: ignore[attr-defined]


def now() -> float:
    """Return the engine's clock, in seconds; a simulation replaces it."""
    return syncobj.monotonicTime()


class Engine(SyncObj):
    """The Raft engine of one replica. Belongs to one thread; `doTick` drives it."""

    def __init__(
        self,
        *,
        journal: Journal,
        state: AppliedState,
        proposals: Proposals,
        wire: Wire,
        wall_ms: Callable[[], int],
        settings: RaftSettings,
        applied: int,
        address: str = "",
    ) -> None:
        """
        Go on after entry *applied*, the last one in the state.

        *address* is where this node tells the others to reach it.
        """
        self.journal = journal
        self.proposals = proposals
        self.settings = settings
        self._state = state
        self.skips = Skips(SkipSettings(), journal, state)
        """Applies entries, but for those that the operators skip."""
        self.rollbacks = Rollbacks(journal, lambda: state.feature_level, now)
        self._sender = Sender(self, journal)
        self.hand_over = HandOver(self, journal)
        me = journal.identity.node_id
        super().__init__(
            PeerNode(me),
            [PeerNode(voter) for voter in journal.configuration.voters if voter != me],
            self._conf(),
            nodeClass=PeerNode,
            transportClass=lambda _obj, _me, _others: self._guarded(wire, wall_ms),
        )
        hello = Hello(journal.journal_id, address, tuple(journal.boots.boots))
        self.roster = Roster(self.guard, journal, hello, settings.contact_s, now)
        self.membership = Membership(
            self, self.roster, journal, settings.election_min_s
        )
        # The state determines where to go on; PySyncObj would begin at 1 again,
        # and would look for a dump file.
        self._SyncObj__needLoadDumpFile = False
        self._SyncObj__raftLastApplied = self._SyncObj__raftCommitIndex = applied
        journal.committed = applied
        journal.on_configuration = self._take_configuration

    def _guarded(self, wire: Wire, wall_ms: Callable[[], int]) -> Guard:
        self.retention = Retention(
            journal=self.journal,
            settings=self.settings,
            send=wire.send,
            now=now,
            acknowledged=lambda m: (
                self.roster.match_index(m) if self._isLeader() else 0
            ),
        )
        self.guard = Guard(
            self, self.journal, wire, wall_ms, self.rollbacks, self.retention
        )
        return self.guard

    def _conf(self) -> SyncObjConf:
        settings = self.settings
        return SyncObjConf(
            autoTick=False,  # Our thread drives it, and stops at every exception.
            journalFile=self.journal,
            raftMinTimeout=settings.election_min_s,
            raftMaxTimeout=settings.election_max_s,
            appendEntriesPeriod=settings.heartbeat_s,
            leaderFallbackTimeout=settings.step_down_s,
            appendEntriesUseBatch=False,  # Tell followers at once what is committed.
            dynamicMembershipChange=False,
            # For a transport that is not used; but PySyncObj checks that it is larger.
            connectionTimeout=2 * settings.election_max_s,
            fullDumpFile=None,
            useFork=False,
            onStateChanged=self._role_changed,
        )

    # --- Driving

    def listen(self, descriptor: int, ready: Callable[[], object]) -> None:
        """End the wait of a tick, and call *ready*, when *descriptor* can be read."""
        self._poller.subscribe(descriptor, lambda *_: ready(), POLL_EVENT_TYPE.READ)

    def stop_listening(self, descriptor: int) -> None:
        """Undo `listen`."""
        self._poller.unsubscribe(descriptor)

    def _onTick(self, timeToWait: float = 0.0) -> None:
        """Acknowledge, after one sync, what the last poll brought; then tick as PySyncObj."""
        self.guard.flush()
        self.rollbacks.step()
        self.retention.step(
            self.guard.keepers(),
            applied=self.raftLastApplied,
            count_behind=self._known_behind,
        )
        self._watch_clocks()
        if self.guard.campaign.is_called_up():
            self._SyncObj__raftElectionDeadline = 0.0
        super()._onTick(timeToWait)

    def _checkCommandsToApply(self) -> None:
        """
        Append proposals; PySyncObj would take commands from its own queue.

        That queue sends an entry for each command, forwards pickles to the leader, and
        answers some of its callbacks wrongly or never. Called in each tick after
        entries were applied, so the stamper sees the newest state.
        """
        self.proposals.expire(now())
        if self._isLeader():
            self.hand_over.step(now())
            self.membership.step(now())
        if not self.proposals.waiting:
            pass
        elif not self._isLeader():
            self.proposals.refuse_queued(NoPrimaryError("this node does not lead"))
        elif not self.has_contact():
            self.proposals.refuse_queued(NoQuorumError("no contact to a quorum"))
        elif (agreement := self.clock_agreement()) is not Agreement.YES:
            self.proposals.refuse_queued(ClockError(agreement.value))
        elif self.is_handing_over():
            self.proposals.refuse_queued(NoPrimaryError("the primary is handing over"))
        elif self.raftLastApplied >= (self._SyncObj__noopIDx or 0):
            self._append_proposals()
        self._ask_for_reads()
        # Before our own sync, which then runs beside those of the followers.
        if self._isLeader():
            self._sender.send(now())
        self._sync_appended()

    def _watch_clocks(self) -> None:
        """Ask for the time; step down if this clock differs from a quorum's (T5)."""
        self.guard.clocks.ask(self.voters(), now())
        if self._isLeader() and self.clock_agreement() is Agreement.NO:
            self._SyncObj__setState(RAFT_STATE.FOLLOWER)
            self._SyncObj__raftLeader = None

    def _sync_appended(self) -> None:
        """Sync the entries of this tick, while the followers sync the same entries."""
        self.journal.sync()

    def _append_proposals(self) -> None:
        while self.proposals.may_append and (batch := self.proposals.take()):
            index, term = self.journal.last_index + 1, self.raftCurrentTerm
            self.journal.add(REGULAR + batch.payload, index, term)
            self.proposals.appended(batch, index, term)

    def _ask_for_reads(self) -> None:
        """
        Ask a quorum to confirm that this node still leads, for waiting reads.

        A new leader knows the commit index only after an entry of its own term is
        committed: until then, reads wait.
        """
        reads = self.guard.reads
        reads.expire(now(), NoQuorumError("no quorum has confirmed the primary"))
        if not self._isLeader():
            reads.refuse(NoPrimaryError("this node does not lead"))
        elif not self.has_contact():
            reads.refuse(NoQuorumError("no contact to a quorum"))
        elif self.knows_commit_index():
            if reads.wait_elsewhere:
                self._sender.tell_now()
            reads.ask(
                term=self.raftCurrentTerm,
                point=ReadPoint(
                    index=self.raftCommitIndex, state_ms=self._state.now_ms
                ),
                others=self.voters(),
                now=now(),
                again_s=self.settings.heartbeat_s,
            )

    def knows_commit_index(self) -> bool:
        """Return whether this leader has committed an entry of its own term."""
        return self.journal.term_at(self.raftCommitIndex) == self.raftCurrentTerm

    def _role_changed(self, before: int, after: int) -> None:
        """Answer all proposals, changes and reads of a leader that does not lead any more."""
        if after == RAFT_STATE.LEADER:  # PySyncObj knows nothing of learners.
            end = self.journal.last_index + 1
            followers = map(PeerNode, self.roster.others())
            # A new dictionary: it must not keep followers of an earlier term.
            self._SyncObj__raftNextIndex = dict.fromkeys(followers, end)
            self._SyncObj__newAppendEntriesTime = 0.0  # Tell every follower at once.
        if before == RAFT_STATE.LEADER:
            self.hand_over.leadership_lost()
            self.membership.leadership_lost()
            self.proposals.lose_appended()
            self.guard.reads.refuse(NoPrimaryError("the primary lost its leadership"))

    def hear_nothing(self, member: str) -> None:
        """Take no part any more: *member* has refused this node as an older copy."""
        self.guard.hear_nothing(member)
        self._SyncObj__setState(RAFT_STATE.FOLLOWER)
        self._SyncObj__raftLeader = None

    def end_candidacy(self) -> None:
        """Let no vote that is under way make this node lead."""
        if self._SyncObj__raftState == RAFT_STATE.CANDIDATE:
            self._SyncObj__setState(RAFT_STATE.FOLLOWER)

    # --- Members

    def append_configuration(self, configuration: Configuration) -> int:
        """Append an entry with the new members, as a leader; return its index."""
        index = self.journal.last_index + 1
        command = CONFIGURATION + configuration.to_bytes()
        self.journal.add(command, index, self.raftCurrentTerm)
        return index

    def _take_configuration(self, configuration: Configuration) -> None:
        """Count by the newest configuration from now on, committed or not."""
        me, voters = self.journal.identity.node_id, configuration.voters
        before = self._SyncObj__otherNodes
        after = {PeerNode(voter) for voter in voters if voter != me}
        self._SyncObj__otherNodes = set[Any](after)
        self.guard.reads.keep_only(voters)
        self.end_candidacy()  # Its votes may come from nodes that are voters no more.
        if not self._isLeader():
            return
        for member in self.roster.others():
            end = self.journal.last_index + 1
            self._SyncObj__raftNextIndex.setdefault(PeerNode(member), end)
        for node in after - before:
            # A new voter's acknowledgements as a learner in this term now count.
            self._SyncObj__raftMatchIndex[node] = self.roster.match_index(node.id)
            self._SyncObj__lastResponseTime[node] = now()
        for gone in before - self._SyncObj__otherNodes:
            del self._SyncObj__raftMatchIndex[gone]
            del self._SyncObj__lastResponseTime[gone]

    # --- Queries

    def clock_agreement(self) -> Agreement:
        """Return whether this node's clock agrees with a quorum's (T5)."""
        return self.guard.clocks.agreement(self.voters(), now())

    def is_leader(self) -> bool:
        """Return whether this node leads, as far as it knows."""
        return self._isLeader()

    def hello(self) -> Hello:
        """Return what this node shows when a link begins, with its current position."""
        return replace(
            self.roster.own,
            position=self.journal.position,
            applied_index=self._state.applied_index,
            skipped=self.skips.skipped()[-SHOWN_MAX:],
        )

    def is_handing_over(self) -> bool:
        """Return whether this leader takes no proposals because it hands over."""
        return self.hand_over.is_under_way

    def leader(self) -> str | None:
        """
        Return the leader that this node has heard recently.

        PySyncObj names a dead leader until another one is elected. One that was silent
        for `step_down_s` does not lead any more, or leads without this node.
        """
        node = self._getLeader()
        silent_s = now() - self.guard.campaign.heard_at
        lost = not self._isLeader() and silent_s > self.settings.step_down_s
        return None if node is None or lost else node.id

    def has_contact(self) -> bool:
        """Return whether a quorum was heard recently, directly or through the leader."""
        if self._isLeader():
            return 2 * (len(self.voters_in_contact()) + 1) > len(self.otherNodes) + 1
        oldest = now() - self.settings.contact_s
        return self._getLeader() is not None and self.guard.campaign.heard_at >= oldest

    def voters(self) -> frozenset[str]:
        """Return the other nodes that may lead."""
        return self.guard.campaign.voters()

    def voters_in_contact(self) -> dict[str, int]:
        """Return the voters heard recently, each with its last index on disk."""
        oldest = now() - self.settings.contact_s
        return {
            node.id: self.guard.progress(node.id).acked
            for node in self.otherNodes
            if self._SyncObj__lastResponseTime.get(node, 0.0) >= oldest
        }

    def entries_behind(self) -> int:
        """Return how many committed entries are not applied here."""
        if self._isLeader():
            own = self._SyncObj__noopIDx or 0
            return max(0, max(own, self.raftCommitIndex) - self.raftLastApplied)
        return max(0, self.guard.leader_commit - self.raftLastApplied)

    def _known_behind(self) -> int | None:
        """Return how many committed entries are missing here, None if it is not known."""
        if self.guard.snapshot_source() is not None or not self.has_contact():
            return None
        return self.entries_behind()

    # --- Sending entries; see `leader.Leader`

    def _SyncObj__sendAppendEntries(self) -> None:
        """Send a heartbeat in this tick, or tell the new commit index soon."""
        if now() > self._SyncObj__newAppendEntriesTime:
            self._SyncObj__newAppendEntriesTime = now() + self.settings.heartbeat_s
            self._sender.announce()
        else:
            self._sender.tell_committed(until=now() + self.settings.tick_s)

    def linked_followers(self) -> list[str]:
        """Return the followers that messages reach, in order."""
        return [m for m in self.roster.others() if self.guard.admission.is_linked(m)]

    def next_index(self, follower: str) -> int:
        """Return the first index that was not sent to a follower yet."""
        return int(self._SyncObj__raftNextIndex[PeerNode(follower)])

    def set_next_index(self, follower: str, index: int) -> None:
        """Record the first index that was not sent to a follower yet."""
        self._SyncObj__raftNextIndex[PeerNode(follower)] = index

    def acknowledged(self, follower: str) -> int:
        """Return the index where the window of a follower begins."""
        return self.guard.progress(follower).base

    def send(self, follower: str, message: Message) -> None:
        """Send a message through the guard."""
        self.guard.send(PeerNode(follower), message)

    def _SyncObj__connectedToAnyone(self) -> bool:
        """Ask before campaigning (pre-vote); called when an election is due."""
        return self.guard.campaign.may_begin(now())

    # --- Applying

    def _SyncObj__applyLogEntries(self) -> bool:
        """Apply what is committed: a follower for a moment only, so that it answers."""
        committed, until = self.raftCommitIndex, now() + self.settings.heartbeat_s
        tell = False
        while not self.journal.is_held and self.raftLastApplied < committed:
            if not self._isLeader():
                self._SyncObj__raftCommitIndex = self.raftLastApplied + 1
            tell = super()._SyncObj__applyLogEntries() or tell
            if now() >= until:
                break
        self._SyncObj__raftCommitIndex = committed
        return tell

    def _SyncObj__doApplyCommand(self, command: bytes) -> None:
        """
        Apply a committed entry; PySyncObj would unpickle it.

        PySyncObj would also apply the entry again, without end, if that raises. Here an
        exception stops the node. Answers go out after the transaction.
        """
        index = self.raftLastApplied + 1
        term = self.journal.entry(index)[2]
        try:
            calls = decode_entry(command[1:]) if command[:1] == REGULAR else ()
            if not calls:  # A removed member must learn of it before its link ends.
                self._sender.announce()
            results = self.skips.apply((command, index, term), calls)
            self.proposals.applied(index, term, results, count=len(calls))
        except CodecError as error:
            raise Fatal(f"entry {index} cannot be read here: {error}") from error
        except Exception as error:
            raise Fatal(f"applying entry {index} failed: {error!r}") from error

    # --- Disabled parts of PySyncObj: see also `OFF`

    def _SyncObj__parseChangeClusterRequest(self, _command: bytes) -> None:
        """Find no change of members in any entry; the guard admits none either."""

    def _SyncObj__tryLogCompaction(self) -> None:
        """Do not drop the beginning of the log: `Compaction` does that, in its own way."""

    def continue_after(self, index: int) -> None:
        """Go on after a snapshot that state and journal have taken over."""
        self._SyncObj__raftLastApplied = self._SyncObj__raftCommitIndex = index
        self.guard.snapshot_installed()


def _refuse(_self: Engine, *_args: object, **_kwargs: object) -> NoReturn:
    raise Fatal("this part of PySyncObj is off")


for _name in (*OFF, *(name for name in vars(Engine) if name.startswith("_SyncObj__"))):
    if not hasattr(SyncObj, _name):
        raise ImportError(f"PySyncObj has no {_name} to override")
for _name in OFF:
    setattr(Engine, _name, _refuse)

# No bytes become objects, and no objects bytes, whatever path there may still be.
for _name in ("load", "loads", "dump", "dumps"):
    setattr(pysyncobj_pickle, _name, _refuse)
for _name in ("loads", "dumps"):  # It has imported these by name.
    setattr(pysyncobj_journal, _name, _refuse)
