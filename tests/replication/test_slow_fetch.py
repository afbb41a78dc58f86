# SPDX-License-Identifier: Apache-2.0
"""
A member fetches a snapshot over a slow link, while the others go on writing.

The link is a real one that carries no more than the test allows. How much that is
depends on what was written, and not on the speed of the machine.
"""

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from local_cluster.cluster import free_ports

from sparecode.internal.v1 import peers_pb2
from sparecode_node.domain.ids import NodeId
from sparecode_node.replication.raft import retention
from sparecode_node.replication.replica import snapshot_keeper
from sparecode_node.replication.replica.snapshot_keeper import SnapshotKeeper
from sparecode_node.replication.settings import RaftSettings
from tests.replication import cluster
from tests.replication.cluster import Node, outcome, ready, running, until
from tests.replication.recording_state import RecordingState
from tests.replication.silent_proxy import PACED_BYTES, SilentProxy, before
from tests.replication.test_cluster_replicator import WAIT_S, settled
from tests.replication.test_cluster_snapshots import snapshot_index, write_one

pytestmark = [pytest.mark.asyncio, pytest.mark.timeout(600)]

SHORT = RaftSettings(
    log_entries_max=32,
    log_entries_kept=8,
    # A loaded machine is slow, too: no link is to be given up because of that.
    election_min_s=1.0,
    election_max_s=2.0,
    contact_s=1.5,
    step_down_s=2.5,
)

INTERVAL = SHORT.log_entries_max - SHORT.log_entries_kept
"""After this many entries, each member has taken another snapshot."""

BODY_BYTES = 512 * 1024

ALLOW = 8_000
"""What the link carries more after each entry: a fetch takes some hundred entries."""

IDLE_S = 1.0
"""The member may need this time before it uses the link again."""

PATIENCE_S = 4 * WAIT_S
"""A loaded machine may take this long. Without the protection it takes forever."""


class LargeState(RecordingState):
    """A state that takes its time on a slow link."""

    def serialize(self) -> bytes:
        return super().serialize() + b" " * BODY_BYTES


@dataclass
class Link:
    """Carries to the calling end what it is allowed to, in all connections together."""

    allowed: float = math.inf
    carried: int = 0

    def is_used_up(self) -> bool:
        return self.carried + PACED_BYTES > self.allowed

    async def pace(self, count: int) -> None:
        await until(lambda: self.carried + count <= self.allowed)
        self.carried += count


@dataclass
class Slow:
    """A cluster of which one node lacks what the others have dropped."""

    rest: list[Node]
    away: Node
    proxies: dict[str, SilentProxy]
    link: Link
    begun: list[tuple[NodeId, int]] = field(default_factory=list)
    """Which node was asked for a snapshot from the beginning, and for which one."""
    resumed: int = 0
    """Portions from a later place."""
    written: int = 0

    async def write_until(self, condition: Callable[[], bool], *, allow: int) -> int:
        """
        Write until a condition holds; return how many entries.

        With each entry, the link carries *allow* bytes more; 0: it is not slow.
        """
        before = self.written
        async with asyncio.timeout(PATIENCE_S):
            while not condition():
                node = self.rest[0]
                await write_one(node, f"meanwhile{self.written}")
                self.written += 1
                if not allow:
                    continue
                self.link.allowed = self.link.carried + allow
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(IDLE_S):
                        await until(lambda: condition() or self.link.is_used_up())
        return self.written - before

    def received(self) -> int:
        """Return how many bytes of a snapshot the node has."""
        store = self.away.replicator._snapshots._store
        return 0 if store is None else store.part()[1]

    def has_caught_up(self) -> bool:
        last = self.rest[0].state.applied_index
        return self.away.state.applied_index > last - 5


