# SPDX-License-Identifier: Apache-2.0
"""The starts of a node, and what it has seen of the others: on disk, and after a crash."""

import random
from pathlib import Path

import pytest

from sparecode_node.replication.errors import Fatal, StartRefusedError
from sparecode_node.replication.log.boots import (
    KEPT_MAX,
    NAME,
    SLOT_BYTES,
    BootFile,
    Seen,
)
from sparecode_node.replication.log.storage import DirectoryStorage
from sparecode_node.replication.settings import MEMBERS_MAX
from tests.simulation.disk import Disk

LAST = 2**63 - 1


@pytest.fixture
def disk() -> Disk:
    return Disk("n1", random.Random(1))


def started(disk: Disk, nonce: str = "nonce", journal_id: str = "j") -> BootFile:
    """Return the file of a node that has just started."""
    file = BootFile(disk)
    file.open(journal_id, (1, 1, 7), nonce)
    return file


def numbers(file: BootFile) -> list[int]:
    return [boot.number for boot in file.boots]


def test_every_start_counts_one_more(disk: Disk) -> None:
    assert numbers(started(disk, "a")) == [1]
    disk.lose_power()
    file = started(disk, "b")
    assert [(b.number, b.nonce, b.began) for b in file.boots] == [
        (1, "a", (1, 1, 7)),
        (2, "b", (1, 1, 7)),
    ]
    for _ in range(KEPT_MAX):
        file = started(disk)
    assert len(file.boots) == KEPT_MAX
    assert file.boots[-1].number == 2 + KEPT_MAX


def test_a_start_is_on_disk_before_the_node_says_anything(disk: Disk) -> None:
    disk.failing = True
    with pytest.raises(StartRefusedError, match=r"raft\.boots: this start cannot"):
        started(disk)


def test_another_journal_begins_to_count_again(disk: Disk) -> None:
    started(disk).seen["n2"] = Seen("j2", 1, "x", (1, 0, 0))
    file = started(disk, journal_id="another")
    assert (numbers(file), file.seen) == ([1], {})


def test_only_members_are_kept(disk: Disk) -> None:
    file = started(disk)
    seen = Seen("j2", 3, "x", (2, 2, 9))
    file.seen = {"n2": seen, "guest": seen}
    file.refused_by = "n2"
    file.save(["n1", "n2"], sync=True)
    again = started(disk)
    assert again.seen == {"n2": seen}
    assert again.refused_by == "n2"


def test_what_was_synced_survives_writes_that_a_power_cut_tears(disk: Disk) -> None:
    file = started(disk, "kept")
    for index in range(5):
        file.seen["n2"] = Seen("j2", 1, "x", (1, 1, index))
        file.save(["n2"], sync=False)
        data = bytearray(disk.read(NAME))
        newest = file._spare * SLOT_BYTES
        data[newest + 40] ^= 1  # Torn: its checksum is wrong.
        torn = Disk("n1", random.Random(1))
        torn.mark_in(NAME).write(bytes(data))
        assert numbers(started(torn)) == [1, 2]


def test_a_file_that_is_damaged_shows_the_first_start_again(disk: Disk) -> None:
    for _ in range(3):
        started(disk)
    disk.mark_in(NAME).write(b"x" * 2 * SLOT_BYTES)
    assert numbers(started(disk)) == [1]


def test_the_largest_cluster_fits(disk: Disk) -> None:
    for _ in range(KEPT_MAX):
        file = started(disk, nonce="f" * 16)
    file.boots = [
        type(b)(LAST - k, b.nonce, (LAST, LAST, LAST))
        for k, b in enumerate(reversed(file.boots))
    ]
    members = [f"{k}" * 64 for k in range(MEMBERS_MAX)]
    for member in members:
        file.seen[member] = Seen("j" * 64, LAST, "n" * 64, (LAST, LAST, LAST))
    file.refused_by = members[0]
    file.save(members, sync=True)
    assert file._slots[1 - file._spare]
    file.seen["n"] = Seen("j" * SLOT_BYTES, 1, "", (0, 0, 0))
    with pytest.raises(Fatal, match="no room"):
        file.save(["n"], sync=True)


def test_a_real_directory_keeps_it(tmp_path: Path) -> None:
    for expected in (1, 2, 3):
        storage = DirectoryStorage(tmp_path)
        file = BootFile(storage)
        file.open("j", (0, 0, 1), "nonce")
        assert file.boots[-1].number == expected
        file.close()
        storage.close()
        with pytest.raises(Fatal, match="closed"):
            file.save([], sync=False)
    assert (tmp_path / NAME).stat().st_size == 2 * SLOT_BYTES
