# SPDX-License-Identifier: Apache-2.0
"""
Notices in the simulated cluster: the real lanes of every node, and unreliable receivers.

Each process has an event loop of its own, under the simulated clock. A killed process
takes no further step: what it has sent and not acknowledged is for the next primary.
"""

import asyncio
import contextlib
import random
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import tenacity

from sparecode_node.domain.audit import AuditEvent
from sparecode_node.domain.ids import NodeId
from sparecode_node.domain.notices import Channel, ChannelKind, EventClass
from sparecode_node.queries.notices import StoredNotice
from sparecode_node.replication.raft.proposals import Outcome
from sparecode_node.replication.replicator import Proposal
from sparecode_node.services.ambient import SystemEntropy
from sparecode_node.services.notices import delivery, streams, waits
from sparecode_node.services.notices.delivery import Delivery
from sparecode_node.services.notices.delivery_counts import DeliveryCounts
from sparecode_node.services.notices.outcomes import Attempt, Exchange
from sparecode_node.services.notices.outcomes import Outcome as Sent
from sparecode_node.statemachine import outbox
from sparecode_node.statemachine.commands.notices import SaveChannel
from sparecode_node.statemachine.results import BarrierPassed, Result
from tests.simulation.codes import CodesCluster
from tests.simulation.committed_state import CommittedState
from tests.simulation.invariants import Submission
from tests.simulation.keepers import whose_loop_runs
from tests.simulation.machines import Node
from tests.simulation.network import STEP_S
from tests.simulation.nodes.loops import NodeLoop, Timeline
from tests.simulation.outbox_rules import OutboxRules
from tests.simulation.people import KEY, call_of
from tests.simulation.scenarios import Scenario
from tests.simulation.work import machine_store

KEPT_MAX = 24
"""Notices of a channel: few, so that a run fills it."""
DROPS_TOLD_MS = 500
DRAIN_S = 40.0
"""For a cluster without faults to deliver everything to receivers without faults."""
ALL = tuple(each.value for each in EventClass)
WEBHOOKS = {"all": ALL, "few": (EventClass.EMERGENCY.value, EventClass.SESSIONS.value)}
STREAM = "stream"


class Receivers:
    """All receivers: slow, down for a while, refusing, or with lost answers."""

    def __init__(self, rng: random.Random, rules: OutboxRules) -> None:
        self._rng = rng
        self._rules = rules
        self.healthy = False
        self._down_until = 0.0

    async def take(self, channel: str, now: float, arrive: Any) -> Sent:
        """Let one request arrive, or not, and answer it, or not."""
        await asyncio.sleep(self._rng.choice([0.002, 0.02, 0.2]))
        dice = 1.0 if self.healthy else self._rng.random()
        if dice < 0.02:
            self._down_until = now + self._rng.uniform(0.2, 2.0)
        if dice < 0.08 or (now < self._down_until and not self.healthy):
            return Sent.UNREACHABLE
        if dice < 0.14:
            return Sent.REFUSED
        arrive()
        await asyncio.sleep(self._rng.choice([0.002, 0.02, 0.2]))
        return Sent.UNREACHABLE if dice < 0.22 else Sent.DELIVERED


class WebhookReceiver:
    """Sends notices of one channel to the receivers."""

    def __init__(self, cluster: "OutboxCluster", channel: str) -> None:
        self._cluster = cluster
        self._channel = channel

    async def send(self, notice: StoredNotice, now_ms: int) -> Attempt:
        """Send one notice."""
        del now_ms
        rules = self._cluster.rules
        outcome = await self._cluster.receivers.take(
            self._channel,
            self._cluster.now,
            lambda: rules.on_notice(self._channel, notice.notice_id, notice.event),
        )
        if outcome is Sent.REFUSED:
            rules.on_refused(self._channel, notice.notice_id)
        return Attempt(outcome, "simulated")

    async def exchange(self, notice: StoredNotice, now_ms: int) -> Exchange:
        """Do not: no one tests a channel here."""
        raise NotImplementedError

    async def close(self) -> None:
        """Do nothing: there is no connection."""


