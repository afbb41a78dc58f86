# SPDX-License-Identifier: Apache-2.0
"""
Rotations of the cluster's key while everything else goes wrong too.

An administrator activates another key. The product's `Resealer` runs on every node, and
on the primary replaces the seals of all values, batch by batch. It retires a key that
nothing is sealed with any more. What is not here: how members get the keys.
"""

import asyncio
import contextlib
import random
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol
from unittest import mock

from sparecode_node.domain.ids import NO_KEY, KeyId, NodeId
from sparecode_node.queries import seals
from sparecode_node.queries.seals import StoredSeal
from sparecode_node.replication.replicator import Proposal
from sparecode_node.services.ambient import SystemEntropy
from sparecode_node.services.keys import resealing
from sparecode_node.services.keys.resealing import Resealer, new_seals
from sparecode_node.services.load.pacing import Pace
from sparecode_node.services.secrets.keyring import UnknownKeyError
from sparecode_node.services.secrets.sealing import BrokenSealError
from sparecode_node.statemachine.commands.keys import ActivateKey
from sparecode_node.statemachine.results import Result
from tests.simulation.committed_state import CommittedState
from tests.simulation.comparisons import Comparison
from tests.simulation.invariants import Invariants, Submission
from tests.simulation.machines import Node
from tests.simulation.network import STEP_S
from tests.simulation.seals import MarkedSealing, sealed_with
from tests.simulation.sqlite_store import SqliteStore

SHARE = 0.25
"""Of the runs in which keys are rotated."""
RATES = (0.02, 0.06)
"""Of rotations, in a step."""
LOOK_S = 0.1
"""Between two searches for seals to replace: half a second in production."""
ROWS_MAX = 4
"""Of values in a batch: a run has some thirty. A hundred in production."""
RACES = 0.4
"""How often codes are saved under a key that is being retired."""
END_S = 60.0
"""For a cluster without faults to retire each key that is due; there may be twenty."""


class World(Protocol):
    """The cluster."""

    trace: Any

    @property
    def now(self) -> float: ...
    @property
    def invariants(self) -> Invariants: ...
    def live(self) -> list[Any]: ...
    def activate_key(self, node: Any, command: ActivateKey) -> object: ...
    def spawn_on(self, node: Any, work: Coroutine[Any, Any, None]) -> object: ...
    def replicator_of(self, node: Any) -> Any: ...
    def clock_of(self, node: Any) -> Any: ...


