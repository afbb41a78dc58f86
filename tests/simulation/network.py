# SPDX-License-Identifier: Apache-2.0
"""Connections between nodes: slow, cut, one-way cut, reset, and worse than promised."""

import enum
import random
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Protocol

from sparecode_node.replication.raft import frames
from sparecode_node.replication.raft.frames import Message
from sparecode_node.replication.raft.rollback import Hello
from tests.simulation.cuts import Cuts
from tests.simulation.fault_effects import Effect, Effects
from tests.simulation.overtaken import OvertakenHellos

STEP_S = 0.02
"""How far the clock moves between two looks at what is due."""

LATE_S = 0.05


class Manners(enum.Enum):
    """The treatment of the messages of a connection."""

    FIFO = "in order, or lost with their connection"
    ZOMBIES = "messages of an old connection may arrive during a new one"
    CHAOS = "and any message twice, or out of order"


class Endpoint(Protocol):
    """A node, as the network sees it."""

    def is_up(self) -> bool: ...
    def is_paused(self) -> bool: ...
    def hello(self) -> Hello: ...
    def connected(self, peer: str, hello: Hello, answer: Hello) -> None:
        """
        Learn that messages arrive from *peer* and reach it.

        It shows *hello* on its own link, and *answer* on that of this node, which its
        messages may have overtaken.
        """

    def disconnected(self, peer: str) -> None: ...
    def receive(self, peer: str, message: Message, hello: Hello) -> None: ...


@dataclass(frozen=True)
class Parcel:
    """A message under way."""

    due: float
    data: bytes
    epoch: int
    """Of the connection that it was sent on."""
    hello: Hello
    """The hello of the sender when that connection began."""
    number: int
    """The place among all messages that were sent."""
    stalled: bool = False
    """It could have arrived, but everything stood still."""