@contextlib.asynccontextmanager
async def left_behind(
    directory: Path, patch: pytest.MonkeyPatch
) -> AsyncIterator[Slow]:
    """Let a node miss what the others drop, and start it behind a slow link."""
    ports, inner = free_ports(3), free_ports(3)
    proxies = {f"n{k + 1}": SilentProxy(f"127.0.0.1:{p}") for k, p in enumerate(inner)}
    link = Link()

    def behind(node_id: str, members: Any, *rest: Any) -> Node:
        node = Node(node_id, members, *rest)
        listen = f"127.0.0.1:{proxies[node_id]._port}"
        addresses = replace(node.config.addresses, listen=listen)
        node.config = replace(node.config, addresses=addresses)
        return node

    patch.setattr(cluster, "RecordingState", LargeState)
    patch.setattr(cluster, "free_ports", lambda _count: ports)
    patch.setattr(cluster, "Node", behind)
    patch.setattr(snapshot_keeper, "RETRY_MAX_S", 0.5)
    patch.setattr(retention, "KEPT_LOG_FACTOR", 64)  # Another test reaches the bound.
    async with contextlib.AsyncExitStack() as stack:
        for proxy, port in zip(proxies.values(), ports, strict=True):
            address = f"127.0.0.1:{port}"
            await stack.enter_async_context(before(proxy.target, address, proxy))
        nodes = await stack.enter_async_context(running(directory, raft=SHORT))
        primary, (other, away) = await settled(nodes)
        await away.stop()
        slow = Slow([primary, other], away, proxies, link)
        _watch(slow, patch)
        needed = away.state.applied_index + 3 * INTERVAL
        await slow.write_until(
            lambda: all(snapshot_index(n) > needed for n in slow.rest), allow=0
        )
        for proxy in proxies.values():
            proxy.pace = link.pace
        link.allowed = link.carried + 64 * 1024  # For the handshakes.
        await away.start()
        yield slow


def _watch(slow: Slow, patch: pytest.MonkeyPatch) -> None:
    send = SnapshotKeeper.send

    async def watched(
        self: SnapshotKeeper, peer: NodeId, request: peers_pb2.FetchSnapshotRequest
    ) -> AsyncIterator[peers_pb2.FetchSnapshotResponse]:
        node = next(n for n in slow.rest if n.replicator._snapshots is self)
        async for part in send(self, peer, request):
            if part.HasField("manifest"):
                if part.manifest.sha256 == request.sha256 and request.offset:
                    slow.resumed += 1
                elif (each := (node.node_id, part.manifest.index)) not in slow.begun:
                    slow.begun.append(each)
            yield part

    patch.setattr(SnapshotKeeper, "send", watched)


async def test_a_slow_fetch_ends_while_the_others_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the time of one fetch, each member could take several snapshots."""
    async with left_behind(tmp_path, monkeypatch) as slow:
        written = await slow.write_until(slow.has_caught_up, allow=ALLOW)
        assert written > 2 * INTERVAL
        assert len(slow.begun) == 1
        assert slow.resumed > 3
        await slow.write_until(
            lambda: slow.rest[0].replicator._status.log_kept_for == (), allow=ALLOW
        )


@pytest.mark.long
async def test_a_fetch_outlasts_another_primary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It begins again only if the new primary's log begins after the snapshot."""
    async with left_behind(tmp_path, monkeypatch) as slow:
        sender, other = slow.rest
        await slow.write_until(lambda: slow.received() > 0, allow=ALLOW)
        await outcome(
            lambda: sender.replicator.transfer_primary(other.node_id, timeout_s=WAIT_S)
        )
        await slow.write_until(slow.has_caught_up, allow=ALLOW)
        assert len({node for node, _ in slow.begun}) == len(slow.begun) <= 2


async def test_a_fetch_outlasts_a_restart_of_the_sender(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has the same snapshot as before, and takes no other one."""
    async with left_behind(tmp_path, monkeypatch) as slow:
        sender, _ = slow.rest
        await slow.write_until(lambda: slow.received() > 0, allow=ALLOW)
        await sender.stop()
        slow.link.allowed = math.inf
        await sender.start()
        await ready(sender)
        await slow.write_until(slow.has_caught_up, allow=0)
        assert [node for node, _ in slow.begun].count(sender.node_id) == 1