class RandomEntropy(SystemEntropy):
    """Draws from the dice of a run."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng

    def token_bytes(self, size: int) -> bytes:
        return self._rng.randbytes(size)

    def uuid(self) -> str:
        return self._rng.randbytes(16).hex()


@dataclass
class Rotations:
    """Rotates keys, and looks at what is sealed with them."""

    world: World
    rng: random.Random
    rate: float
    keys: int = 0
    """The number of rotations that were asked for."""
    _lives: dict[str, int] = field(default_factory=dict)
    _states: dict[str, CommittedState] = field(default_factory=dict)
    _retired: dict[str, set[KeyId]] = field(default_factory=dict)

    @classmethod
    def drawn(cls, world: World, rng: random.Random) -> "Rotations | None":
        """Return those of a run, or None: it has none."""
        return cls(world, rng, rng.choice(RATES)) if rng.random() < SHARE else None

    @contextlib.contextmanager
    def at_work(self) -> Iterator[None]:
        """Let the resealers search more often, and take less at a time."""
        with (
            mock.patch.object(resealing, "LOOK_S", LOOK_S),
            mock.patch.object(resealing, "ROWS_MAX", ROWS_MAX),
        ):
            try:
                yield
            finally:
                for state in self._states.values():
                    state.close()

    # --- Rotating

    def act(self) -> None:
        """Let an administrator activate another key, on a node that leads."""
        up = [node for node in self.world.live() if not node.is_paused()]
        leading = [node for node in up if node.leads]
        if self.rng.random() >= self.rate or not leading:
            return
        node = self.rng.choice(leading)
        keys = _store(node).keys()
        if not keys.active:
            return
        self.keys += 1
        command = ActivateKey(
            fingerprint=b"drawn %d" % self.keys,
            replaces=keys.active,
            at_once=True,
            keep_old_key=False,
        )
        self.world.activate_key(node, command)

    def races(self) -> bool:
        """Return whether codes of an older draft are saved while a key is retired."""
        return self.rng.random() < RACES

    def look(self) -> None:
        """Start the resealers of new processes; look at keys that were retired."""
        for node in self.world.live():
            if self._lives.get(node.node_id) != node.life:
                self._lives[node.node_id] = node.life
                self.world.spawn_on(node, self._resealer(node).run())
            retired = {each.key_id for each in _store(node).keys().retired}
            if retired != self._retired.get(node.node_id):
                self._retired[node.node_id] = retired
                self.check_retired(node)

    def _resealer(self, node: Node) -> Resealer:
        store = _store(node)
        if old := self._states.pop(node.node_id, None):
            old.close()
        state = self._states[node.node_id] = CommittedState(store)
        clock = self.world.clock_of(node)
        return Resealer(
            replicator=self.world.replicator_of(node),
            state=state,  # type: ignore[arg-type]
            sealing=MarkedSealing(store.keys),
            clock=clock,
            entropy=RandomEntropy(self.rng),
            pace=Pace(clock),
        )

    # --- Looking

    def check_retired(self, node: Node) -> None:
        """See that nothing is sealed with a retired key on a machine (P5)."""
        retired = [each.key_id for each in _store(node).keys().retired]
        check_unused(self.world.invariants, node, retired)

    def retired_on(self, node: Node) -> int:
        """Return how many keys are retired on a machine."""
        return len(_store(node).keys().retired)

    def all_retired(self, node: Node) -> bool:
        """Return whether no key is aging that may be retired by now."""
        now_ms = int(node.wall_s() * 1000)
        return not any(
            key.retire_at_ms is not None and key.retire_at_ms <= now_ms
            for key in _store(node).keys().aging
        )

    def check(self, nodes: list[Any]) -> None:
        """When all is over: keys that were due are retired, and all values open."""
        for node in nodes:
            if not self.all_retired(node):
                seen = f"{node.node_id}: {_store(node).keys()}"
                self.world.invariants.violated("rotations end", seen)
            self.check_retired(node)
            check_opens(self.world.invariants, node)


def check_unused(invariants: Invariants, node: Node, retired: list[KeyId]) -> None:
    """See that nothing is sealed with any of these keys, which are gone."""
    store = _store(node)
    invariants.comparisons[Comparison.RETIRED] += len(retired)
    if retired and (seen := sealed_with(store.db, retired)):
        invariants.violated("no retired key used", f"{node.node_id}: {seen}")


def check_opens(invariants: Invariants, node: Node) -> None:
    """See that every sealed value of a machine opens with the key that its row names."""
    store = _store(node)
    sealing = MarkedSealing(store.keys)
    with contextlib.closing(CommittedState(store)) as state:
        stored = _result(_every_seal(state))
    for seal in stored:
        invariants.comparisons[Comparison.OPENED] += 1
        try:
            new_seals(sealing, seal, sealing_key(store))
        except (BrokenSealError, UnknownKeyError) as error:
            invariants.violated("seals open", f"{node.node_id}: {seal}: {error}")


def sealing_key(store: SqliteStore) -> KeyId:
    return store.keys().active


async def _every_seal(state: CommittedState) -> list[StoredSeal]:
    async with state.transaction() as transaction:
        return await seals.to_replace(transaction, NO_KEY, most=1_000_000)


def _result(work: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine that waits for nothing."""
    try:
        work.send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError("it waits")


def _store(node: Node) -> SqliteStore:
    assert isinstance(node.store, SqliteStore)
    return node.store


@dataclass
class EngineClock:
    """The clocks of a machine of which only the engine and the keeper run."""

    node: Node
    time: Callable[[], float]

    def now_ms(self) -> int:
        return int(self.node.wall_s() * 1000)

    def monotonic_s(self) -> float:
        return self.time()


@dataclass
class EngineReplicator:
    """The replicator of such a machine, as background work uses it."""

    node: Node
    submit: Callable[[Proposal], Submission]

    @property
    def node_id(self) -> NodeId:
        return NodeId(self.node.node_id)

    @property
    def primary(self) -> NodeId | None:
        return self.node_id if self.node.is_up() and self.node.leads else None

    async def propose(self, proposal: Proposal, *, timeout_s: float) -> Result:
        """Propose once, on this node."""
        assert timeout_s > 0
        submission = self.submit(proposal)
        while not submission.outcomes:  # noqa: ASYNC110 - no event tells it.
            await asyncio.sleep(STEP_S)
        outcome = submission.outcomes[0]
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome
