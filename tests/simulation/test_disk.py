# SPDX-License-Identifier: Apache-2.0
"""The simulated disk forgets what a real one may forget, and nothing else."""

import random
from collections.abc import Callable

import pytest

from tests.simulation.disk import SECTOR, Disk
from tests.simulation.fault_effects import Effect

Seen = set[tuple[str, bytes]]


def after_power_cuts(act: Callable[[Disk], object], cuts: int = 400) -> list[Seen]:
    """Do the same on many disks, cut the power of each; return what each has then."""
    results = []
    for seed in range(cuts):
        disk = Disk("n1", random.Random(seed))
        act(disk)
        disk.lose_power()
        results.append({(name, disk.read(name)) for name in disk.list_names()})
    return results


def write(disk: Disk, name: str, data: bytes, *, sync: bool = True) -> None:
    file = disk.append_to(name)
    file.append(data)
    if sync:
        file.sync()


def test_what_was_synced_stays_and_the_rest_may_go_in_part() -> None:
    def act(disk: Disk) -> None:
        write(disk, "log", b"synced")
        disk.sync_directory()
        write(disk, "log", b"more", sync=False)

    results = [dict(seen)["log"] for seen in after_power_cuts(act)]
    assert all(data.startswith(b"synced") for data in results)
    lengths = {len(data) for data in results}
    assert lengths == {6, 7, 8, 9, 10}
    whole = {data for data in results if len(data) == 10}
    assert b"syncedmore" in whole
    assert len(whole) > 1  # Torn.


def test_torn_bytes_are_wrong_or_a_sector_of_zeros() -> None:
    def act(disk: Disk) -> None:
        disk.append_to("log")
        disk.sync_directory()
        write(disk, "log", b"x" * 4 * SECTOR, sync=False)

    results = [dict(seen)["log"] for seen in after_power_cuts(act)]
    assert any(bytes(SECTOR) in data for data in results)
    wrong = bytes([ord("x") ^ 0x55])
    assert any(wrong in data for data in results)


def test_a_name_is_there_when_its_directory_was_synced_and_not_before() -> None:
    def act(disk: Disk) -> None:
        write(disk, "new", b"new")
        disk.rename("new", "name")

    result = after_power_cuts(act)
    assert set() in result
    assert {("new", b"new")} in result  # Between the two changes.
    assert {("name", b"new")} in result

    def synced(disk: Disk) -> None:
        act(disk)
        disk.sync_directory()

    assert all(seen == {("name", b"new")} for seen in after_power_cuts(synced))


def test_names_go_to_the_disk_in_their_order() -> None:
    """Not the second without the first: file systems keep a journal of them."""

    def act(disk: Disk) -> None:
        for name in "abc":
            write(disk, name, b"")

    names = {tuple(sorted(name for name, _ in seen)) for seen in after_power_cuts(act)}
    assert names == {(), ("a",), ("a", "b"), ("a", "b", "c")}


def test_a_file_that_is_renamed_unsynced_may_be_empty() -> None:
    def act(disk: Disk) -> None:
        write(disk, "name", b"old")
        disk.sync_directory()
        write(disk, "new", b"new", sync=False)
        disk.rename("new", "name")

    results = [dict(seen).get("name") for seen in after_power_cuts(act)]
    assert {b"old", b"", b"new"} <= set(results)


def test_what_a_failed_sync_was_about_is_never_written() -> None:
    """It can be read, a later sync succeeds, and a power cut shows the truth."""

    def act(disk: Disk) -> None:
        write(disk, "log", b"one")
        disk.sync_directory()
        file = disk.append_to("log")
        file.append(b"two")
        disk.failing = True
        with pytest.raises(OSError, match="failed"):
            file.sync()
        disk.failing = False
        assert disk.read("log") == b"onetwo"
        file.append(b"three")
        file.sync()

    results = {dict(seen)["log"] for seen in after_power_cuts(act, 50)}
    assert results == {b"one\0\0\0three"}


def test_a_mark_is_the_old_or_the_new_or_torn_until_it_is_synced() -> None:
    def act(disk: Disk) -> None:
        mark = disk.mark_in("mark")
        mark.write(b"old!")
        mark.sync()
        disk.sync_directory()
        for n in range(1 + disk.rng.randrange(30)):
            mark.write(b"%04d" % n)

    results = {dict(seen)["mark"] for seen in after_power_cuts(act)}
    assert b"old!" in results
    assert any(data[:2] == b"00" and data[2:].isdigit() for data in results)
    assert any(data[2:] == b"d!" and data != b"old!" for data in results)


