# SPDX-License-Identifier: Apache-2.0
"""A start gives the free pages of the state back, or leaves the state as it was."""

import contextlib
import itertools
import logging
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from sparecode_node.statemachine import free_pages
from sparecode_node.statemachine.checkpoints import CheckpointError, Checkpoints
from sparecode_node.statemachine.free_pages import ShrinkError, Shrunk
from sparecode_node.statemachine.machine import StateMachine
from sparecode_node.statemachine.page_sums import PageSums, open_page_sums
from sparecode_node.statemachine.snapshots import Size, SnapshotFacts
from sparecode_node.statemachine.tables.schema import read_only_uri
from tests.long import long
from tests.services.checkpoint_world import create_users, opened
from tests.services.free_pages import PAGE, pages_of, prepare
from tests.statemachine.segment_folder import (
    STATE,
    WATCHED,
    SegmentFolder,
    copies_of,
)
from tests.statemachine.world import World

FREE = 400
COPY = f"{STATE}.shrunk"
STEPS = [29, *long([5])]
"""Between the calls of one start at which a node ends."""


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shrink states that a test can afford."""
    monkeypatch.setattr(free_pages, "BYTES_MIN", FREE * PAGE)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return the folder of a stopped node whose state is mostly unused."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(free_pages, "BYTES_MIN", 1 << 40)
        prepare(tmp_path / "node", FREE)
    return tmp_path / "node"


@dataclass
class Started:
    """A node's state after its start."""

    world: World
    checkpoints: Checkpoints
    outcome: Shrunk | ShrinkError | None

    def digest(self) -> tuple[int, str]:
        return self.world.machine.applied_index, self.world.machine.digest()

    def go_on(self) -> tuple[int, str]:
        """Apply an entry, and let it be durable; return what the state is then."""
        create_users(self.world, 1)
        self.checkpoints.run()
        assert self.checkpoints.durable_index == self.world.index
        return self.digest()


@contextlib.contextmanager
def started(
    state: Path, on_long_work: Callable[[], object] = lambda: None
) -> Iterator[Started]:
    """Start as `StateFile.open` does, in one thread."""
    with contextlib.ExitStack() as cleanup:
        sums = open_page_sums(state)
        cleanup.callback(sums.close)
        world = World()
        world.db.close()
        world.db = sqlite3.connect(state)
        cleanup.callback(world.db.close)
        world.machine = StateMachine(world.db)
        world.index = world.machine.applied_index
        checkpoints = Checkpoints(state, sums)
        cleanup.callback(checkpoints.close)
        cleanup.callback(world.db.close)
        outcome: Shrunk | ShrinkError | None
        try:
            outcome = free_pages.shrink(state, checkpoints, on_long_work)
        except ShrinkError as error:
            outcome = error
        checkpoints.run()
        yield Started(world, checkpoints, outcome)


def at_first(work: Callable[[], object]) -> Callable[[], object]:
    """Return what does this work when it is called for the first time only."""
    left = [work]
    return lambda: left and left.pop()()


def state_of(folder: Path) -> tuple[int, str]:
    """Return the applied index and the digest of a state, without its own start."""
    uri = read_only_uri(folder / STATE)
    with contextlib.closing(sqlite3.connect(uri, uri=True)) as source:
        copy = sqlite3.connect(":memory:")
        source.backup(copy)
    with contextlib.closing(copy):
        machine = StateMachine(copy)
        return machine.applied_index, machine.digest()


def size(folder: Path) -> int:
    return (folder / STATE).stat().st_size


