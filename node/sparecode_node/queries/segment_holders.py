# SPDX-License-Identifier: Apache-2.0
"""The sealed segments of the audit log, and which members hold them (U1)."""

from collections.abc import Mapping
from dataclasses import dataclass

from sparecode_node.domain.ids import NodeId
from sparecode_node.domain.segments import Holding, Ranges, ranges_of, subtract
from sparecode_node.queries import cluster, segments
from sparecode_node.queries.state import ReadTransaction
from sparecode_node.statemachine.tables.segments import gaps_in


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """The sealed segments, and which members hold them, as they have told."""

    feature_level: int
    last: int
    """The number of the newest segment; 0: there is none."""
    lost: tuple[int, ...]
    """Those that were declared lost."""
    holdings: Mapping[NodeId, Holding]
    removed: int = 0
    """The last one that retention has removed; 0: none."""

    def lacking(self, node_id: NodeId) -> Ranges:
        """Return the segments that a member has not stored, without lost and removed ones."""
        holding = self.holdings.get(node_id, Holding())
        return holding.lacking(self.last, self.lost, removed=self.removed)

    def found(self, *, other_than: NodeId | None = None) -> Ranges:
        """Return the segments that were declared lost, and that a member has after all."""
        lost = subtract(ranges_of(self.lost), ((1, self.removed),))
        left = lost
        for node_id, holding in self.holdings.items():
            if node_id != other_than:
                left = subtract(left, holding.held)
        return subtract(lost, left)

    def missing(self, node_id: NodeId) -> Ranges:
        """Return what to show of a member; nothing before any member has told."""
        return self.lacking(node_id) if self.holdings else ()


async def overview(transaction: ReadTransaction) -> Overview:
    """Return the sealed segments and their holders."""
    last = await transaction.one("SELECT max(number) AS last FROM audit_segments")
    lost = await transaction.all("SELECT number FROM lost_segments ORDER BY number")
    rows = await transaction.all(
        "SELECT node_id, through, missing FROM segment_holders"
    )
    return Overview(
        feature_level=await cluster.feature_level(transaction),
        last=0 if last is None else int(last["last"] or 0),
        lost=tuple(row["number"] for row in lost),
        holdings={
            NodeId(row["node_id"]): Holding(
                through=row["through"], missing=gaps_in(row["missing"])
            )
            for row in rows
        },
        removed=(await segments.removed(transaction)).through,
    )
