# SPDX-License-Identifier: Apache-2.0
"""Real clusters in one process: real gRPC, real certificates, real files."""

import asyncio
import contextlib
import datetime as dt
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import TypeVar

from local_cluster.cluster import free_ports

from sparecode_node.domain.ids import NodeId
from sparecode_node.membership.certificates import Authority
from sparecode_node.replication.applied_state import AppliedState
from sparecode_node.replication.cluster_replicator import (
    ClusterConfig,
    ClusterReplicator,
)
from sparecode_node.replication.errors import (
    ClockError,
    NoPrimaryError,
    NoQuorumError,
    OutcomeUnknownError,
    OverloadedError,
)
from sparecode_node.replication.links.tls import PeerTls
from sparecode_node.replication.links.transport import PeerAddresses
from sparecode_node.replication.log.format import SALT_BYTES
from sparecode_node.replication.replicator import Stamper
from sparecode_node.replication.settings import RaftSettings
from sparecode_node.services.ambient import SystemClock, SystemEntropy
from sparecode_node.statemachine.results import BarrierPassed, Result
from tests.replication.recording_state import FixedStamper, RecordingState, proposal

T = TypeVar("T")

READY_S = 120
POLL_S = 0.01

FOR_NOW = (
    ClockError,
    NoPrimaryError,
    NoQuorumError,
    OutcomeUnknownError,
    OverloadedError,
)
"""What a caller may be told while there is no primary, or a machine is busy."""


def new_authority() -> Authority:
    """Return an authority for members."""
    return Authority.create("members", now=dt.datetime.now(dt.UTC))


def member_tls(authority: Authority, member: str) -> PeerTls:
    """Return what a member shows, and what it accepts."""
    issued = authority.issue_member(
        member, hosts=["127.0.0.1"], now=dt.datetime.now(dt.UTC)
    )
    return PeerTls(certificate=issued.certificate, key=issued.key, ca=authority.pem)


class Node:
    """One node, which can be stopped and started again on its files."""

    def __init__(
        self,
        node_id: str,
        members: dict[NodeId, str],
        tls: PeerTls,
        directory: Path,
        raft: RaftSettings | None = None,
    ) -> None:
        self.node_id = NodeId(node_id)
        self.state = RecordingState()
        self.stamper = FixedStamper()
        self.members = members
        self.fatal: list[str] = []
        self.on_fatal: Callable[[str], object] = self.fatal.append
        self.config = ClusterConfig(
            cluster_id="test",
            addresses=PeerAddresses(
                node_id=self.node_id,
                listen=members[self.node_id],
                members=members,
            ),
            tls=tls,
            directory=directory,
            raft=raft or RaftSettings(),
            version="1",
        )
        self.replicator: ClusterReplicator

    async def start(self) -> None:
        """Start, with the state that is there."""
        self.replicator = ClusterReplicator(
            self.config,
            clock=SystemClock(),
            salt=SystemEntropy().token_bytes(SALT_BYTES),
            open_state=self._open,
            read_digest=lambda: (self.state.applied_index, self.state.digest()),
            read_head=lambda: (self.state.applied_index, f"head of {self.node_id}"),
            snapshots=self.state,
            on_fatal=self.on_fatal,
        )
        await self.replicator.start()

    async def stop(self) -> None:
        """Stop in order."""
        await self.replicator.stop()

    @contextlib.contextmanager
    def _open(self) -> Iterator[tuple[AppliedState, Stamper]]:
        yield self.state, self.stamper


@contextlib.asynccontextmanager
async def running(
    directory: Path, count: int = 3, raft: RaftSettings | None = None
) -> AsyncIterator[list[Node]]:
    """Run a cluster, and see that no node stops itself."""
    authority = new_authority()
    ids = [f"n{i + 1}" for i in range(count)]
    members = {
        NodeId(i): f"127.0.0.1:{port}"
        for i, port in zip(ids, free_ports(count), strict=True)
    }
    nodes = [
        Node(i, members, member_tls(authority, i), directory / i, raft) for i in ids
    ]
    try:
        for node in nodes:
            await node.start()
        yield nodes
        assert [node.fatal for node in nodes] == [[] for _ in nodes]
    finally:
        await asyncio.gather(*(n.stop() for n in nodes), return_exceptions=True)


async def until(condition: Callable[[], bool]) -> None:
    """Return when a condition holds, which nothing signals. Has no deadline."""
    while not condition():  # noqa: ASYNC110
        await asyncio.sleep(POLL_S)


async def ready(node: Node) -> None:
    """Return when a node is in contact with a quorum."""
    async with asyncio.timeout(READY_S):
        await until(lambda: node.replicator.ready)


async def outcome(ask: Callable[[], Awaitable[T]]) -> T:
    """
    Ask until the outcome is known: an election may take longer than a node's patience.

    So may the time until a new primary knows the clocks, or a place in a queue. Callers
    may do so with all requests to a node: each has a request id, or may be repeated.
    """
    async with asyncio.timeout(READY_S):
        while True:
            with contextlib.suppress(*FOR_NOW):
                return await ask()


async def put(node: Node, request_id: str) -> Result:
    """Return the result of a call through a node, whatever elections come."""
    return await outcome(
        lambda: node.replicator.propose(
            proposal(request_id, node.node_id), timeout_s=READY_S
        )
    )


async def caught_up(node: Node) -> BarrierPassed:
    """Return when a node has applied what was committed before, whatever elections come."""
    return await outcome(lambda: node.replicator.read_barrier(timeout_s=READY_S))
