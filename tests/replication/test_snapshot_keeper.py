# SPDX-License-Identifier: Apache-2.0
"""Snapshots beside an engine that is held up: nothing gets mixed."""

import asyncio
import random
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from sparecode_node.domain.ids import NodeId
from sparecode_node.replication import snapshot_keeper
from sparecode_node.replication.engine_thread import EngineThread
from sparecode_node.replication.errors import OutcomeUnknownError
from sparecode_node.replication.members import Configuration, Member
from sparecode_node.replication.replica import ReplicaStatus
from sparecode_node.replication.snapshot_keeper import SnapshotKeeper
from sparecode_node.replication.snapshots import WRITTEN, Manifest, SnapshotStore
from sparecode_node.statemachine.snapshots import SnapshotFacts
from tests.simulation.disk import Disk

pytestmark = pytest.mark.asyncio

WAIT_S = 10
DUE = ReplicaStatus(snapshot_due=True)


class Compacting:
    """Keeps snapshots, and has seen what each one's file held."""

    def __init__(self, store: SnapshotStore) -> None:
        self.store = store

    def keep(self, *, index: int, digest: str, length: int, sha256: bytes) -> Manifest:
        manifest = Manifest(
            cluster_id="test",
            index=index,
            term=1,
            configuration=Configuration.of(
                [Member(node_id=NodeId("n1"), address="n1:7301")]
            ),
            digest=digest,
            length=length,
            sha256=sha256,
        )
        self.store.adopt(manifest, WRITTEN)
        return manifest


class HeldUpEngine:
    """Does the first job that keeps a snapshot when the test says so, and not before."""

    def __init__(self, store: SnapshotStore) -> None:
        compaction = Compacting(store)
        self.replica: Any = SimpleNamespace(
            snapshots=store, compaction=compaction, status=ReplicaStatus
        )
        self.goes_on = asyncio.Event()
        self.asked = asyncio.Event()

    async def run(
        self, job: Callable[[Any], object], *, timeout_s: float | None
    ) -> object:
        if (
            job(SimpleNamespace(snapshots=0, compaction=Asked(), status=int))
            is not Kept
        ):
            return job(self.replica)
        self.asked.set()
        done = asyncio.ensure_future(self._do(job))
        await asyncio.wait({done}, timeout=timeout_s)
        if not done.done():
            raise OutcomeUnknownError("the engine did not answer in time")
        return done.result()

    async def _do(self, job: Callable[[Any], object]) -> object:
        await self.goes_on.wait()
        return job(self.replica)


class Kept:
    """What a job returns that keeps a snapshot."""


class Asked:
    """Tells such a job from others, without doing it."""

    def keep(self, **_: object) -> type[Kept]:
        return Kept


class Growing:
    """A state that is another one whenever a snapshot is written."""

    def __init__(self, disk: Disk) -> None:
        self.disk = disk
        self.written = 0

    def write(self, target: Path) -> SnapshotFacts:
        self.written += 1
        file = self.disk.append_to(target.name.partition(":")[2])
        file.append(b"state %d" % self.written)
        return SnapshotFacts(index=self.written, digest="d")

    def read(self, snapshot: Path) -> SnapshotFacts:
        raise NotImplementedError


async def test_no_other_body_is_begun_while_one_is_perhaps_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """
    The disk holds the engine up for a minute: whoever gives up takes nothing back.

    Were another body begun in the file meanwhile, the engine would go on with a
    manifest of one, and the bytes of the other.
    """
    monkeypatch.setattr(snapshot_keeper, "ENGINE_S", 0.01)
    monkeypatch.setattr(snapshot_keeper, "RETRY_S", 0.01)
    disk = Disk("n1", random.Random(1))
    store, state = SnapshotStore(disk), Growing(disk)
    engine = HeldUpEngine(store)
    keeper = SnapshotKeeper(cast("EngineThread", engine), state, lambda _peer: None)
    await keeper.start()
    keeper.take_status(DUE)
    async with asyncio.timeout(WAIT_S):
        await engine.asked.wait()
        task = keeper._task
        assert task is not None
        await asyncio.wait({task}, timeout=0.2)
        assert state.written == 1
        engine.goes_on.set()
        while store.current is None:
            await asyncio.wait({task}, timeout=0.01)
    await keeper.stop()
    assert store.measure(store.current.body) == (
        store.current.length,
        store.current.sha256,
    )
