# SPDX-License-Identifier: Apache-2.0
"""Commands on sealed segments of the audit log: which members hold them, and losses."""

from dataclasses import dataclass

from sparecode_node.domain.ids import NodeId


@dataclass(frozen=True, slots=True, kw_only=True)
class NoteSegments:
    """Record which sealed segments a member has stored and proved, as it tells (U1)."""

    node_id: NodeId
    through: int
    """The newest one; 0: none."""
    missing: tuple[int, ...] = ()
    """Gaps before it: the first and last number of each, ascending."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeclareSegmentsLost:
    """Declare that no member has some sealed segments of the audit log any more (U1)."""

    first: int
    last: int
    reason: str
    destroyed: tuple[NodeId, ...] = ()
    """Members that have told that they hold them, and that will not come back."""
