# SPDX-License-Identifier: Apache-2.0
"""
`TestingCluster`: real decisions without Raft, without a log, and without a network.

The state machine, the use cases and the gRPC edge are those of a node. The loopback
replicator stands in for Raft, the cheapest hashing for the production profile, and
socket files in a temporary folder for ports. Faults are switched on and off.
"""

import asyncio
import contextlib
import datetime as dt
import logging
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from sparecode_node.domain.ids import Moment, NodeId
from sparecode_node.domain.tokencodes import (
    Algorithm,
    HashName,
    TokencodeParameters,
    tokencode_at,
)
from sparecode_node.membership.certificates import Authority
from sparecode_node.queries.state import LocalState
from sparecode_node.replication.errors import NoQuorumError, OutcomeUnknownError
from sparecode_node.replication.loopback import LoopbackReplicator
from sparecode_node.replication.replicator import Proposal
from sparecode_node.rpc.server import Listeners, ListenerSettings
from sparecode_node.rpc.tls import TlsFiles
from sparecode_node.services.access.refusals import Refusals
from sparecode_node.services.ambient import SystemClock, SystemEntropy
from sparecode_node.services.cluster.backups import BackupSource
from sparecode_node.services.keys.key_holder import KeyHolder
from sparecode_node.services.load.rates import RateLimits
from sparecode_node.services.people.founding import Founder, prepare_founding
from sparecode_node.services.secrets.kdf import TESTING, Kdf
from sparecode_node.services.secrets.keyring import KeyRing
from sparecode_node.services.secrets.ring_file import RingFile
from sparecode_node.services.secrets.sealing import Sealing
from sparecode_node.services.state.state_file import StateFile
from sparecode_node.services.state.state_process import StateProcesses
from sparecode_node.services.use_cases import Services, build_services
from sparecode_node.statemachine.results import BarrierPassed, Result
from sparecode_node.statemachine.snapshots import write_state_alone, write_whole

log = logging.getLogger(__name__)

HOST = "localhost"
"""The name in the nodes' certificates: a socket file has none of its own."""
STOP_S = 5.0
_FAST = 10**6
UNLIMITED = RateLimits(
    agent=_FAST,
    client_address=_FAST,
    user=_FAST,
    sign_in=_FAST,
    peer=_FAST,
    codes=_FAST,
    session=_FAST,
)
"""A test may be fast; the lockout, which is policy, still counts its guesses."""
_TOTP = TokencodeParameters(
    algorithm=Algorithm.TOTP, hash_name=HashName.SHA1, digits=6, period_s=30
)


class MovableClock(SystemClock):
    """The machine's clocks, moved forward."""

    def __init__(self) -> None:
        self._ahead_ms = 0

    def advance(self, by: dt.timedelta) -> None:
        """Move forward. Raises `ValueError` for a step back, which no cluster takes."""
        if by < dt.timedelta():
            raise ValueError("a cluster's clock never goes back")
        self._ahead_ms += by // dt.timedelta(milliseconds=1)

    def now_ms(self) -> int:
        """Return milliseconds since the Unix epoch, moved."""
        return super().now_ms() + self._ahead_ms

    def monotonic_s(self) -> float:
        """Return seconds of the monotonic clock, moved."""
        return super().monotonic_s() + self._ahead_ms / 1000


class FaultyReplicator(LoopbackReplicator):
    """A loopback replicator with faults, as nodes of a real cluster report them."""

    has_quorum = True
    answers_get_lost = False
    """Calls are applied, but their callers do not learn the outcome."""

    async def propose(self, proposal: Proposal, *, timeout_s: float) -> Result:
        """Return the result, unless a fault hides or prevents it."""
        if not self.has_quorum:
            raise NoQuorumError("no quorum: the test has switched it off")
        result = await super().propose(proposal, timeout_s=timeout_s)
        if self.answers_get_lost:
            raise OutcomeUnknownError("the answer was lost: the test wants it so")
        return result

    async def read_barrier(self, *, timeout_s: float) -> BarrierPassed:
        """Pass the barrier: answers to reads are never unknown."""
        lost, self.answers_get_lost = self.answers_get_lost, False
        try:
            return await super().read_barrier(timeout_s=timeout_s)
        finally:
            self.answers_get_lost = lost

    @property
    def ready(self) -> bool:
        """Whether calls are applied."""
        return self.has_quorum and super().ready


