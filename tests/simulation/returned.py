# SPDX-License-Identifier: Apache-2.0
"""
What machines had acknowledged before they lost something, and so may not have any more.

A machine returns with an empty disk, with a rotten one, or as an older copy of itself.
That is no fault of the product, so the machine may lack what it had acknowledged before.
A leader that has counted that counts it until its term ends, and may: a machine with
another journal, or one that has gone back, is refused, and so never votes without it.
All that the machine says after its return is judged as that of any other member.
"""

from collections import defaultdict
from dataclasses import dataclass, field

from sparecode_node.replication.members import Configuration

NOTHING = 0

Acknowledged = dict[int, dict[str, int]]
"""Term -> journal -> the last index that was acknowledged with it."""


@dataclass
class Returned:
    """The acknowledgements of the machines of one cluster."""

    _acknowledged: defaultdict[str, Acknowledged] = field(
        default_factory=lambda: defaultdict(dict)
    )
    _before: dict[str, dict[int, int]] = field(default_factory=dict)
    """Machine -> term -> the last index that it had acknowledged before its return."""

    def __contains__(self, node_id: object) -> bool:
        """Return whether a machine has ever lost something."""
        return node_id in self._before

    def acknowledges(
        self, node_id: str, journal_id: str, term: int, index: int
    ) -> None:
        """Note what a machine tells the leader of a term."""
        journals = self._acknowledged[node_id].setdefault(term, {})
        journals[journal_id] = max(index, journals.get(journal_id, NOTHING))

    def returns(self, node_id: str) -> None:
        """Expect nothing more that a machine has acknowledged until now."""
        acknowledged = self._acknowledged[node_id]
        self._before[node_id] = {
            term: max(journals.values()) for term, journals in acknowledged.items()
        }

    def may_lack(self, node_id: str, term: int, index: int) -> bool:
        """Return whether the leader of a term may count what a machine has lost."""
        return index <= self._before.get(node_id, {}).get(term, NOTHING)

    def counts(self, members: Configuration, node_id: str, term: int) -> int:
        """Return the last index that counts: with the journal that the members name."""
        return max(
            (
                index
                for journal, index in self._acknowledged[node_id].get(term, {}).items()
                if not members.names_another_journal(node_id, journal)
            ),
            default=NOTHING,
        )