class StreamReceiver:
    """Sends events to a collector."""

    def __init__(self, cluster: "OutboxCluster", channel: str) -> None:
        self._cluster = cluster
        self._channel = channel

    async def resume(self) -> int | None:
        """Return None: the state knows it."""
        return None

    async def send_all(self, events: Sequence[AuditEvent]) -> Attempt:
        """Send events; some may arrive though the answer is a failure."""
        rules = self._cluster.rules
        outcome = await self._cluster.receivers.take(
            self._channel,
            self._cluster.now,
            lambda: rules.on_events(self._channel, events),
        )
        outcome = Sent.UNREACHABLE if outcome is Sent.REFUSED else outcome
        return Attempt(outcome, "simulated")

    async def exchange(self, notice: StoredNotice, now_ms: int) -> Exchange:
        """Do not: no one tests a channel here."""
        raise NotImplementedError

    async def close(self) -> None:
        """Do nothing: there is no connection."""


class _Process:
    """The deliveries of one life of a node: its loop, clock, and way to propose."""

    def __init__(self, cluster: "OutboxCluster", node: Node) -> None:
        self.cluster = cluster
        self.node = node
        self.state = CommittedState(machine_store(node))
        self.loop = NodeLoop(
            cluster.timeline,
            cluster.dice,
            rate=1.0,
            run_beside=lambda work: work() or 0.0,
            on_error=lambda seen: cluster.invariants.violated("no exception", seen),
        )
        work = Delivery(
            replicator=self,  # type: ignore[arg-type]
            state=self.state,  # type: ignore[arg-type]
            seals=None,  # type: ignore[arg-type]
            clock=self,
            entropy=SystemEntropy(),
            counts=DeliveryCounts(),
        )
        self.loop.create_task(work.run())

    def end(self) -> None:
        """Take no further step, as a process that was killed."""
        self.loop.kill()
        self.state.close()

    # --- The clock of the lanes

    def now_ms(self) -> int:
        return int(self.node.wall_s() * 1000)

    def monotonic_s(self) -> float:
        return self.loop.time()

    # --- The replicator of the lanes

    @property
    def node_id(self) -> NodeId:
        return NodeId(self.node.node_id)

    @property
    def primary(self) -> NodeId | None:
        return self.node_id if self.node.is_up() and self.node.leads else None

    @property
    def led_term(self) -> int | None:
        return None if self.primary is None else self.node.term

    async def read_barrier(self, *, timeout_s: float) -> BarrierPassed:
        """Wait until this node has applied what was committed before."""
        assert timeout_s > 0
        read = self.cluster.read(self.node)
        while not read.outcomes:  # noqa: ASYNC110 - no event tells it.
            await asyncio.sleep(STEP_S)
        outcome = read.outcomes[0]
        if isinstance(outcome, BaseException):
            raise outcome
        while machine_store(self.node).applied_index < outcome.index:  # noqa: ASYNC110
            await asyncio.sleep(STEP_S)
        return BarrierPassed(index=outcome.index, at_ms=outcome.state_ms)

    async def propose(self, proposal: Proposal, *, timeout_s: float) -> Result:
        """Propose once, on this node; a caller that is cut off asks again later."""
        assert timeout_s > 0
        answered: asyncio.Future[Outcome] = self.loop.create_future()
        name = f"notices{self.cluster.next_name()}"
        made = call_of(proposal.call.command, name, content=name)

        def answer(outcome: Outcome) -> None:
            if not answered.done():
                answered.set_result(outcome)

        self.cluster.answers[name] = answer
        self.cluster.propose(self.node, name, lambda: made)
        outcome = await answered
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome


async def _open_sender(channel: Channel, cluster: "OutboxCluster") -> Any:
    if channel.kind is ChannelKind.SYSLOG:
        return StreamReceiver(cluster, channel.channel)
    return WebhookReceiver(cluster, channel.channel)


