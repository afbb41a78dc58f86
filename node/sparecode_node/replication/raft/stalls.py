# SPDX-License-Identifier: Apache-2.0
"""
Silence counts only while this node could hear.

A node that gets no processor time, waits for its disk, or whose event loop is held up
reads no messages. They wait, but PySyncObj looks at its deadlines before it reads them:
a follower would ask for an election, and a leader would step down, because of its own
lateness. Where a machine is too busy, or stood still, that happens to several members at
once, and then the pre-vote does not help: none of them has heard the leader.

So the time in which this node read nothing is taken out of every silence that it counts.
But a node that is hardly ever on time must elect a leader at last, as late as it is.
"""

from dataclasses import dataclass, field
from math import inf
from typing import Any, Protocol

from sparecode_node.replication.raft.campaign import Campaign
from sparecode_node.replication.settings import RaftSettings

FORGIVEN_MAX = 5
"""
At most this many times `election_max_s` are taken out of one silence, in more than one piece. One
long pause is always taken out as a whole.
"""


class Listener(Protocol):
    """The engine, as far as stalls know it."""

    _SyncObj__raftElectionDeadline: float
    _SyncObj__lastResponseTime: dict[Any, float]

    def is_leader(self) -> bool:
        """Return whether this node leads, as far as it knows."""


@dataclass(slots=True)
class Stalls:
    """Finds the times in which a node read nothing. Belongs to the engine's thread."""

    engine: Listener
    campaign: Campaign
    settings: RaftSettings
    _looked_at: float = field(default=inf)
    _heard_at: float = -inf
    """The campaign's, as this has left it: it has changed if a leader was heard."""
    _forgiven_s: float = 0.0
    """Since then."""

    def look(self, now: float, *, deaf: bool = False) -> None:
        """
        Take the time since the last look out of all silences, if nothing was read.

        Called before every tick. *deaf*: the event loop, which reads the messages, is
        held up.
        """
        since, self._looked_at = now - self._looked_at, now
        lost = since if deaf else since - self.settings.heartbeat_s
        if lost > 0:
            self._forgive(lost, now)

    def _forgive(self, lost: float, now: float) -> None:
        engine, settings = self.engine, self.settings
        if not engine.is_leader():
            self._forgive_leader(lost, now)
            return
        # It goes on leading, but takes no proposals before it has heard a quorum:
        # another node may lead by now, if this one stood still and the others did not.
        latest = now - max(
            settings.step_down_s - settings.election_min_s,
            settings.contact_s + settings.tick_s,
        )
        heard = engine._SyncObj__lastResponseTime
        for node, at in heard.items():
            heard[node] = max(at, min(at + lost, latest))

    def _forgive_leader(self, lost: float, now: float) -> None:
        """
        Wait longer for a leader, but no longer than if it had been heard just now.

        A message that waited for a slow sync is read in the tick that was slow: it has
        reset both times before this looks at them.
        """
        campaign, engine = self.campaign, self.engine
        if campaign.heard_at != self._heard_at:
            self._forgiven_s = 0.0
        if self._forgiven_s < FORGIVEN_MAX * self.settings.election_max_s:
            deadline = engine._SyncObj__raftElectionDeadline
            latest = now + self.settings.election_max_s
            engine._SyncObj__raftElectionDeadline = max(
                deadline, min(deadline + lost, latest)
            )
            campaign.heard_at = max(
                campaign.heard_at, min(campaign.heard_at + lost, now)
            )
            self._forgiven_s += lost
        self._heard_at = campaign.heard_at
