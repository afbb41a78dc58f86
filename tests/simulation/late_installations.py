# SPDX-License-Identifier: Apache-2.0
"""
Installations that begin late: at a candidate, or with something left to apply.

A member that lacks what the leader has dropped has nothing to apply, and cannot win an
election. So an installation begins nearly always at a quiet follower. It is otherwise if
the member gets the entries after all, from a leader that does not know yet that they are
committed, and hears no more of that leader.

Dice alone hardly bring that about. So in some of the runs in which a machine keeps its
log, the last check of a snapshot takes a while. Meanwhile the leader falls, and the
keeper of the log loses power: it starts with a state that lacks what is committed, leads,
and sends the entries. Then it falls too, and the former leader comes back to vote.
"""

import enum
import random
from dataclasses import dataclass
from typing import Protocol

from sparecode_node.replication.snapshots.store import Manifest
from tests.simulation.installations import is_candidate
from tests.simulation.late_snapshots import LateSnapshots
from tests.simulation.machines import Node
from tests.simulation.memberships import Memberships
from tests.simulation.message_sizes import SMALL_WINDOW, MessageSizes
from tests.simulation.network import Network

RATE = 0.5
"""
Of the runs that begin with three machines, in which members are away for long and one
machine keeps its log. Where there are more, too much must happen at once.
"""

CHECK_MAX_S = 4.0
"""How long the last check of a snapshot takes at most."""

CUTS_MAX = 8
"""
How often the power of the keeper is cut, at most: a cut takes its state back by a few
entries, or by none.
"""

AT_ONCE = 0.7
"""How often the state is replaced in the moment in which entries are left to apply."""

VOTES_S = 0.05, 0.3
"""How long votes for a candidate wait."""

SLOW_S = 0.5, 1.5
"""How long installing takes: there is time for an election."""


class Moment(enum.Enum):
    """When an installation begins."""

    CANDIDATE = "as a candidate, whose votes are under way"
    BEHIND = "with entries left to apply"
    ALONE = "with all entries and without a leader: it could win"


MOMENTS = (Moment.CANDIDATE, Moment.ALONE, *3 * (Moment.BEHIND,))
"""One is drawn. `BEHIND` often does not come: then the next one is `CANDIDATE`."""


class World(Protocol):
    """The cluster."""

    now: float
    ids: list[str]
    nodes: dict[str, Node]
    network: Network
    memberships: Memberships
    sizes: MessageSizes

    def live(self) -> list[Node]: ...
    def crash(self, node: str, *, power: bool) -> None: ...
    def trace(self, now: float, seen: str) -> None: ...


@dataclass
class _Late:
    """An installation that begins late, on a node that was away."""

    node: Node
    life: int
    manifest: Manifest
    moment: Moment
    others: list[Node]
    """The leader, and as many more as are not needed for a quorum."""
    keeper: Node
    until: float
    cuts: int = 0
    """How often the power of the keeper was cut."""
    has_fallen: bool = False
    """Whether these others have fallen."""
    has_all: bool = False
    """Whether the node has got the entries, and the keeper has fallen."""
    votes_wait: bool = False
    """Whether votes for the node are held up, or were."""
    has_begun: bool = False
    """Whether the installation has begun, or was refused."""


