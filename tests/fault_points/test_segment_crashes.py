# SPDX-License-Identifier: Apache-2.0
"""
Crashes on a sealed segment's way into the file of a node, and out of it (U1, U4).

Every segment is proved after the next start, or named and fetched again, and no event is
there twice.
"""

import contextlib
import errno
import os
import shutil
import sqlite3
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from sparecode_node import fault_points
from sparecode_node.fault_points import Point
from sparecode_node.replication.links import segment_exchange
from sparecode_node.replication.links.segment_exchange import SegmentNotHeldError
from sparecode_node.services.cluster import segments as keeping
from sparecode_node.services.cluster.segments import SegmentKeeper
from sparecode_node.statemachine import audit, sealed_events
from sparecode_node.statemachine.sealed_events import SealedEvents, file_of
from tests.fault_points.strikes import Action, actions_at
from tests.services.one_node import OneNode, one_node
from tests.services.test_notices import add_users
from tests.services.test_segments import (
    EVENTS,
    another_member,
    discard,
    kept,
    linked,
    stored_numbers,
    zero_page_of,
)
from tests.statemachine.segment_folder import (
    STATE,
    WATCHED,
    SegmentFolder,
    copies_of,
)

pytestmark = [pytest.mark.asyncio, WATCHED]

DEATHS = (Action.KILL, Action.POWER)
SEALED = 10
"""Segments, in some pages of the file."""


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "SEGMENT_EVENTS", EVENTS)
    monkeypatch.setattr(segment_exchange, "PART_EVENTS", 3)
    monkeypatch.setattr(keeping, "REST", 0.0)


@pytest_asyncio.fixture
async def node(tmp_path: Path) -> AsyncIterator[OneNode]:
    sealed_events.create(tmp_path / "local.db")
    async with one_node(tmp_path) as node:
        await add_users(node, *(f"user{number}" for number in range(SEALED * EVENTS)))
        yield node


@pytest_asyncio.fixture
async def whole(node: OneNode, tmp_path: Path) -> AsyncIterator[SegmentKeeper]:
    """Return another member, which has all segments."""
    assert node
    async with another_member(tmp_path / "local.db") as keeper:
        yield keeper


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "image"
    path.mkdir()
    return path


@pytest.fixture
def folders(image: Path, tmp_path: Path) -> Iterator[Iterator[SegmentFolder]]:
    with copies_of(image, tmp_path / "copy") as copies:
        yield copies


def take(source: Path, image: Path) -> None:
    """Take a copy of a node's state, and of its file."""
    for path in (source, file_of(source)):
        with contextlib.closing(sqlite3.connect(path)) as db:
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    shutil.copy(source, image / STATE)
    shutil.copy(file_of(source), file_of(image / STATE))


async def take_without_events(node: OneNode, source: Path, image: Path) -> None:
    """Take a copy of a node that has joined, and has no segment."""
    await discard(node, source)
    take(source, image)
    with contextlib.closing(sqlite3.connect(file_of(image / STATE))) as db:
        db.execute("DELETE FROM audit_events")
        db.execute("DELETE FROM stored_segments")
        db.commit()
        db.execute("PRAGMA journal_mode = DELETE").fetchone()


async def step_without_members(state: Path) -> list[int]:
    """Start a node that reaches no member; return the segments that it names."""
    sealed_events.create(state)
    async with kept(state) as keeper:
        with contextlib.suppress(SegmentNotHeldError):
            await keeper.step()
        return [each.number for each in keeper.missing]


async def step_with(state: Path, whole: SegmentKeeper) -> None:
    """Let a node do a step that reaches a member with all segments."""
    async with kept(state) as keeper, linked(keeper.exchange, n2=whole):
        await keeper.step()
        assert keeper.missing == ()


async def is_whole_again(state: Path, whole: SegmentKeeper) -> None:
    """See that a node which starts now proves each segment, or names and fetches it."""
    named = await step_without_members(state)
    had = proved(state)
    assert not set(named) & set(had)
    assert sorted([*named, *had]) == list(range(1, SEALED + 1))
    await step_with(state, whole)
    assert proved(state) == list(range(1, SEALED + 1))


def proved(state: Path) -> list[int]:
    """Return the segments that count as stored; each is read and proved."""
    with contextlib.closing(SealedEvents(state)) as file:
        for segment in file.segments():
            if segment.number in file.stored():
                file.verify(segment)
        counted = sorted(file.stored())
        (events,) = file._db.execute("SELECT count(*) FROM audit_events").fetchone()
    assert events >= EVENTS * len(counted)
    assert len(counted) < SEALED or events == EVENTS * SEALED, "nothing is there twice"
    return counted


