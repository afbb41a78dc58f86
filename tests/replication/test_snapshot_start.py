# SPDX-License-Identifier: Apache-2.0
"""A start reads the newest snapshot once, beside the state: both may have gigabytes."""

import asyncio
import random
import threading
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from sparecode_node.replication.log.storage import Storage
from sparecode_node.replication.replica import engine_thread
from sparecode_node.replication.replica.engine_thread import EngineThread
from sparecode_node.replication.snapshots.store import (
    MANIFEST,
    WRITTEN,
    SnapshotStore,
    measure_newest,
)
from tests.replication.test_compaction import manifest_of
from tests.replication.test_engine_thread import NotOpenedError, made
from tests.simulation.disk import Disk

BODY = b"a body"


class CountingDisk(Disk):
    """A disk that counts how often a snapshot's body is read."""

    reads = 0

    def read_at(self, name: str, offset: int, size: int) -> bytes:
        self.reads += offset == 0
        return super().read_at(name, offset, size)


def disk_with(body: bytes) -> CountingDisk:
    """Return a disk with a snapshot."""
    disk = CountingDisk("n1", random.Random(1))
    store = SnapshotStore(disk)
    store.adopt(manifest_of(body, store), WRITTEN)
    disk.reads = 0
    return disk


def test_a_body_that_was_read_is_not_read_again() -> None:
    disk = disk_with(BODY)
    measured = measure_newest(disk)
    assert disk.reads == 1
    store = SnapshotStore(disk, measured)
    assert store.current is not None
    assert disk.reads == 1
    # Only at the start: later, the file is another one.
    store.measure(store.current.body)
    assert disk.reads == 2


def test_a_damaged_body_is_dropped_as_without_reading_ahead() -> None:
    disk = disk_with(BODY)
    store = SnapshotStore(disk)
    assert store.current is not None
    body = store.current.body
    disk.remove(body)
    disk.append_to(body).append(b"another")
    assert SnapshotStore(disk, measure_newest(disk)).current is None
    assert body not in disk.names


def test_what_was_read_of_another_body_says_nothing() -> None:
    disk = disk_with(BODY)
    measured = measure_newest(disk_with(b"another body"))
    assert SnapshotStore(disk, measured).current is not None
    assert disk.reads == 1


@pytest.mark.parametrize("what", ["nothing", "manifest", "body"])
def test_what_cannot_be_read_is_left_to_the_store(what: str) -> None:
    disk = disk_with(BODY)
    if what == "nothing":
        disk = CountingDisk("n1", random.Random(1))
    elif what == "manifest":
        disk.remove(MANIFEST)
        disk.append_to(MANIFEST).append(b"damaged")
    else:
        store = SnapshotStore(disk)
        assert store.current is not None
        disk.remove(store.current.body)
    before = set(disk.names)
    measured = measure_newest(disk)
    assert set(disk.names) == before, "it changes nothing"
    assert SnapshotStore(disk, measured).current is None


@pytest.mark.asyncio
async def test_snapshot_and_state_are_read_at_the_same_time(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The state is opened only when the snapshot is being read, and the other way round."""
    both = threading.Barrier(2, timeout=30)

    def reading(_: Storage) -> None:
        both.wait()

    def opening() -> AbstractContextManager[Any]:
        both.wait()
        raise NotOpenedError

    monkeypatch.setattr(engine_thread, "measure_newest", reading)
    with pytest.raises(NotOpenedError):
        await asyncio.wait_for(made(EngineThread, tmp_path, opening).start(), 60)
