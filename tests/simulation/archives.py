# SPDX-License-Identifier: Apache-2.0
"""
Archives and retention in the simulated cluster (U2, U4).

Each node has an archive on a file server that outlives the node's disk; some share one
folder, and have one copy then. The real code proves what goes into it and what is read
back. Nodes confirm that by the log, copies rot, ids of folders are lost or are those of
another folder, and any primary asks to remove any segments at any time: apply alone may
allow it. A run lasts seconds, so retention keeps events for less than one.
"""

import random
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pytest

from sparecode_node.domain.ids import NodeId, RequestId
from sparecode_node.domain.policy import Policy
from sparecode_node.domain.segments import holding_of
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
SHARED = 0.3
"""How often a node archives to the folder of another one."""
LOSE_ID, COPY_ID = 0.02, 0.02
"""How often, at each look, the id of a folder is lost, or is that of another folder."""
WANTED = Policy().audit_archive_copies

Propose = Callable[[str, str, Callable[[], UnstampedCall]], object]


class Folder:
    """A folder of an archive, with its files."""

    def __init__(self, name: str, folder_id: str) -> None:
        self.name = name
        self.file = SealedFile()
        self.ids = [folder_id]
        """The ids that it had, the newest last. None comes back (docs/security.md)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a node has found when it looked, as `SegmentArchive` has it."""

    folder_id: str
    folder_changes: int
    numbers: frozenset[int]


def short_retention(patch: pytest.MonkeyPatch) -> None:
    """Let retention begin within a run; how many copies it wants stays."""
    patch.setattr(
        retention,
        "removable_before_ms",
        lambda _policy, now_ms, _shortened_ms: max(0, now_ms - KEPT_MS),
    )