def test_a_start_makes_a_state_of_free_pages_shorter(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What it holds stays, its checksums agree, and the log tells what was done."""
    before, held = size(folder), state_of(folder)
    caplog.set_level(logging.INFO)
    with opened(folder) as world:
        after = size(folder)
        assert (world.machine.applied_index, world.machine.digest()) == held
        sums = PageSums(folder / f"{STATE}-pages")
        sums.load()
        assert [sums.get(page) for page in range(1, len(sums) + 1)] == all_sums(folder)
        create_users(world, 1)
        held = world.machine.applied_index, world.machine.digest()
    assert after < FREE * PAGE < before
    (line,) = [each for each in caplog.records if each.msg == "state_shrunk"]
    assert (line.bytes_before, line.bytes_after) == (before, after)  # type: ignore[attr-defined]
    assert line.seconds >= 0  # type: ignore[attr-defined]
    assert not (folder / COPY).exists()
    with opened(folder) as world:
        assert (world.machine.applied_index, world.machine.digest()) == held


def all_sums(folder: Path) -> list[int | None]:
    """Return the checksums of the database's pages as they are."""
    sums = PageSums(folder / "unused")
    sums.compute(folder / STATE)
    return [sums.get(page) for page in range(1, len(sums) + 1)]


@pytest.mark.parametrize("reason", ["less than half is free", "the file is short"])
def test_a_start_leaves_other_states_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reason: str
) -> None:
    """A copy costs as much as what is used, and some free pages are used again."""
    prepare(tmp_path, 20)
    if reason == "the file is short":
        monkeypatch.setattr(free_pages, "BYTES_MIN", size(tmp_path))
        unused = Size(whole=size(tmp_path), used=0)
        monkeypatch.setattr(free_pages, "size_of", lambda _db: unused)
    else:
        monkeypatch.setattr(free_pages, "BYTES_MIN", 0)
    before, told = size(tmp_path), list[str]()
    with started(tmp_path / STATE, lambda: told.append("long")) as start:
        assert start.outcome is None
    assert told == []
    assert size(tmp_path) == before


def test_only_a_start_that_takes_long_says_so(folder: Path) -> None:
    """
    The service manager would end it after a minute and a half.

    It says so before each part: before the copy, the transaction and the checkpoint.
    """
    told: list[tuple[bool, bool]] = []

    def tell() -> None:
        is_copied = pages_of(folder / STATE)[1] == 0
        told.append(((folder / COPY).exists(), is_copied))
        assert size(folder) > FREE * PAGE, "the last checkpoint makes it shorter"

    for _ in range(2):
        with started(folder / STATE, tell):
            pass
    assert told == [(False, False), (True, False), (False, True)]


def test_an_attempt_that_was_killed_is_not_repeated_by_the_next_start(
    folder: Path,
) -> None:
    """It may have been killed because it took too long: then no start would succeed."""
    before, held = size(folder), state_of(folder)
    (folder / COPY).write_bytes(b"a part of a copy")
    with started(folder / STATE) as start:
        assert "the last attempt" in str(start.outcome)
        assert "restart the node once more" in str(start.outcome)
        assert start.digest() == held
    assert size(folder) == before
    with started(folder / STATE) as start:
        assert isinstance(start.outcome, Shrunk)
        assert start.digest() == held


