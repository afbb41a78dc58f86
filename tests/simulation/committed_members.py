# SPDX-License-Identifier: Apache-2.0
"""
The members that are committed at an index, and whether a snapshot there names them.

A node that installs a snapshot counts by the members that it names, and has no entry from
which it could take them otherwise. So they must be those of the log up to its index: a
change that comes later may be taken back.
"""

from dataclasses import dataclass, field

from sparecode_node.replication.log.journal import CONFIGURATION, Journal
from sparecode_node.replication.members import Configuration
from sparecode_node.replication.snapshots.store import Manifest
from tests.simulation.comparisons import Comparison
from tests.simulation.observed import Judge


@dataclass
class CommittedMembers:
    """What was applied in one cluster, and the snapshots of it."""

    judge: Judge
    _terms: dict[int, int] = field(default_factory=dict)
    """Index -> the term of the entry that was applied there."""
    _changes: dict[int, Configuration] = field(default_factory=dict)
    """Index -> the members from the entry on that was applied there."""

    def on_apply(self, journal: Journal, index: int) -> None:
        """Note an entry that a member applies: it is committed."""
        if index in self._terms:
            return  # Whether it is the same everywhere is looked at elsewhere.
        command, _, self._terms[index] = journal.entry(index)
        if command[:1] == CONFIGURATION:
            self._changes[index] = Configuration.from_bytes(command[1:])

    def check_log(self, node_id: str, journal: Journal) -> None:
        """See that a log that begins with a snapshot counts by the members there."""
        index = journal.first_index
        members = journal.configuration_at(index)
        self._compare(f"log of {node_id}", index, journal.term_at(index), members)

    def check_snapshot(self, node_id: str, snapshot: Manifest) -> None:
        """See that a snapshot names the term and the members at its index."""
        name, members = f"snapshot on {node_id}", snapshot.configuration
        self._compare(name, snapshot.index, snapshot.term, members)

    def _compare(
        self, name: str, index: int, term: int | None, members: Configuration
    ) -> None:
        committed = self._terms.get(index)
        at = max((each for each in self._changes if each <= index), default=0)
        if committed is None or not at:
            return  # Before the first change, each member has what was written there.
        self.judge.comparisons[Comparison.SNAPSHOT_MEMBERS] += 1
        # A node adds addresses and journals that it knows, where an entry had none.
        known = self._changes[at].completed(members)
        if (committed, known) != (term, members):
            seen = f"{name} at {index} of term {term}: {members}, not {known}"
            self.judge.violated("snapshot with the members of its log", seen)
