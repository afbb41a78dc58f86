# SPDX-License-Identifier: Apache-2.0
"""Replicas whose snapshots and reads are judged, in the moment they are done."""

import hashlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sparecode_node.replication.errors import SnapshotRefusedError
from sparecode_node.replication.raft.admission import Refusal
from sparecode_node.replication.raft.engine import RAFT_STATE, Engine
from sparecode_node.replication.raft.frames import Message
from sparecode_node.replication.raft.read_index import ReadOutcome, ReadPoint, Word
from sparecode_node.replication.raft.rollback import Hello
from sparecode_node.replication.replica.replica import Replica
from sparecode_node.replication.snapshots.store import Manifest
from tests.simulation.comparisons import Comparison
from tests.simulation.fault_effects import Effect
from tests.simulation.heard_promises import HeardPromises
from tests.simulation.intact import check_refused
from tests.simulation.starts import judged_fence
from tests.simulation.written_journals import check_file

if TYPE_CHECKING:
    from tests.simulation.machines import Node


def is_candidate(engine: Engine) -> bool:
    """Return whether an engine waits for votes."""
    return bool(engine._SyncObj__raftState == RAFT_STATE.CANDIDATE)


class JudgedReplica(Replica):
    """Works as in production, and what it relies on is compared."""

    def __init__(self, node: "Node", *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self._node = node
        self.has_installed = False
        self._heard = HeardPromises(node)
        guard: Any = self.guard
        guard.receive = self._judged_receive(guard.receive)
        journal: Any = self.engine.journal
        journal.setCurrentTerm = self._seen_term(journal.setCurrentTerm)
        journal._began_at = self._judged_beginning(journal._began_at)
        node.invariants.promises.reads.on_term(node.node_id, journal.getCurrentTerm())
        store: Any = self.snapshots
        store.adopt = self._judged_adopt(store.adopt)

    def _judged_receive(self, receive: Callable[..., None]) -> Callable[..., None]:
        """Return what takes a message once the promises have seen it."""

        def judged(peer: str, message: Message, hello: Hello) -> None:
            node = self._node
            node.invariants.promises.reads.on_receive(node, peer, message)
            dropped = self.guard.dropped.total()
            receive(peer, message, hello)
            if self.guard.dropped.total() == dropped:
                self._heard.on_counted(peer, message, hello)

        return judged

    def _seen_term(self, set_term: Callable[..., None]) -> Callable[..., None]:
        """Return what sets the term of the journal, and tells the judge of reads."""

        def seen(term: int, vote: str | None) -> None:
            set_term(term, vote)
            node = self._node
            node.invariants.promises.reads.on_term(node.node_id, term)

        return seen

    def _judged_beginning(self, began_at: Callable[..., None]) -> Callable[..., None]:
        """Return what is called when another file has taken the journal's place."""

        def judged(*values: Any) -> None:
            began_at(*values)
            check_file(self.engine.journal, self._node.disk)

        return judged

    def _judged_adopt(self, adopt: Callable[..., None]) -> Callable[..., None]:
        """Return what makes a snapshot the newest one, its own or another node's."""

        def judged(manifest: Manifest, name: str) -> None:
            node = self._node
            node.invariants.promises.members.check_snapshot(node.node_id, manifest)
            adopt(manifest, name)

        return judged

    def read(
        self,
        *,
        timeout_s: float,
        callback: Callable[[ReadOutcome], object],
        word: Word | None = None,
    ) -> None:
        node, reads = self._node, self._node.invariants.promises.reads
        asked = reads.on_ask(node, word)

        def judged(outcome: ReadOutcome) -> None:
            if isinstance(outcome, ReadPoint):
                reads.on_answer(node, asked, outcome)
            callback(outcome)

        super().read(timeout_s=timeout_s, callback=judged, word=word)

    def tick(self, wait_s: float) -> None:
        super().tick(wait_s)
        self._heard.on_step()

    def hear_nothing(self, member: str) -> None:
        node, why = self._node, Refusal.ROLLED_BACK
        check_refused(node.invariants, member, node.node_id, why)
        with judged_fence(node):
            super().hear_nothing(member)

    def install(
        self,
        manifest: Manifest,
        done: Callable[[SnapshotRefusedError | None], object],
    ) -> None:
        before = self.engine.raftCommitIndex
        odd = is_candidate(self.engine) or self.engine.raftLastApplied < before

        def judged(refusal: SnapshotRefusedError | None) -> None:
            if refusal is None:
                self.has_installed = True
                check_installed(self._node, manifest, before)
            done(refusal)

        super().install(manifest, judged)
        self._node.sim.effects[Effect.INSTALLED_AT_ODD_MOMENT] += odd


def check_installed(node: "Node", manifest: Manifest, before: int) -> None:
    """See that a snapshot is newer than what was committed here, and all there is."""
    invariants = node.invariants
    # Its members were compared when the node took it for its own (`_judged_adopt`).
    invariants.promises.members.check_log(node.node_id, node.journal)
    invariants.comparisons[Comparison.INSTALLED] += 1
    if manifest.index <= before:
        invariants.violated("never back", f"{node.node_id}: {manifest}")
    if manifest.index > max(invariants.applied, default=0):
        invariants.violated("committed only", f"{node.node_id}: {manifest}")
    if node.store.digest() != manifest.digest:
        invariants.violated("snapshot digest", f"{node.node_id}: {manifest}")
    if hashlib.sha256(node.disk.read(manifest.body)).digest() != manifest.sha256:
        # No digest covers what lies between the rows; others fetch it from here.
        invariants.violated("snapshot as announced", f"{node.node_id}: {manifest}")
