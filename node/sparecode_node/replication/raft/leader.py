# SPDX-License-Identifier: Apache-2.0
"""
The engine as the parts of a leader see it. `engine.Engine` decides whether it leads.

A protocol, because these parts are built before the engine is complete.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

from sparecode_node.replication.members import Configuration
from sparecode_node.replication.raft.frames import Message


class Leader(Protocol):
    """An engine that leads, or led a moment ago. `engine.Engine` implements it."""

    @property
    def raftCurrentTerm(self) -> int:
        """The term in which it leads."""

    @property
    def raftCommitIndex(self) -> int:
        """Index up to which everything is committed, as far as this node knows."""

    @property
    def raftLastApplied(self) -> int:
        """Index of the last entry that is applied here."""

    def is_leader(self) -> bool:
        """Return whether this node leads."""

    def knows_commit_index(self) -> bool:
        """Return whether this leader has committed an entry of its own term."""

    def is_handing_over(self) -> bool:
        """Return whether this leader takes no proposals because it hands over."""

    # --- Followers

    def voters(self) -> frozenset[str]:
        """Return the other nodes that may lead."""

    def voters_in_contact(self) -> Mapping[str, int]:
        """Return the voters heard recently, each with its last index on disk."""

    def linked_followers(self) -> Sequence[str]:
        """Return the followers that messages reach, in order."""

    def next_index(self, follower: str) -> int:
        """Return the first index that was not sent to a follower yet."""

    def set_next_index(self, follower: str, index: int) -> None:
        """Record the first index that was not sent to a follower yet."""

    def acknowledged(self, follower: str) -> int:
        """Return the index where the window of a follower begins."""

    # --- Acting

    def send(self, follower: str, message: Message) -> None:
        """Send a message through the guard."""

    def append_configuration(self, configuration: Configuration) -> int:
        """Append an entry with the new members; return its index."""