class OutboxCluster(CodesCluster):
    """Users and codes on all nodes, and channels that tell what happens."""

    rules: OutboxRules
    rotates = False  # Their values are not sealed with keys that a run may rotate.
    has_archives = False  # A stream is to tell every event, however late.

    def __init__(self, seed: int, scenario: Scenario) -> None:
        self.timeline = Timeline()
        self.dice = random.Random(f"{seed} {scenario.nodes} outbox")
        self._processes: dict[str, _Process] = {}
        self._ended: list[_Process] = []
        self._named = 0
        self.answers: dict[str, Callable[[Outcome], object]] = {}
        """Request id -> what waits for its outcome."""
        super().__init__(seed, scenario)
        self.receivers = Receivers(self.dice, self.rules)

    def _invariants(self) -> OutboxRules:
        self.rules = OutboxRules(channels=WEBHOOKS, streams=(STREAM,))
        return self.rules

    def next_name(self) -> int:
        """Return a number that no other request has."""
        self._named += 1
        return self._named

    def close(self) -> None:
        hook, sys.unraisablehook = sys.unraisablehook, lambda _: None
        try:
            for process in (*self._processes.values(), *self._ended):
                process.end()
                process.loop.drain()
        finally:
            sys.unraisablehook = hook
        super().close()

    @contextlib.contextmanager
    def world(self, *, risk: float = 0.0) -> Iterator[None]:
        """Make bounds and waits as short as the run is."""

        async def open_sender(channel: Channel, *_: object, **__: object) -> Any:
            return await _open_sender(channel, self)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(outbox, "NOTICES_MAX", KEPT_MAX)
            patch.setattr(outbox, "DROPS_TOLD_MS", DROPS_TOLD_MS)
            patch.setattr(delivery, "open_sender", open_sender)
            patch.setattr(delivery, "LOOK_S", 0.05)
            short = tenacity.wait_exponential(multiplier=0.1, max=1.0)
            patch.setattr(delivery, "PAUSE", short)
            patch.setattr(delivery, "RETRY", short)
            patch.setattr(streams, "PAUSE", short)
            patch.setattr(waits, "PAUSE_FIRST_S", 0.1)
            with super().world(risk=risk):
                yield

    def set_up(self) -> None:
        """Create the channels before anything goes wrong."""
        super().set_up()
        for name, classes in {**WEBHOOKS, STREAM: ALL}.items():
            self._insist(
                lambda node, name=name, classes=classes: self._save(node, name, classes)
            )

    def _save(
        self, node: Node, name: str, classes: tuple[str, ...]
    ) -> list[Submission]:
        session = self._name("open.")
        command = SaveChannel(
            channel=name,  # type: ignore[arg-type]
            name=name,
            kind=ChannelKind.SYSLOG if name == STREAM else ChannelKind.WEBHOOK,
            version=0,
            enabled=True,
            address="",
            classes=classes,
            allow_private=False,
            authority="",
            sealed_secret=b"sealed",
            key_id=KEY,
        )
        return [
            self._sign_in(node, session),
            self._admin(node, command, f"channel {name}", session),
        ]

    def _answered(self, node: Node, submission: Submission, outcome: Outcome) -> None:
        super()._answered(node, submission, outcome)
        if (answer := self.answers.pop(submission.request_id, None)) is not None:
            answer(outcome)

    def _die(self, node: Node, *, power: bool, cause: str) -> None:
        if (process := self._processes.pop(node.node_id, None)) is not None:
            process.end()
            self._ended.append(process)
        super()._die(node, power=power, cause=cause)

    # --- Fault points

    def machine_at_work(self) -> Node | None:
        return super().machine_at_work() or whose_loop_runs(self._processes.values())

    # --- Time

    def step(self, *, faulty: bool) -> None:
        super().step(faulty=faulty)
        for node in self.live():
            if node.node_id not in self._processes:
                self._processes[node.node_id] = _Process(self, node)
            self._processes[node.node_id].loop.paused_until = node.paused_until
        self.timeline.run_until(self.now)
        for node in self.live():
            self.rules.check_bounds(node.node_id, machine_store(node).db, KEPT_MAX)

    def check(self) -> None:
        """Deliver what waits, and then look at everything."""
        self.receivers.healthy = True
        for _ in range(round(DRAIN_S / STEP_S)):
            self.step(faulty=False)
            waiting = self._waiting()
            if not waiting:
                break
        self.rules.check_drained(waiting)
        super().check()

    def _waiting(self) -> str:
        """Return what waits on the primary; empty: nothing."""
        leader = self.leader()
        if leader is None:
            return "there is no primary"
        node = self.nodes[leader]
        rows = (
            machine_store(node)
            .db.execute(
                "SELECT channel, kind, kept, position, "
                "(SELECT max(sequence) FROM audit_events) FROM channels"
            )
            .fetchall()
        )
        return ", ".join(
            f"{channel}: {kept} notices, at {position} of {head}"
            for channel, kind, kept, position, head in rows
            if kept or (kind == "syslog" and position < head)
        )
