# SPDX-License-Identifier: Apache-2.0
"""The members, and what this node has heard of each."""

from collections.abc import Callable, Collection
from dataclasses import dataclass

from sparecode_node.replication.log.journal import Journal
from sparecode_node.replication.raft.guard import Guard
from sparecode_node.replication.raft.rollback import Hello


@dataclass(frozen=True, slots=True)
class Roster:
    """The members of one node's cluster. Belongs to the engine's thread."""

    guard: Guard
    journal: Journal
    own: Hello
    """What this node shows when a link begins."""
    contact_s: float
    """A member that was silent for longer is not in contact."""
    now: Callable[[], float]
    """The engine's clock."""

    @property
    def me(self) -> str:
        """This node."""
        return self.journal.identity.node_id

    def others(self) -> list[str]:
        """Return all members but this node, learners too, in order."""
        return [m for m in self.journal.configuration.ids if m != self.me]

    def links_quorum(self, linked: Collection[str]) -> bool:
        """Return whether this node and the voters among *linked* are a quorum."""
        voters = self.guard.campaign.voters()
        return 2 * (len(voters.intersection(linked)) + 1) > len(voters) + 1

    def hello(self, member: str) -> Hello | None:
        """Return what a member has shown, this node included."""
        if member == self.me:
            return self.own
        return self.guard.admission.hello(member)

    def match_index(self, member: str) -> int:
        """Return the last index that a member has on disk, as this leader knows."""
        return self.guard.progress(member).acked

    def in_contact(self, member: str) -> bool:
        """Return whether a member has answered this leader recently."""
        return self.guard.progress(member).heard_at >= self.now() - self.contact_s