class Archives:
    """The archives of all nodes, and what was read back from them."""

    def __init__(
        self,
        dice: random.Random,
        rules: CodeRules,
        leader: Callable[[], str | None],
        propose: Propose,
    ) -> None:
        """*propose* forwards to the node that *leader* names, as a replica does."""
        self._dice = dice
        self._rules = rules
        self._leader = leader
        self._propose = propose
        self._folders: dict[str, Folder] = {}
        """The folder of each node."""
        self._found: dict[str, Found] = {}
        """What each node has found at its last look."""
        self.read_back: defaultdict[int, set[str]] = defaultdict(set)
        """Segment -> the folders that it was read back from."""
        self._removed = 0
        self._requests = 0

    def close(self) -> None:
        for each in self._every():
            each.file.close()

    def _every(self) -> list[Folder]:
        """Return all folders, each once."""
        return list(dict.fromkeys(self._folders.values()))

    def look(self, stores: Sequence[tuple[SqliteStore, Node]], *, faulty: bool) -> None:
        """Let nodes archive, read again, confirm, and remove; damage one archive."""
        for store, _ in stores:
            self.see_removed(store.db.removed().through)
        for store, node in stores:
            folder = self._folder_of(node.node_id)
            self._archive(folder, store)
            if self._dice.random() < READ_AGAIN:
                self._read_again(folder, store)
            if faulty:  # Later, all machines are to come to the same entry.
                self._confirm(node, store)
                self._found[node.node_id] = self._look_into(folder, node, store)
                if node.leads and self._dice.random() < REMOVE:
                    self._remove(node, store)
            delete_removed(store)
        if stores and faulty and self._dice.random() < ROT:
            self._damage(stores[0][0])
        if stores and faulty:
            self._damage_ids()

    def _folder_of(self, node_id: str) -> Folder:
        if node_id not in self._folders:
            others = self._every()
            if others and self._dice.random() < SHARED:
                self._folders[node_id] = self._dice.choice(others)
            else:
                self._folders[node_id] = Folder(node_id, self._new_id())
        return self._folders[node_id]

    def _new_id(self) -> str:
        return f"{self._dice.getrandbits(128):032x}"

    def _damage_ids(self) -> None:
        """Lose the id of a folder, so that a node makes another one, or copy another's."""
        folder, other = (self._dice.choice(self._every()) for _ in range(2))
        if self._dice.random() < LOSE_ID:
            folder.ids.append(self._new_id())
        if self._dice.random() < COPY_ID and other.ids[-1] not in folder.ids:
            folder.ids.append(other.ids[-1])

    def see_removed(self, removed: int) -> None:
        """See that nothing is removed that too few archives were read back of (U4)."""
        for number in range(self._removed + 1, removed + 1):
            read_back = self.read_back[number]
            self._rules.comparisons[Comparison.REMOVED] += 1
            self._rules.comparisons[Comparison.SHARED] += self._has_changed_shared_ids()
            if len(read_back) < WANTED:
                seen = f"segment {number} was only in the folders {sorted(read_back)}"
                self._rules.violated("archived before it is removed", seen)
        self._removed = max(self._removed, removed)

    def _has_changed_shared_ids(self) -> bool:
        shared = Counter(self._folders.values())
        return any(n > 1 and len(each.ids) > 1 for each, n in shared.items())

    def _archive(self, folder: Folder, store: SqliteStore) -> None:
        file = folder.file
        removed = store.db.removed().through
        for segment in store.db.all_sealed():
            if file.stored().get(segment.number) == segment.hash_after:
                continue
            if segment.number <= removed:
                # It rots here, and the nodes have it no more: an operator copies it.
                if segment.number in self.read_back:
                    self._restore(segment, file)
            elif self._dice.random() < ARCHIVE and file.fetch(segment, store.sealed):
                self._has_read(folder, segment)

    def _restore(self, segment: Segment, file: SealedFile) -> None:
        for other in self._every():
            if other.file is not file and file.fetch(segment, other.file):
                return

    def _has_read(self, folder: Folder, segment: Segment) -> None:
        self.read_back[segment.number].add(folder.name)
        self._rules.comparisons[Comparison.ARCHIVED] += 1

    def _read_again(self, folder: Folder, store: SqliteStore) -> None:
        for segment in store.db.all_sealed():
            if segment.number in folder.file.stored():
                try:
                    folder.file.verify(segment)
                except SegmentError:
                    continue
                self._has_read(folder, segment)

    def _look_into(self, folder: Folder, node: Node, store: SqliteStore) -> Found:
        """Look for what a node confirms next; it reads all under an id that is new to it."""
        found = self._found.get(node.node_id)
        if found is None or found.folder_id != folder.ids[-1]:
            self._read_again(folder, store)
        hashes = {each.number: each.hash_after for each in store.db.all_sealed()}
        return Found(
            folder_id=folder.ids[-1],
            folder_changes=archives.folder_changes(store.db),
            numbers=frozenset(
                number
                for number, value in folder.file.stored().items()
                if hashes.get(number) == value
            ),
        )

    def _confirm(self, node: Node, store: SqliteStore) -> None:
        """Confirm what was read back, and withdraw what was not, as `Retention` does."""
        own, found = NodeId(node.node_id), self._found.get(node.node_id)
        archiver = archives.archiver_of(own)
        changes = archives.folder_changes(store.db)
        if found is None or found.folder_changes != changes:
            return
        removed = store.db.removed().through
        proved = {number for number in found.numbers if number > removed}
        is_due = found.folder_id != archives.folder_of(
            store.db, archiver
        ) or not archives.is_of_last_change(store.db, archiver)
        if proved == archives.numbers_of(store.db, archiver) and not (
            proved and is_due
        ):
            return
        hashes = {each.number: each.hash_after for each in store.db.all_sealed()}
        holding = holding_of(proved)
        command = NoteArchive(
            node_id=own,
            place=f"/archives/{own}",
            through=holding.through,
            missing=tuple(edge for gap in holding.missing for edge in gap),
            hash_after=hashes.get(holding.through, b""),
            folder=found.folder_id if proved else "",
            folder_changes=found.folder_changes if proved else 0,
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
        if (leader := self._leader()) is None:
            return
        self._requests += 1
        request = f"{type(command).__name__}{self._requests}"
        made = UnstampedCall.of_node(NodeId(node.node_id), command, RequestId(request))
        self._propose(leader, request, lambda: made)

    def _damage(self, store: SqliteStore) -> None:
        """Damage one archive, if another one has each of its segments for sure."""
        every = self._every()
        known = {each.number for each in store.db.all_sealed()}
        for each in every:
            self._read_again(each, store)
            if not known.issuperset(each.file.stored()):
                return  # This node has not applied all, so it cannot read all again.
        victim = self._dice.choice(every)
        others = [each.file for each in every if each is not victim]
        if all(
            any(number in other.stored() for other in others)
            for number in victim.file.stored()
        ):
            victim.file.rot(self._dice)

    def check(self, expected: Sequence[Row], through: int) -> None:
        """See that the archives together have the events that are removed (U2)."""
        found = {row for each in self._every() for row in rows_in(each.file)}
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