class LateInstallations:
    """Lets installations begin in unusual moments, in some runs."""

    def __init__(self, world: World, dice: random.Random, late: LateSnapshots) -> None:
        """*dice*: of their own. Nothing happens before `begin`."""
        self._world = world
        self._dice = dice
        self._keeps = late
        self._late: _Late | None = None
        self.happen = False
        """In this run."""

    def begin(self, *, away: bool) -> None:
        """
        Choose, before any node starts, whether that happens in this run.

        *away*: whether members are away for long.
        """
        three = len(self._world.ids) == 3
        possible = three and away and bool(self._keeps.keeper)
        self.happen = possible and self._dice.random() < RATE

    @property
    def is_on(self) -> bool:
        """Whether other faults must wait."""
        return self._late is not None

    # --- What the member that installs asks

    def delay(self, node: Node, manifest: Manifest) -> bool:
        """Return whether the installation of a snapshot waits from now on."""
        world = self._world
        leaders = [each for each in world.live() if each.leads]
        if not self.happen or self._late is not None or len(leaders) != 1:
            return False
        leader, keeper = leaders[0], world.nodes[self._keeps.keeper]
        voters = [
            world.nodes[i] for i in sorted(world.memberships.configuration.voters)
        ]
        others = [each for each in voters if each not in (node, leader, keeper)]
        if len(others) != len(voters) - 3 or not all(v.is_up() for v in voters):
            return False
        too_many = len(voters) - (len(voters) // 2 + 1) - 1
        self._late = _Late(
            node=node,
            life=node.life,
            manifest=manifest,
            moment=self._dice.choice(MOMENTS),
            others=[leader, *self._dice.sample(others, too_many)],
            keeper=keeper,
            until=world.now + CHECK_MAX_S,
        )
        self._trace(
            f"{node.node_id} is to install {manifest.index} {self._late.moment.value}"
        )
        return True

    def waits(self, node: Node) -> bool:
        """Return whether an installation goes on waiting, in this tick."""
        late = self._late
        if late is None or late.node is not node or late.has_begun:
            return False
        late.has_begun = self._world.now > late.until or self._is_moment(late)
        return not late.has_begun

    def is_done_at_once(self, node: Node) -> bool | None:
        """Return whether the state is replaced at once; None: it does not begin late."""
        late = self._late
        if late is None or late.node is not node or not late.has_begun:
            return None
        return late.moment is Moment.BEHIND and self._dice.random() < AT_ONCE

    def takes_longer_s(self, node: Node) -> float | None:
        """Return how much longer installing takes; None: it does not begin late."""
        late = self._late
        if late is None or late.node is not node or not late.has_begun:
            return None
        return self._dice.uniform(*SLOW_S)

    def _is_moment(self, late: _Late) -> bool:
        engine = late.node.running.engine
        if late.manifest.index <= engine.raftCommitIndex:
            return True  # It will be refused.
        match late.moment:
            case Moment.CANDIDATE:
                return is_candidate(engine)
            case Moment.BEHIND:
                return engine.raftLastApplied < engine.raftCommitIndex
            case Moment.ALONE:
                return late.has_all

    # --- What happens meanwhile

    def act(self) -> None:
        """Go on, in each step."""
        late = self._late
        if late is None:
            return
        node = late.node
        is_gone = not node.is_up() or node.life != late.life
        if is_gone or (late.has_begun and not node.journal.is_held):
            self._release()
        elif not late.has_fallen:
            self._let_others_fall(late)
        elif late.has_all:
            self._hold_votes(late)
        elif not late.keeper.is_up():
            pass  # It starts.
        elif self._knows_too_much(late):
            self._set_back(late) if late.cuts < CUTS_MAX else self._release()
        elif late.keeper.leads and _has_all(node, of=late.keeper):
            self._let_keeper_fall(late)

    def end(self) -> None:
        """Let all machines come back, and no installation begin late any more."""
        self.happen = False
        self._release()

    def _release(self) -> None:
        late, self._late = self._late, None
        if late is None:
            return
        for each in (*late.others, late.keeper):
            if not each.is_up() and each.restart_at is None:
                each.restart_at = self._world.now

    def _let_others_fall(self, late: _Late) -> None:
        for each in late.others:
            self._world.crash(each.node_id, power=False)
            each.restart_at = None
        late.has_fallen = True

    def _knows_too_much(self, late: _Late) -> bool:
        """Return whether the keeper would tell at once that the snapshot is committed."""
        if late.moment is Moment.BEHIND and self._world.sizes.window == SMALL_WINDOW:
            return False  # It sends a few entries first, and says so of these alone.
        known = late.keeper.running.engine.raftCommitIndex
        return not late.keeper.leads and known >= late.manifest.index

    def _set_back(self, late: _Late) -> None:
        """Let the keeper start with a state that may lack what is committed."""
        late.cuts += 1
        self._world.crash(late.keeper.node_id, power=True)
        late.keeper.restart_at = self._world.now

    def _let_keeper_fall(self, late: _Late) -> None:
        """Let the others vote, and none of them lead: they lack the last entry."""
        self._world.crash(late.keeper.node_id, power=False)
        late.keeper.restart_at = None
        for each in late.others:
            each.restart_at = self._world.now
        late.has_all = True
        if late.moment is Moment.BEHIND:  # Nothing was left to apply.
            late.moment = Moment.CANDIDATE

    def _hold_votes(self, late: _Late) -> None:
        """Let the installation begin before a candidate has won."""
        if late.votes_wait or not is_candidate(late.node.running.engine):
            return
        late.votes_wait = True
        votes = {(each.node_id, late.node.node_id) for each in late.others}
        self._world.network.stall(votes, seconds=self._dice.uniform(*VOTES_S))

    def _trace(self, seen: str) -> None:
        self._world.trace(self._world.now, seen)


def _has_all(node: Node, *, of: Node) -> bool:
    """Return whether a machine has the entries of another one, and its term."""
    one, other = node.journal, of.journal
    return (one.last_index, one.last_term) == (other.last_index, other.last_term)
