# SPDX-License-Identifier: Apache-2.0
"""One folder is one copy, also while its id is lost, replaced or moved (U4)."""

import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import pytest_asyncio

from sparecode_node.domain.ids import NodeId
from sparecode_node.domain.policy import DAY_MS
from sparecode_node.domain.segments import in_words
from sparecode_node.replication.replicator import Replicator
from sparecode_node.services.ambient import SystemEntropy
from sparecode_node.services.cluster import archive as archiving
from sparecode_node.services.cluster import archive_files
from sparecode_node.services.cluster.archive import SegmentArchive
from sparecode_node.services.cluster.retention import Retention
from sparecode_node.statemachine import audit, sealed_events
from sparecode_node.statemachine.commands.segments import RemoveSegments
from sparecode_node.statemachine.segment_chain import SegmentError
from sparecode_node.statemachine.short_segments import short_segments
from sparecode_node.statemachine.tables import archives
from tests.services.one_node import OneNode, one_node
from tests.services.test_archive import archive_of, named
from tests.services.test_notices import add_users

pytestmark = pytest.mark.asyncio

EVENTS = 8
DAYS = 90
PAUSE_S = 5


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "SEGMENT_EVENTS", EVENTS)
    monkeypatch.setattr(archiving, "REST", 0.0)


@pytest_asyncio.fixture
async def node(tmp_path: Path) -> AsyncIterator[OneNode]:
    """Return a node with three sealed segments, which retention may soon remove."""
    sealed_events.create(tmp_path / "local.db")
    for name in ("shared", "other"):
        (tmp_path / name).mkdir()
    async with one_node(tmp_path) as node:
        await node.policies.update(
            node.admin("PolicyService/UpdatePolicy"),
            version=1,
            values={"second_approver": False, "audit_retention_ms": DAYS * DAY_MS},
        )
        await add_users(node, *(f"user{number}" for number in range(3 * EVENTS)))
        yield node


class Speaker:
    """The replicator as another member has it."""

    def __init__(self, node: OneNode, node_id: str) -> None:
        self._replicator = node.replicator
        self.node_id = NodeId(node_id)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._replicator, name)


class Archiver:
    """A member with an archive, all on the state of one node."""

    def __init__(self, node: OneNode, folder: Path, node_id: str) -> None:
        self.node, self.name = node, f"node:{node_id}"
        state = folder.parent / "local.db"
        self.archive: SegmentArchive = archive_of(node, state, folder, node_id)
        self.retention = Retention(
            archive=self.archive,
            replicator=cast(Replicator, Speaker(node, node_id)),
            state=node.state,
            clock=node.clock,
            entropy=SystemEntropy(),
        )

    async def turn(self) -> None:
        """Confirm, look and confirm, as both tasks do within seconds."""
        self.node.clock.pass_s(PAUSE_S)
        await self.retention.step()
        with contextlib.suppress(SegmentError, OSError):
            await self.archive.step()
        await self.retention.step()

    @property
    def folder(self) -> str:
        return archives.folder_of(self.node.local_db, self.name)

    @property
    def confirmed(self) -> frozenset[int]:
        return archives.numbers_of(self.node.local_db, self.name)


async def turns(*archivers: Archiver, times: int = 4) -> None:
    for _ in range(times):
        for each in archivers:
            await each.turn()


async def grow_old(node: OneNode, *archivers: Archiver) -> None:
    """Let the segments come to the age at which they may be removed, and let this node lead."""
    node.clock.pass_s((DAYS + 1) * DAY_MS / 1000)
    await turns(*archivers)
    node.replicator.leads = True


def removed(node: OneNode) -> int:
    return archives.removed(node.local_db).through


def short(node: OneNode) -> str:
    return in_words(short_segments(node.local_db, node.clock.now_ms()).ranges)


def calls(node: OneNode) -> int:
    return len(node.replicator.entries)


def lose_id(folder: Path) -> None:
    (folder / archive_files.FOLDER_ID).unlink()


async def test_a_lost_id_makes_no_second_copy_of_a_shared_folder(
    node: OneNode, tmp_path: Path
) -> None:
    """(U4) The member that has not looked again counts no longer, for as long as it takes."""
    one, other = (Archiver(node, tmp_path / "shared", each) for each in ("n1", "n0"))
    await grow_old(node, one, other)
    assert one.folder == other.folder != ""
    lose_id(tmp_path / "shared")
    for _ in range(5):
        await one.turn()
        assert removed(node) == 0
        assert short(node).startswith("1 to ")
    assert one.confirmed >= {1, 2, 3}
    assert one.folder != other.folder
    await turns(other, one)
    assert one.folder == other.folder
    assert removed(node) == 0


async def test_a_third_member_that_makes_the_new_id_makes_no_second_copy(
    node: OneNode, tmp_path: Path
) -> None:
    """(U4) It joins, finds no id, and has told before the others look."""
    one, other = (Archiver(node, tmp_path / "shared", each) for each in ("n1", "n0"))
    await grow_old(node, one, other)
    lose_id(tmp_path / "shared")
    third = Archiver(node, tmp_path / "shared", "n3")
    for _ in range(5):
        await third.turn()
        await node_removes(node)
        assert removed(node) == 0
    assert third.confirmed >= {1, 2, 3}
    await turns(one, other, third)
    assert one.folder == other.folder == third.folder
    assert removed(node) == 0


