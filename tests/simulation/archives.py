# SPDX-License-Identifier: Apache-2.0
"""
Archives and retention in the simulated cluster (U2, U4).

Each node has an archive of its own, on a file server that outlives the node's disk. The
real code proves what goes into it and what is read back. Nodes confirm that by the log,
copies rot, and any primary asks to remove any segments at any time: apply alone may
allow it. A run lasts seconds, so retention keeps events for less than one.
"""

import random
from collections import defaultdict
from collections.abc import Callable, Sequence

import pytest

from sparecode_node.domain.ids import NodeId, RequestId
from sparecode_node.domain.policy import Policy
from sparecode_node.domain.segments import holding_of, numbers_of
from sparecode_node.statemachine.commands import UnstampedCall
from sparecode_node.statemachine.commands.segments import NoteArchive, RemoveSegments
from sparecode_node.statemachine.handlers import retention
from sparecode_node.statemachine.segment_chain import SegmentError
from sparecode_node.statemachine.tables import archives
from sparecode_node.statemachine.tables.segments import Segment
from tests.simulation.comparisons import Comparison
from tests.simulation.machines import Node
from tests.simulation.rules import CodeRules
from tests.simulation.sealed import Row, SealedFile, rows_in
from tests.simulation.sqlite_store import SqliteStore

KEPT_MS = 100
"""Retention removes segments that are older."""
ARCHIVE, READ_AGAIN, ROT, REMOVE = 0.6, 0.2, 0.1, 0.9
"""How often, at each look, a node does these things."""
WANTED = Policy().audit_archive_copies

Propose = Callable[[Node, str, Callable[[], UnstampedCall]], object]


def short_retention(patch: pytest.MonkeyPatch) -> None:
    """
    Let retention begin within a run; how many copies it wants stays.

    Only the node that leads confirms, so few of them would speak again after a new id of
    a folder: here all ids are known. `tests/services/test_archive_folders.py` has others.
    """
    patch.setattr(archives, "is_known", lambda _db, _folder: True)
    patch.setattr(
        retention,
        "removable_before_ms",
        lambda _policy, now_ms, _shortened_ms: max(0, now_ms - KEPT_MS),
    )


class Archives:
    """The archives of all nodes, and what was read back from them."""

    def __init__(self, dice: random.Random, rules: CodeRules, propose: Propose) -> None:
        self._dice = dice
        self._rules = rules
        self._propose = propose
        self._files: dict[str, SealedFile] = {}
        self.read_back: defaultdict[int, set[str]] = defaultdict(set)
        """Segment -> the nodes that have read it back from their archives."""
        self._removed = 0
        self._requests = 0

    def close(self) -> None:
        for each in self._files.values():
            each.close()

    def look(self, stores: Sequence[tuple[SqliteStore, Node]], *, faulty: bool) -> None:
        """Let nodes archive, read again, confirm, and remove; damage one archive."""
        for store, _ in stores:
            self.see_removed(store.db.removed().through)
        for store, node in stores:
            self._archive(node.node_id, store)
            if self._dice.random() < READ_AGAIN:
                self._read_again(node.node_id, store)
            if faulty:  # Later, all machines are to come to the same entry.
                self._confirm(node, store)
                if node.leads and self._dice.random() < REMOVE:
                    self._remove(node, store)
            delete_removed(store)
        if stores and faulty and self._dice.random() < ROT:
            self._damage(stores[0][0])

    def see_removed(self, removed: int) -> None:
        """See that nothing is removed that too few archives were read back of (U4)."""
        for number in range(self._removed + 1, removed + 1):
            read_back = self.read_back[number]
            self._rules.comparisons[Comparison.REMOVED] += 1
            if len(read_back) < WANTED:
                seen = f"segment {number}: only {sorted(read_back)} had read it back"
                self._rules.violated("archived before it is removed", seen)
        self._removed = max(self._removed, removed)

    def _archive(self, node_id: str, store: SqliteStore) -> None:
        if node_id not in self._files:
            self._files[node_id] = SealedFile()
        file = self._files[node_id]
        removed = store.db.removed().through
        for segment in store.db.all_sealed():
            if file.stored().get(segment.number) == segment.hash_after:
                continue
            if segment.number <= removed:
                # It rots here, and the nodes have it no more: an operator copies it.
                if segment.number in self.read_back:
                    self._restore(segment, file)
            elif self._dice.random() < ARCHIVE and file.fetch(segment, store.sealed):
                self._has_read(node_id, segment)

    def _restore(self, segment: Segment, file: SealedFile) -> None:
        for other in self._files.values():
            if other is not file and file.fetch(segment, other):
                return

    def _has_read(self, node_id: str, segment: Segment) -> None:
        self.read_back[segment.number].add(node_id)
        self._rules.comparisons[Comparison.ARCHIVED] += 1

    def _read_again(self, node_id: str, store: SqliteStore) -> None:
        file = self._files[node_id]
        for segment in store.db.all_sealed():
            if segment.number in file.stored():
                try:
                    file.verify(segment)
                except SegmentError:
                    continue
                self._has_read(node_id, segment)

    def _confirm(self, node: Node, store: SqliteStore) -> None:
        """Confirm what was read back, and withdraw what was not, as `Retention` does."""
        own, removed = NodeId(node.node_id), store.db.removed().through
        hashes = {each.number: each.hash_after for each in store.db.all_sealed()}
        proved = {
            number
            for number, value in self._files[own].stored().items()
            if number > removed and hashes.get(number) == value
        }
        holding = holding_of(proved)
        if numbers_of(holding.held) == archives.numbers_of(
            store.db, archives.archiver_of(own)
        ):
            return
        command = NoteArchive(
            node_id=own,
            place=f"/archives/{own}",
            through=holding.through,
            missing=tuple(edge for gap in holding.missing for edge in gap),
            hash_after=hashes.get(holding.through, b""),
            folder=own.encode().hex().zfill(32) if proved else "",
        )
        self._call(node, command)

    def _remove(self, node: Node, store: SqliteStore) -> None:
        """Ask to remove any segments, as a primary that is broken would."""
        removed = store.db.removed().through
        left = [each for each in store.db.all_sealed() if each.number > removed]
        if left:
            segment = min(self._dice.choices(left, k=3), key=lambda each: each.number)
            self._call(
                node,
                RemoveSegments(through=segment.number, hash_after=segment.hash_after),
            )

    def _call(self, node: Node, command: NoteArchive | RemoveSegments) -> None:
        self._requests += 1
        request = f"{type(command).__name__}{self._requests}"
        made = UnstampedCall.of_node(NodeId(node.node_id), command, RequestId(request))
        self._propose(node, request, lambda: made)

    def _damage(self, store: SqliteStore) -> None:
        """Damage one archive, if another one has each of its segments for sure."""
        for node_id in sorted(self._files):
            self._read_again(node_id, store)
        victim = self._dice.choice(sorted(self._files))
        others = [each for name, each in self._files.items() if name != victim]
        if all(
            any(number in other.stored() for other in others)
            for number in self._files[victim].stored()
        ):
            self._files[victim].rot(self._dice)

    def check(self, expected: Sequence[Row], through: int) -> None:
        """See that the archives together have the events that are removed (U2)."""
        found = {row for file in self._files.values() for row in rows_in(file)}
        lacking = [row[0] for row in expected[:through] if row not in found]
        self._rules.comparisons[Comparison.ACROSS] += through
        if lacking:
            seen = f"events {lacking} of 1 to {through} are in no archive"
            self._rules.violated("a whole archive", seen)


def delete_removed(store: SqliteStore) -> None:
    """Delete some removed events from a machine's file, as the node does."""
    removed = store.db.removed()
    if removed.through:
        archives.delete(store.sealed._db, removed, 5)
        store.sealed._stored = None
