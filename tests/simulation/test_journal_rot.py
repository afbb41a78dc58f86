# SPDX-License-Identifier: Apache-2.0
"""A disk that loses a synced write of a journal, and what the next start makes of that."""

import random
from types import SimpleNamespace
from typing import Any

import pytest

from sparecode_node.replication.errors import StartRefusedError
from sparecode_node.replication.log.file import NAME
from tests.replication.test_compaction import reopen
from tests.simulation.disk import Disk
from tests.simulation.fault_effects import Effect
from tests.simulation.files import journal_rot
from tests.simulation.files.journal_rot import (
    JournalRot,
    end_of_journal,
    is_before_mark,
    keep_mark,
    lacks_synced_batches,
    mark_on,
)
from tests.simulation.files.kernel import Rot
from tests.simulation.files.rot import looks_unfinished


class LostWrites(random.Random):
    """Dice that always choose the lost write."""

    def choice(self, seq: Any) -> Any:
        return Rot.LOST_WRITE if Rot.LOST_WRITE in seq else super().choice(seq)


@pytest.fixture
def disk() -> Disk:
    """Return the disk of a journal that has acknowledged entry 2, and then entry 3."""
    disk = Disk("n1", random.Random(1))
    journal = reopen(disk)
    journal.setCurrentTerm(3, "n2")
    for index in (2, 3):
        journal.add(b"\x00" * 600, index, 3)
        journal.sync()
    return disk


def lose_last_write(disk: Disk) -> None:
    dice = LostWrites(1)
    assert JournalRot(dice).spoil_last_batch(disk, dice)
    assert disk.effects[Effect.WRITE_LOST] == 1


@pytest.mark.parametrize("whole_sync", [0.0, 1.0])
def test_a_lost_write_is_refused_once_the_mark_is_on_the_disk(
    disk: Disk, whole_sync: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_rot, "WHOLE_SYNC", whole_sync)
    mark_on(disk, newest=True)
    lose_last_write(disk)
    assert lacks_synced_batches(disk)
    with pytest.raises(StartRefusedError, match="was on disk"):
        reopen(disk)


def test_a_lost_sync_leaves_the_journal_as_it_was_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nothing on the disk shows it before the mark is there: the others must know."""
    disk = Disk("n1", random.Random(1))
    journal = reopen(disk)
    journal.setCurrentTerm(3, "n2")
    journal.add(b"\x00one", 2, 3)
    journal.sync()
    before, mark = disk.read(NAME), mark_on(disk, newest=False)
    journal.add(b"\x00two", 3, 3)
    journal.sync()
    assert end_of_journal(disk) == journal.position == (3, 3, 3)
    disk.sync_directory()
    disk.lose_power()
    keep_mark(disk, mark)
    assert is_before_mark(disk)
    monkeypatch.setattr(journal_rot, "WHOLE_SYNC", 1.0)
    lose_last_write(disk)
    assert disk.read(NAME) == before
    assert not lacks_synced_batches(disk)
    assert end_of_journal(disk) == reopen(disk).position == (3, 3, 2)


def test_where_a_journal_ends_is_read_from_its_records(disk: Disk) -> None:
    journal = reopen(disk)
    assert end_of_journal(disk) == journal.position
    journal.deleteEntriesFrom(2)
    journal.sync()
    assert end_of_journal(disk) == journal.position == (3, 3, 2)
    journal.committed = 2
    journal.rebase(7, 3, journal.configuration)
    assert end_of_journal(disk) == journal.position == (3, 3, 7)
    assert end_of_journal(Disk("n2", random.Random(1))) == (0, 0, 0)


@pytest.mark.parametrize(("snapshot", "unfinished"), [(7, True), (6, False)])
def test_a_state_that_is_the_newest_snapshot_may_be_ahead_of_its_journal(
    snapshot: int, *, unfinished: bool
) -> None:
    """The journal begins after it: nothing on the disk tells a loss from a crash."""
    newest = SimpleNamespace(current=SimpleNamespace(index=snapshot))
    replica = SimpleNamespace(snapshots=newest)
    node: Any = SimpleNamespace(applied_at_start=7, replica=replica)
    assert looks_unfinished(node) == unfinished