async def node_removes(node: OneNode) -> None:
    await Retention(
        archive=None,
        replicator=cast(Replicator, node.replicator),
        state=node.state,
        clock=node.clock,
        entropy=SystemEntropy(),
    )._remove()


async def test_an_id_is_read_after_the_state(
    node: OneNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """(U4) A change that the state has by the end of a look says nothing of the id it read."""
    one, other = (Archiver(node, tmp_path / "shared", each) for each in ("n1", "n0"))
    await turns(one, other)
    read = archive_files.folder_id

    def slow(*arguments: Any) -> str:
        found = read(*arguments)
        assert one.archive.told is not None
        one.archive.told = replace(one.archive.told, folder_changes=100)
        return found

    monkeypatch.setattr(archive_files, "folder_id", slow)
    before = one.archive.told
    assert before is not None
    await one.archive.step()
    assert one.archive.found.folder_changes == before.folder_changes


async def test_a_former_id_that_comes_back_makes_no_second_copy(
    node: OneNode, tmp_path: Path
) -> None:
    """(U4) As from a snapshot of the folder. A third member is down, and has told it, too."""
    one, other, third = (
        Archiver(node, tmp_path / "shared", each) for each in ("n1", "n0", "n3")
    )
    await turns(one, other, third)
    id_file = tmp_path / "shared" / archive_files.FOLDER_ID
    former = id_file.read_bytes()
    await grow_old(node, one, other)
    lose_id(tmp_path / "shared")
    await turns(one, other)
    id_file.write_bytes(former)
    for _ in range(5):
        await one.turn()
        assert removed(node) == 0
        assert not node.replicator.commands(RemoveSegments), "nor is it asked for"
    assert one.folder != other.folder


async def test_the_id_of_another_folder_makes_no_second_copy(
    node: OneNode, tmp_path: Path
) -> None:
    """(U4) Its files are copied here, with the id. The member that has it is down."""
    one, other = (Archiver(node, tmp_path / "shared", each) for each in ("n1", "n0"))
    third = Archiver(node, tmp_path / "other", "n3")
    await turns(one, other, third)
    await grow_old(node, one, other)
    name = archive_files.FOLDER_ID
    lose_id(tmp_path / "shared")
    (tmp_path / "other" / name).rename(tmp_path / "shared" / name)
    for _ in range(5):
        await one.turn()
        assert removed(node) == 0
    assert one.folder == third.folder != other.folder


async def test_an_archive_that_moves_lets_retention_go_on(
    node: OneNode, tmp_path: Path
) -> None:
    """(U4) After the other one has told again, too."""
    (tmp_path / "moved").mkdir()
    one = Archiver(node, tmp_path / "shared", "n1")
    other = Archiver(node, tmp_path / "other", "n0")
    await turns(one, other)
    one = Archiver(node, tmp_path / "moved", "n1")
    await grow_old(node, one)
    await one.turn()
    assert removed(node) == 0
    await other.turn()
    await one.turn()
    assert removed(node) >= 3
    assert one.folder != other.folder


async def test_members_tell_of_a_new_id_once_again_and_then_are_silent(
    node: OneNode, tmp_path: Path
) -> None:
    """(U4) Two folders, or one that two of three share: none makes another speak forever."""
    folders = {"n1": "shared", "n0": "shared", "n3": "other"}
    every = [Archiver(node, tmp_path / folders[each], each) for each in folders]
    await turns(*every, times=6)
    assert short(node) == ""
    before = calls(node)
    await turns(*every)
    assert calls(node) == before
    lose_id(tmp_path / "shared")
    await turns(*every, times=6)
    assert short(node) == ""
    assert every[0].folder == every[1].folder != every[2].folder
    before = calls(node)
    await turns(*every)
    assert calls(node) == before


@pytest.mark.parametrize("when", ["while it runs", "before a start"])
async def test_a_folder_with_another_id_is_read_before_it_is_told(
    node: OneNode, tmp_path: Path, when: str
) -> None:
    """(U4) A bad copy of the folder is no copy, whatever its files are named."""
    one = Archiver(node, tmp_path / "shared", "n1")
    await turns(one)
    assert one.confirmed == {1, 2, 3}
    first, *_ = files = named(tmp_path / "shared", "*.jsonl")
    whole = first.read_bytes()
    for each in files:
        each.write_bytes(b"{}\n")
    first.write_bytes(whole)
    lose_id(tmp_path / "shared")
    before = one.folder
    if when == "before a start":
        one = Archiver(node, tmp_path / "shared", "n1")
    await one.turn()
    assert one.confirmed == {1}
    assert one.folder == one.archive.found.folder_id != before
    await turns(one)
    assert one.confirmed == {1, 2, 3}  # Written again.


async def test_nothing_of_a_former_folder_is_told_of_another(
    node: OneNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """(U4) Until all of it is read, the former confirmation is withdrawn."""
    one = Archiver(node, tmp_path / "shared", "n1")
    await turns(one)

    def forbidden(*_: object) -> None:
        raise OSError("Input/output error")

    prove: Callable[..., None] = archive_files.prove
    lose_id(tmp_path / "shared")
    monkeypatch.setattr(archive_files, "prove", forbidden)
    await one.turn()
    assert one.confirmed == frozenset()
    monkeypatch.setattr(archive_files, "prove", prove)
    await turns(one)
    assert one.confirmed >= {1, 2, 3}
