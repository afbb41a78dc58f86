# SPDX-License-Identifier: Apache-2.0
"""The members, as the engine of a leader knows them: `membership.Leader`."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from sparecode_node.replication.log.journal import CONFIGURATION, Journal
from sparecode_node.replication.members import Configuration
from sparecode_node.replication.raft.admission import Hello
from sparecode_node.replication.raft.guard import Guard
from sparecode_node.replication.raft.handover import HandOver
from sparecode_node.replication.settings import RaftSettings


class Engine(Protocol):
    """What is needed of it."""

    guard: Guard
    hand_over: HandOver
    settings: RaftSettings

    @property
    def raftCurrentTerm(self) -> int:
        """Its term."""

    @property
    def raftCommitIndex(self) -> int:
        """Its commit index."""

    def is_leader(self) -> bool:
        """Say whether it leads."""

    def knows_commit_index(self) -> bool:
        """Say whether it has committed an entry of its own term."""


@dataclass(slots=True)
class Roster:
    """Belongs to the engine's thread."""

    engine: Engine
    journal: Journal
    own: Hello
    """What this node says of itself."""
    now: Callable[[], float]
    """The engine's clock."""

    @property
    def me(self) -> str:
        """This node."""
        return self.journal.identity.node_id

    def others(self) -> list[str]:
        """Return all members but this node, learners too, in order."""
        return [m for m in self.journal.configuration.ids if m != self.me]

    def links_quorum(self) -> bool:
        """Say whether a majority of the voters, with this one, is linked."""
        guard = self.engine.guard
        voters = guard.campaign.voters()
        linked = sum(guard.admission.is_linked(voter) for voter in voters)
        return 2 * (linked + 1) > len(voters) + 1

    def is_leader(self) -> bool:
        """Say whether this node leads."""
        return self.engine.is_leader()

    def knows_commit_index(self) -> bool:
        """Say whether this leader has committed an entry of its own term."""
        return self.engine.knows_commit_index()

    def commit_index(self) -> int:
        """Return up to where everything is committed, as far as this node knows."""
        return self.engine.raftCommitIndex

    def is_handing_over(self) -> bool:
        """Say whether this leader takes nothing new."""
        return self.engine.hand_over.is_under_way

    def hello(self, member: str) -> Hello | None:
        """Return what a member has said of itself, this node too."""
        if member == self.me:
            return self.own
        return self.engine.guard.admission.heard(member)

    def match_index(self, member: str) -> int:
        """Return up to where a member has everything on disk, as a leader knows it."""
        return self.engine.guard.progress(member).acked

    def in_contact(self, member: str) -> bool:
        """Say whether a member has answered this leader lately."""
        heard_at = self.engine.guard.progress(member).heard_at
        return heard_at >= self.now() - self.engine.settings.contact_s

    def append_configuration(self, configuration: Configuration) -> int:
        """Append who the members are from now on, as a leader; return where."""
        index = self.journal.last_index + 1
        command = CONFIGURATION + configuration.to_bytes()
        self.journal.add(command, index, self.engine.raftCurrentTerm)
        return index