class Network:
    """Every message goes through its bytes, as in production."""

    def __init__(
        self,
        ids: Iterable[str],
        rng: random.Random,
        manners: Manners,
        effects: Effects | None = None,
    ) -> None:
        self.ids = list(ids)
        self.effects = Effects() if effects is None else effects
        self.rng = rng
        self.manners = manners
        self.now = 0.0
        self.hiccups = 0.03
        """How often a message takes long on a good day."""
        self.repeats = 0.02
        """How often a message arrives twice, if any does."""
        self.slowness = 0.0
        """And how much more often now."""
        self.nodes: dict[str, Endpoint] = {}
        self.blocked: set[tuple[str, str]] = set()
        """Directions in which nothing arrives."""
        self.cuts = Cuts(lambda effect: self.effects.update([effect]))
        self.stalled: set[tuple[str, str]] = set()
        """Directions in which everything waits, and comes at once in the end."""
        self.overtaken = OvertakenHellos()
        self._sent = 0
        self._arrived: dict[tuple[str, str], int] = {}
        self._parcels: defaultdict[tuple[str, str], list[Parcel]] = defaultdict(list)
        self._up: set[frozenset[str]] = set()
        self._seen_up: set[tuple[str, str]] = set()
        self._epochs: defaultdict[frozenset[str], int] = defaultdict(int)
        self._events: list[tuple[float, int, Callable[[], object]]] = []
        self._event_count = 0

    def at(self, delay: float, event: Callable[[], object]) -> None:
        """Schedule an event."""
        self._event_count += 1
        self._events.append((self.now + delay, self._event_count, event))

    # --- Connections

    def send(self, source: str, target: str, message: Message) -> None:
        """Take a message, unless the sender knows that it is not connected."""
        if (source, target) not in self._seen_up:
            return
        pair = frozenset((source, target))
        if pair not in self._up:
            self.effects[Effect.MESSAGE_LOST] += 1
            if (source, target) in self.blocked:
                self.cuts.keep_back((source, target))
            return  # Cut, and not noticed yet.
        delay = self.rng.uniform(0.001, 0.02)
        if self.rng.random() < self.hiccups + self.slowness:
            delay += self.rng.uniform(LATE_S, 0.6)
            self.effects[Effect.MESSAGE_LATE] += 1
        due = self.now + delay
        queue = self._parcels[source, target]
        if queue and self.manners is not Manners.CHAOS:
            due = max(due, queue[-1].due)
        data = frames.encode(message).SerializeToString()
        self._sent += 1
        hello = self.nodes[source].hello()
        self.overtaken.note(source, hello, self._sent, self.now)
        parcel = Parcel(due, data, self._epochs[pair], hello, self._sent)
        queue.append(parcel)
        if self.manners is Manners.CHAOS and self.rng.random() < self.repeats:
            self.effects[Effect.MESSAGE_TWICE] += 1
            queue.append(replace(parcel, due=due + self.rng.uniform(0, 0.5)))

    def reset(self, a: str, b: str) -> None:
        """End the connection; each side notices in its own time."""
        pair = frozenset((a, b))
        if pair not in self._up:
            return
        self._up.discard(pair)
        epoch = self._epochs[pair]
        for direction in ((a, b), (b, a)):
            queue = self._parcels[direction]
            survivors = queue[: self.rng.randint(0, len(queue))]
            if self.manners is Manners.FIFO or self.rng.random() < 0.5:
                survivors = []
            gone = len(queue) - len(survivors)
            if gone and direction in self.blocked:
                self.cuts.keep_back(direction)
            self.effects[
                Effect.MESSAGE_CUT if direction in self.blocked else Effect.MESSAGE_LOST
            ] += gone
            late = self.rng.uniform(0, 0.8)
            self._parcels[direction] = [replace(p, due=p.due + late) for p in survivors]
            self.at(
                self.rng.choice([0, 0.02, self.rng.uniform(0, 0.5)]),
                lambda at=direction[0], peer=direction[1]: self._notice_down(
                    at, peer, epoch
                ),
            )
        self.at(
            self.rng.choice([0.01, self.rng.uniform(0, 0.4)]),
            lambda: self.connect(a, b),
        )

    def _notice_down(self, at: str, peer: str, epoch: int) -> None:
        pair = frozenset((at, peer))
        if self._epochs[pair] == epoch and pair not in self._up:
            self._see(at, peer, up=False)

    def _see(self, at: str, peer: str, *, up: bool) -> None:
        if up == ((at, peer) in self._seen_up):
            return
        (self._seen_up.add if up else self._seen_up.discard)((at, peer))
        if self.nodes[at].is_up():
            if up:
                hello = self.nodes[peer].hello()
                arrived = self._arrived.get((peer, at), 0)
                answer = self.overtaken.answer(peer, hello, arrived, self.now)
                self.effects[Effect.HELLO_OVERTAKEN] += answer != hello
                self.nodes[at].connected(peer, hello, answer)
            else:
                self.nodes[at].disconnected(peer)

    def connect(self, a: str, b: str) -> None:
        """Connect two nodes, or try again later."""
        pair = frozenset((a, b))
        if pair in self._up or not (self.nodes[a].is_up() and self.nodes[b].is_up()):
            return
        cut = {(a, b), (b, a)} & self.blocked
        if cut or self.nodes[a].is_paused() or self.nodes[b].is_paused():
            self.at(0.1, lambda: self.connect(a, b))
            return
        self._epochs[pair] += 1
        self._up.add(pair)
        for at, peer in ((a, b), (b, a)):
            if self.manners is Manners.FIFO:
                self._parcels[at, peer] = []
            self._see(at, peer, up=False)
            if self.nodes[peer].is_up():  # It may be killed as it learns of the link.
                self._see(at, peer, up=True)

    def node_started(self, node: str) -> None:
        """Dial from and to a node that has started."""
        for peer in self.ids:
            if peer != node:
                self._parcels[node, peer] = []
                self._seen_up.discard((node, peer))
                self._up.discard(frozenset((node, peer)))
                self.connect(node, peer)

    def node_stopped(self, node: str) -> None:
        """End all connections of a node that is gone."""
        for peer in self.ids:
            if peer == node:
                continue
            pair = frozenset((node, peer))
            self._up.discard(pair)
            self._seen_up.discard((node, peer))
            self._parcels[peer, node] = []
            epoch = self._epochs[pair]
            self.at(
                self.rng.choice([0, 0.01, 0.3]),
                lambda p=peer, e=epoch: self._notice_down(p, node, e),
            )

    # --- Time

    def advance(self, now: float) -> None:
        """Let happen and arrive what is due."""
        self.now = now
        due = sorted(e for e in self._events if e[0] <= now)
        self._events = [e for e in self._events if e[0] > now]
        for _, _, event in due:
            event()
        for (source, target), queue in list(self._parcels.items()):
            if (source, target) in self.blocked and any(p.due <= now for p in queue):
                self.cuts.keep_back((source, target))
            if not queue or (source, target) in self.blocked:
                continue
            if (source, target) in self.stalled:
                self._parcels[source, target] = [
                    replace(p, stalled=p.stalled or p.due <= now) for p in queue
                ]
                continue
            if self.nodes[target].is_paused():
                # Counted once for each message: when it becomes due.
                self.effects[Effect.MESSAGE_KEPT_WAITING] += sum(
                    now - STEP_S < p.due <= now for p in queue
                )
                continue
            self._deliver(source, target)

    def _deliver(self, source: str, target: str) -> None:
        queue = self._parcels[source, target]
        if self.manners is Manners.CHAOS:
            ready = [p for p in queue if p.due <= self.now]
            self.rng.shuffle(ready)
            self._parcels[source, target] = [p for p in queue if p.due > self.now]
        else:
            count = 0
            while count < len(queue) and queue[count].due <= self.now:
                count += 1
            ready, self._parcels[source, target] = queue[:count], queue[count:]
        for parcel in ready:
            if self.nodes[target].is_up():
                self._note(source, target, parcel)
                message = frames.parse(parcel.data)
                self.nodes[target].receive(source, message, parcel.hello)

    def _note(self, source: str, target: str, parcel: Parcel) -> None:
        """Count what is odd about a message that arrives."""
        last = self._arrived.get((source, target), 0)
        self._arrived[source, target] = max(last, parcel.number)
        epoch = self._epochs[frozenset((source, target))]
        self.effects[Effect.MESSAGE_REORDERED] += parcel.number < last
        self.effects[Effect.MESSAGE_OF_OLD_LINK] += parcel.epoch < epoch
        self.effects[Effect.MESSAGE_BURST] += parcel.stalled

    # --- Partitions

    def cut(
        self,
        pairs: set[tuple[str, str]],
        *,
        seconds: float,
        notice: float,
        effect: Effect | None = None,
    ) -> None:
        """
        Block directions for a while; their connections die after *notice*.

        *effect* is counted when that keeps a message back.
        """
        self.blocked |= pairs
        if effect is not None:
            self.cuts.begin(pairs, effect)
            self.at(seconds, lambda: self.cuts.end(pairs))
        self.at(
            notice, lambda: [self.reset(a, b) for a, b in sorted(pairs & self.blocked)]
        )
        self.at(seconds, lambda: self.blocked.difference_update(pairs))

    def stall(self, pairs: set[tuple[str, str]], *, seconds: float) -> None:
        """Hold everything back for a while; connections live on."""
        self.stalled |= pairs
        self.at(seconds, lambda: self.stalled.difference_update(pairs))

    def heal(self) -> None:
        """Behave from now on, and connect everybody."""
        self.cuts.end(self.blocked)
        self.blocked.clear()
        self.stalled.clear()
        self.slowness = 0.0
        self.manners = Manners.FIFO
        for a in self.ids:
            for b in self.ids:
                if a < b:
                    self.connect(a, b)