class TestingCluster:
    """A cluster with its first administrator. Start and stop it in one event loop."""

    __test__ = False  # For pytest, which would take it for a test.

    def __init__(self, folder: Path, *, nodes: int) -> None:
        self._folder = folder
        self._clock = MovableClock()
        self._now = dt.datetime.fromtimestamp(SystemClock().now_ms() / 1000, dt.UTC)
        self._members = Authority.create("members", now=self._now)
        self._agents = Authority.create("agents", now=self._now)
        self._names = [NodeId(f"n{number}") for number in range(1, nodes + 1)]
        self._listeners: dict[str, Listeners] = {}
        self._stack = AsyncExitStack()
        self._replicator: FaultyReplicator | None = None

    @property
    def ca(self) -> bytes:
        """The authority of the nodes' certificates, PEM."""
        return self._members.pem

    def address(self, node: str, listener: str) -> str:
        """Return the address of a node's listener, `agents` or `admin`, for gRPC."""
        return f"unix:{self._folder / f'{node}.{listener}'}"

    @property
    def nodes(self) -> Sequence[str]:
        """The ids of the nodes."""
        return self._names

    async def start(self, *, administrator: str, password: str) -> None:
        """Start every node, and found the cluster."""
        try:
            await self._start(administrator, password)
        except BaseException:
            await self.stop()
            raise

    async def _start(self, administrator: str, password: str) -> None:
        enter, entropy = self._stack.enter_context, SystemEntropy()
        key_holder = KeyHolder(
            KeyRing.draw(entropy), RingFile(path=self._folder / "keys.json")
        )
        sealing = Sealing(key_holder.ring)
        processes = enter(contextlib.closing(StateProcesses()))
        state_path = self._folder / "state.db"
        file = StateFile(
            state_path,
            sealing=sealing,
            clock=self._clock,
            processes=processes,
            on_keys=key_holder.follow,
        )
        machine, stamper = enter(file.open())
        kdf = enter(contextlib.closing(Kdf(TESTING, workers=1)))
        replicator = FaultyReplicator(machine, stamper, clock=self._clock)
        self._replicator = replicator
        state = await LocalState.open(state_path)
        self._stack.push_async_callback(state.close)
        refusals = Refusals(clock=self._clock, entropy=entropy)
        services = build_services(
            replicator,
            state,
            key_holder=key_holder,
            kdf=kdf,
            clock=self._clock,
            entropy=entropy,
            refusals=refusals,
            backup_source=BackupSource(
                write_whole=lambda target: write_whole(state_path, target),
                write_state_alone=lambda target: write_state_alone(state_path, target),
                directory=self._folder,
                version="testing",
            ),
            limits=UNLIMITED,
            authorities=lambda: (),
        )
        for run in (services.resealer.run, key_holder.run):
            self._stack.push_async_callback(_end, asyncio.ensure_future(run()))
        founding = self._folder / "bootstrap.json"
        await prepare_founding(
            founding,
            administrator=administrator,
            password=password,
            sealing=sealing,
            kdf=kdf,
            entropy=entropy,
        )
        founder = Founder.load(founding, cluster_id=sealing.cluster_id)
        if founder is None:
            raise FileNotFoundError(founding)
        await founder.run(replicator)
        self._stack.push_async_callback(self._stop_nodes)
        self._new_listeners = self._listeners_of(services, refusals)
        for name in self._names:
            await self.start_node(name)

    def _listeners_of(
        self, services: Services, refusals: Refusals
    ) -> Callable[[str], Listeners]:
        """Return what makes the listeners of a node."""
        replicator = self._replicator

        def make(name: str) -> Listeners:
            issued = self._members.issue_member(name, hosts=[HOST], now=self._now)
            admin = TlsFiles(certificate=issued.certificate, key=issued.key, ca=None)
            agents = TlsFiles(
                certificate=issued.certificate, key=issued.key, ca=self._agents.pem
            )
            return Listeners(
                node_id=name,
                agents=ListenerSettings(
                    address=self.address(name, "agents"), tls=lambda: agents
                ),
                admin=ListenerSettings(
                    address=self.address(name, "admin"), tls=lambda: admin
                ),
                services=services,
                refusals=refusals,
                is_ready=lambda: replicator is not None and replicator.ready,
                clock=self._clock,
            )

        return make

    async def start_node(self, name: str) -> None:
        """Start a node that does not run."""
        if name not in self._names:
            raise KeyError(name)
        if name not in self._listeners:
            listeners = self._new_listeners(name)
            await listeners.start()
            self._listeners[name] = listeners

    async def stop_node(self, name: str) -> None:
        """Stop a node: it answers nothing until it is started again."""
        if name not in self._names:
            raise KeyError(name)
        if listeners := self._listeners.pop(name, None):
            await listeners.stop(grace_s=0)

    async def _stop_nodes(self) -> None:
        for name in tuple(self._listeners):
            await self.stop_node(name)

    async def stop(self) -> None:
        """Stop everything, in reverse order."""
        await self._stack.aclose()

    def certify_agent(self, name: str) -> tuple[bytes, bytes]:
        """Return a certificate and a key of an agent, PEM. Raises `CertificatesError`."""
        issued = self._agents.issue_agent(name, now=self._now)
        return issued.certificate, issued.key

    def set_faults(self, *, has_quorum: bool, answers_get_lost: bool) -> None:
        """Switch faults on or off."""
        if self._replicator is not None:
            self._replicator.has_quorum = has_quorum
            self._replicator.answers_get_lost = answers_get_lost

    def advance(self, by: dt.timedelta) -> None:
        """Move the cluster's clock forward. Raises `ValueError` for a step back."""
        self._clock.advance(by)

    def tokencode(self, seed: bytes) -> str:
        """Return what a TOTP token with six digits and 30 seconds shows now."""
        period_ms = _TOTP.period_s * 1000
        return tokencode_at(seed, _TOTP, Moment(self._clock.now_ms() // period_ms))


async def _end(task: "asyncio.Future[None]") -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