def test_a_disk_without_room_is_not_filled(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Other services write to it, too. The log says how much it takes."""
    before, held = size(folder), state_of(folder)
    monkeypatch.setattr(free_pages, "ROOM", 1 << 60)
    monkeypatch.setattr(free_pages, "_write_copy", None)
    with opened(folder) as world:
        assert (world.machine.applied_index, world.machine.digest()) == held
        create_users(world, 1)
    (line,) = [each for each in caplog.records if each.msg == "state_not_shrunk"]
    assert line.levelno == logging.WARNING
    assert f"it takes {(1 << 60)}"[:8] in line.cause  # type: ignore[attr-defined]
    assert size(folder) == before


def test_a_state_that_another_program_reads_stays_as_it_is(folder: Path) -> None:
    """The log could not be thrown away after an error."""
    with contextlib.closing(sqlite3.connect(folder / STATE)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM users").fetchone()
        with started(folder / STATE) as start:
            held = start.digest()
            assert "another program reads" in str(start.outcome)
            reader.execute("ROLLBACK")
    with started(folder / STATE) as start:
        assert isinstance(start.outcome, Shrunk)
        assert start.digest() == held


def test_a_damaged_copy_is_not_used(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk may spoil it on its way."""
    before, held = size(folder), state_of(folder)
    check = free_pages.check_snapshot

    def spoiled(copy: Path) -> SnapshotFacts:
        content = bytearray(copy.read_bytes())
        content[PAGE * 30 : PAGE * 31] = bytes(PAGE)
        copy.write_bytes(content)
        return check(copy)

    monkeypatch.setattr(free_pages, "check_snapshot", spoiled)
    with started(folder / STATE) as start:
        assert isinstance(start.outcome, ShrinkError)
        assert start.digest() == held
    assert size(folder) == before
    assert not (folder / COPY).exists()


@pytest.fixture
def folders(folder: Path, tmp_path: Path) -> Iterator[Iterator[SegmentFolder]]:
    with copies_of(folder, tmp_path / "copy") as copies:
        yield copies


@WATCHED
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("end", ["kill", "power cut"])
def test_a_node_that_ends_at_any_call_starts_with_the_same_state(
    folder: Path, folders: Iterator[SegmentFolder], end: str, step: int
) -> None:
    """And one of the next two starts makes it shorter."""
    held = state_of(folder)
    for calls, each in zip(itertools.count(0, step), folders, strict=False):
        with (
            each.process(),
            contextlib.suppress(sqlite3.Error, OSError, CheckpointError),
            started(
                each.state,
                at_first(lambda: each.fail_after(calls, kills=True)),  # noqa: B023
            ),
        ):
            pass
        has_ended = each.has_failed
        if end == "power cut":
            each.lose_power()
        for _ in range(2):
            with started(each.state) as start:
                assert start.digest() == held, f"after {calls} calls"
        assert pages_of(each.state)[1] == 0, f"after {calls} calls"
        assert not each.state.with_name(COPY).exists()
        if not has_ended:
            break
    assert calls > 500, "it ended at each call"


@WATCHED
@pytest.mark.parametrize("step", STEPS)
def test_a_call_that_fails_costs_no_entry(
    folder: Path, folders: Iterator[SegmentFolder], step: int
) -> None:
    """A node that goes on after it has made its next entry durable; the power fails then."""
    held, gone_on = state_of(folder), 0
    for calls, each in zip(itertools.count(0, step), folders, strict=False):
        kept = held
        with (
            each.process(),
            contextlib.suppress(sqlite3.Error, OSError, CheckpointError),
            started(
                each.state,
                at_first(lambda: each.fail_after(calls, kills=False)),  # noqa: B023
            ) as start,
        ):
            has_failed = each.has_failed
            assert start.digest() == held, f"after {calls} calls"
            each.fail_after(1 << 30, kills=False)
            kept = start.go_on()
            gone_on += has_failed
        each.lose_power()
        with started(each.state) as start:
            assert start.digest() == kept, f"after {calls} calls"
        if kept != held and not has_failed:
            break
    assert gone_on > 500 // step, "it ended at each call"


def log_of(state: Path) -> Path:
    return state.with_name(f"{state.name}-wal")


class Full:
    """A disk that is full after some writes, until the copy gives its room back."""

    def __init__(self, state: Path, writes: int) -> None:
        self._copy = state.with_name(COPY)
        self._log = log_of(state)
        self._writes = writes
        self.log_before = 0
        self.was_full = False

    def begin(self, folder: SegmentFolder) -> None:
        """Let the attempt find this disk."""
        self.log_before = self._log.stat().st_size
        folder.fill(self)

    def __bool__(self) -> bool:
        self._writes -= 1
        is_full = self._writes < 0 and self._copy.exists()
        self.was_full |= is_full
        return is_full


@WATCHED
@pytest.mark.parametrize("step", STEPS)
def test_a_node_serves_the_state_as_it_was_after_its_disk_became_full(
    folder: Path, folders: Iterator[SegmentFolder], step: int
) -> None:
    """At whichever write. What the attempt took of the disk is free again."""
    held, before, lengths = state_of(folder), size(folder), set[int]()
    for writes, each in zip(itertools.count(0, step), folders, strict=False):
        full, log = Full(each.state, writes), log_of(each.state)
        with (
            each.process(),
            started(each.state, at_first(lambda: full.begin(each))) as start,  # noqa: B023
        ):
            assert start.digest() == held
            if not full.was_full:
                assert isinstance(start.outcome, Shrunk)
                break
            assert "full" in str(start.outcome)
            assert not each.state.with_name(COPY).exists()
            lengths.add(log.stat().st_size - full.log_before)
            kept = start.go_on()
        assert size(each.state.parent) == before
        each.lose_power()
        with started(each.state) as start:
            assert start.digest() == kept
    assert writes > 300, "it was full at each write"
    assert lengths == {0, -full.log_before}, "the log is as it was, or was cut"