@pytest.mark.parametrize("action", DEATHS)
@pytest.mark.parametrize(
    ("point", "passes"),
    [
        (Point.SEGMENT_FETCHED, 0),
        (Point.SEGMENT_COMMIT, 0),  # Of a segment that does not count any longer,
        (Point.SEGMENT_COMMIT, 1),  # of its events,
        (Point.SEGMENT_COMMIT, 2),  # and of one that counts.
    ],
)
async def test_a_node_that_dies_as_it_fetches_begins_that_segment_again(
    node: OneNode,
    whole: SegmentKeeper,
    tmp_path: Path,
    image: Path,
    folders: Iterator[SegmentFolder],
    point: Point,
    passes: int,
    action: Action,
) -> None:
    """(U1) What does not count is fetched, and what counts is whole."""
    await take_without_events(node, tmp_path / "local.db", image)
    folder = next(folders)
    for _ in range(3):
        with folder.struck(point, action, passes):
            sealed_events.create(folder.state)
            await step_with(folder.state, whole)
    # Events that were there without counting count at the next start.
    assert stored_numbers(folder.state) == ([SEALED] if passes == 2 else [])
    await is_whole_again(folder.state, whole)


@pytest.mark.parametrize("action", DEATHS)
async def test_a_node_that_dies_after_some_fetches_goes_on_with_the_next(
    node: OneNode,
    whole: SegmentKeeper,
    tmp_path: Path,
    image: Path,
    folders: Iterator[SegmentFolder],
    action: Action,
) -> None:
    """(U1) What it has fetched and proved outlasts the power cut, and is not fetched again."""
    await take_without_events(node, tmp_path / "local.db", image)
    folder = next(folders)
    fetched: list[Point] = []
    with folder.struck(Point.SEGMENT_FETCHED, action, passes=3):
        sealed_events.create(folder.state)
        await step_with(folder.state, whole)
    assert proved(folder.state) == [SEALED - 2, SEALED - 1, SEALED]
    before = fault_points.install(
        lambda point: point is Point.SEGMENT_FETCHED and fetched.append(point)
    )
    try:
        await is_whole_again(folder.state, whole)
    finally:
        fault_points.install(before)
    assert len(fetched) == SEALED - 3


@pytest.mark.parametrize("action", DEATHS)
@pytest.mark.parametrize(
    ("point", "passes", "stored"),
    [
        (Point.SEGMENT_COMMIT, 0, []),
        (Point.SEGMENT_COMMIT, 1, []),
        (Point.SEGMENT_STORED, 0, [1]),
        (Point.SEGMENT_STORED, 4, [1, 2, 3, 4, 5]),
    ],
)
async def test_a_node_that_dies_as_it_stores_its_own_events_stores_them_again(
    node: OneNode,
    tmp_path: Path,
    image: Path,
    folders: Iterator[SegmentFolder],
    point: Point,
    passes: int,
    stored: list[int],
    action: Action,
) -> None:
    """(U1) Its state has them until every voter has told that they are stored."""
    assert node
    take(tmp_path / "local.db", image)
    folder = next(folders)
    with folder.struck(point, action, passes):
        sealed_events.create(folder.state)
        async with kept(folder.state) as keeper:
            await keeper.step()
    assert proved(folder.state) == stored
    assert await step_without_members(folder.state) == []
    assert proved(folder.state) == list(range(1, SEALED + 1))


@pytest.mark.parametrize("action", DEATHS)
@pytest.mark.parametrize(
    ("point", "passes"), [(Point.SEGMENT_ASIDE, 0), (Point.SEGMENT_COMMIT, 1)]
)
async def test_a_node_that_dies_as_it_replaces_a_damaged_file_names_what_it_lacks(
    node: OneNode,
    whole: SegmentKeeper,
    tmp_path: Path,
    image: Path,
    folders: Iterator[SegmentFolder],
    point: Point,
    passes: int,
    action: Action,
) -> None:
    """(U1) It is put aside with its log, and what it still has is recovered."""
    await discard(node, tmp_path / "local.db")
    take(tmp_path / "local.db", image)
    zero_page_of(image / STATE, 3)
    folder = next(folders)
    for _ in range(2):
        with folder.struck(point, action, passes):
            sealed_events.create(folder.state)
            async with kept(folder.state) as keeper:
                keeper.suspect_file()
                await keeper.step()
    sealed_events.create(folder.state)
    assert len(sealed_events.put_aside_files(folder.state)) == 1
    named = await step_without_members(folder.state)
    assert 1 in named
    assert len(named) < SEALED, "the rest is recovered"
    await is_whole_again(folder.state, whole)


async def test_an_error_of_the_commit_is_tried_again(
    node: OneNode, whole: SegmentKeeper, tmp_path: Path, image: Path
) -> None:
    """(U1) By the same process: the disk was full."""
    assert Action.ERROR in actions_at(Point.SEGMENT_COMMIT)
    await take_without_events(node, tmp_path / "local.db", image)
    state = image / STATE

    def fail(point: Point) -> None:
        if point is Point.SEGMENT_COMMIT:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    sealed_events.create(state)
    async with kept(state) as keeper, linked(keeper.exchange, n2=whole):
        before = fault_points.install(fail)
        try:
            with pytest.raises(OSError, match="No space left"):
                await keeper.step()
            assert keeper.missing
        finally:
            fault_points.install(before)
        await keeper.step()
        assert keeper.missing == ()
    await is_whole_again(state, whole)