def test_a_mark_whose_sync_failed_is_not_written_by_the_next_sync() -> None:
    disk = Disk("n1", random.Random(1))
    mark = disk.mark_in("mark")
    mark.write(b"old!")
    mark.sync()
    disk.sync_directory()
    mark.write(b"new!")
    disk.failing = True
    with pytest.raises(OSError, match="failed"):
        mark.sync()
    disk.failing = False
    mark.sync()
    assert disk.names["mark"].durable == b"old!"
    mark.write(b"New!")
    mark.sync()
    assert disk.names["mark"].durable == b"New!"


def names_after_a_failed_sync(disk: Disk) -> set[tuple[str, ...]]:
    """Return which names power cuts leave of a file after the sync of its name failed."""
    write(disk, "new", b"new")
    disk.failing = True
    with pytest.raises(OSError, match="names are not synced"):
        disk.sync_directory()
    assert disk.effects[Effect.NAMES_SYNC_FAILED] == 1
    results = set()
    for seed in range(20):
        copy = disk.copy()
        copy.rng = random.Random(seed)
        copy.lose_power()
        results.add(tuple(copy.list_names()))
    return results


def test_a_failing_disk_does_not_sync_names() -> None:
    assert names_after_a_failed_sync(Disk("n1", random.Random(1))) == {(), ("new",)}


def test_a_disk_may_fail_first_when_names_are_synced() -> None:
    """The sync of a file comes before: only one that still goes well lets it."""
    first = set()
    for salt in range(40):
        disk = Disk("n1", random.Random(1))
        file = disk.append_to("log")
        file.append(b"%d" % salt)
        disk.fail()
        try:
            file.sync()
            disk.sync_directory()
        except OSError as error:
            first.add(str(error))
    assert first == {"the disk has failed", "[Errno 5] names are not synced"}


def test_a_full_disk_syncs_names_where_nothing_needs_room() -> None:
    disk = Disk("n1", random.Random(1))
    disk.full = True
    disk.sync_directory()
    disk.append_to("log")
    with pytest.raises(OSError, match="names are not synced"):
        disk.sync_directory()
    disk.overwrites = True
    disk.sync_directory()


@pytest.mark.parametrize("cause", ["failing", "full"])
def test_a_write_in_place_fails_or_goes_well_as_the_disk_decides(cause: str) -> None:
    disk = Disk("n1", random.Random(1))
    mark = disk.mark_in("mark")
    mark.write(b"old!")
    setattr(disk, cause, True)
    with pytest.raises(OSError, match=r"disk has failed|no space"):
        mark.write(b"NEWS")
    assert disk.effects[Effect.IN_PLACE_FAILED] == 1
    kept = disk.read("mark")
    assert len(kept) == 4
    assert kept == b"old!" if cause == "failing" else kept != b"NEWS"
    disk.overwrites = True
    mark.write(b"news")
    assert disk.read("mark") == b"news"


def test_a_full_disk_takes_a_part_and_says_so() -> None:
    disk = Disk("n1", random.Random(1))
    file = disk.append_to("log")
    disk.full = True
    with pytest.raises(OSError, match="no space"):
        file.append(b"12345678")
    assert b"12345678".startswith(disk.read("log"))
    assert disk.read("log") != b"12345678"
    assert disk.effects[Effect.DISK_FULL] == 1


def test_a_disk_remembers_what_its_sectors_had_before_the_last_sync() -> None:
    """After a power cut, too; what was not synced is not among it."""
    disk = Disk("n1", random.Random(1))
    write(disk, "log", b"a" * (SECTOR + 10))
    file = disk.names["log"]
    assert file.overwritten() == [(0, bytes(SECTOR)), (SECTOR, bytes(10))]
    write(disk, "log", b"b" * SECTOR)
    write(disk, "log", b"not synced", sync=False)
    wanted = [(SECTOR, b"a" * 10 + bytes(SECTOR - 10)), (2 * SECTOR, bytes(10))]
    assert file.overwritten() == wanted
    disk.sync_directory()
    disk.lose_power()
    assert file.overwritten() == wanted
    assert disk.copy().names["log"].overwritten() == wanted
    disk.rewrite("log", 0)
    assert file.overwritten() == []
