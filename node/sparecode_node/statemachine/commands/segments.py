# SPDX-License-Identifier: Apache-2.0
"""Commands on sealed segments of the audit log: holders, losses, archives, removal."""

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


@dataclass(frozen=True, slots=True, kw_only=True)
class NoteArchive:
    """Record which sealed segments a member has archived and read back, as it tells (U2)."""

    node_id: NodeId
    place: str
    """The folder, as the node's configuration names it."""
    through: int
    """The newest one; 0: none."""
    missing: tuple[int, ...] = ()
    """Gaps before it: the first and last number of each, ascending."""
    hash_after: bytes = b""
    """Of the chain, after the newest one: an archive of another history is refused."""
    folder: str = ""
    """The id in the folder: members that share one have one copy. Empty: none is told."""
    folder_changes: int = 0
    """How many changes of ids the member's state had when the member read this one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfirmArchive:
    """Record that an administrator has a proved copy of some sealed segments (U2)."""

    first: int
    last: int
    hash_before: bytes
    hash_after: bytes
    place: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WithdrawArchive:
    """Record that an administrator's copy of sealed segments is damaged or lost (U4)."""

    administrator: str
    """Who has confirmed it; not necessarily the caller."""
    first: int
    """0, as *last*: all that the administrator has confirmed."""
    last: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveSegments:
    """Remove archived segments that are older than the policy's retention (U4)."""

    through: int
    """All segments up to this one."""
    hash_after: bytes
    """Of the chain, after its last event."""
