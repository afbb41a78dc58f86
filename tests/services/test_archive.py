# SPDX-License-Identifier: Apache-2.0
"""The archive: sealed audit events with signed checkpoints, proved without a node (U2)."""

import asyncio
import errno
import os
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from sparecode_client.audit.archive import archived_segments
from sparecode_client.audit.checkpoints import read_checkpoint, signature_is_right
from sparecode_client.audit.verification import verify_files
from sparecode_node.services.cluster import archive as archiving
from sparecode_node.services.cluster import archive_files, checkpoints
from sparecode_node.services.cluster.archive import SegmentArchive
from sparecode_node.statemachine import audit, sealed_events
from sparecode_node.statemachine.sealed_events import SegmentError
from sparecode_node.tool.doctor.archive import check_archive
from sparecode_node.tool.doctor.findings import Verdict
from tests.services.one_node import OneNode, one_node
from tests.services.test_notices import add_users
from tests.services.test_segments import discard, stored_numbers

pytestmark = pytest.mark.asyncio

EVENTS = 8


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "SEGMENT_EVENTS", EVENTS)
    monkeypatch.setattr(archiving, "REST", 0.0)
    monkeypatch.setattr(archiving, "PART_EVENTS", 3)


@pytest_asyncio.fixture
async def node(tmp_path: Path) -> AsyncIterator[OneNode]:
    """Return a node with three sealed segments."""
    sealed_events.create(tmp_path / "local.db")
    async with one_node(tmp_path) as node:
        await add_users(node, *(f"user{number}" for number in range(3 * EVENTS)))
        yield node


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "archive"
    path.mkdir()
    return path


def archive_of(
    node: OneNode, state: Path, folder: Path, node_id: str = "n1"
) -> SegmentArchive:
    return SegmentArchive(
        folder=folder,
        state=state,
        node_id=node_id,
        sign=lambda head: checkpoints.sign(
            node.sealing, head, at_ms=node.clock.now_ms()
        ),
    )


def named(folder: Path, pattern: str) -> list[Path]:
    return sorted(folder.glob(pattern))


def content_of(folder: Path) -> dict[str, bytes]:
    return {each.name: each.read_bytes() for each in folder.iterdir()}


def proved(folder: Path) -> int:
    """Return up to which event a stranger proves the archive."""
    segments = archived_segments(folder)
    signed = [read_checkpoint(each.checkpoint) for each in segments]
    assert all(map(signature_is_right, signed))
    verdict = verify_files([each.events for each in segments], signed)
    assert verdict.problem is None
    assert verdict.first == 1
    return verdict.proved_up_to


async def test_an_archive_is_proved_without_a_node(
    node: OneNode, tmp_path: Path, folder: Path
) -> None:
    """(U2) Before and after the events have left the state."""
    archive = archive_of(node, tmp_path / "local.db", folder)
    await archive.step()
    assert proved(folder) == 3 * EVENTS
    assert archive.waiting == 0
    assert archive.holding.held == ((1, 3),)
    assert {oct(each.stat().st_mode & 0o777) for each in named(folder, "*")} == {
        "0o640"
    }
    await discard(node, tmp_path / "local.db")
    before = content_of(folder)
    for each in named(folder, "*"):
        each.unlink()
    await archive.step()
    after = content_of(folder)
    assert {name: after[name] for name in after if name.endswith(".jsonl")} == {
        name: before[name] for name in before if name.endswith(".jsonl")
    }


async def test_a_repeated_step_writes_nothing(
    node: OneNode, tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node that starts again goes on where it was."""
    await archive_of(node, tmp_path / "local.db", folder).step()
    before = content_of(folder)

    def forbidden(*_: Any, **__: Any) -> None:
        raise AssertionError

    monkeypatch.setattr(archive_files, "write", forbidden)
    again = archive_of(node, tmp_path / "local.db", folder)
    await again.step()
    assert content_of(folder) == before
    assert again.waiting == 0


class PowerCutError(BaseException):
    """The machine stops."""


class FailingDisk:
    """Fails the n-th call of one function."""

    def __init__(self, failure: BaseException) -> None:
        self.failure = failure
        self.calls = self.fails_at = 0

    def through(self, real: Any) -> Any:
        def call(*args: Any, **options: Any) -> Any:
            self.calls += 1
            if self.calls == self.fails_at:
                raise self.failure
            return real(*args, **options)

        return call


FAILURES = {
    "power cut": PowerCutError(),
    "full disk": OSError(errno.ENOSPC, "No space left on device"),
}


@pytest.mark.parametrize(
    ("owner", "call", "times"),
    [
        (os, "open", 4),
        (os, "fsync", 4),  # Two files, and the folder after each.
        (Path, "replace", 2),
        # While it is written, and once while each of the three is read back.
        (archive_files.audit_export, "lines", EVENTS + 3),
    ],
)
@pytest.mark.parametrize("kind", FAILURES)
async def test_each_call_of_the_disk_may_fail(
    node: OneNode,
    tmp_path: Path,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    owner: Any,
    call: str,
    times: int,
    kind: str,
) -> None:
    """(U2) No half file has a final name, whichever call fails; the next step goes on."""
    disk = FailingDisk(FAILURES[kind])
    archive = archive_of(node, tmp_path / "local.db", folder)
    failed = 0
    while lacking := archive._look():
        disk.calls, disk.fails_at = 0, failed + 1
        with monkeypatch.context() as patch:
            patch.setattr(owner, call, disk.through(getattr(owner, call)))
            if kind == "power cut":  # Nothing is cleaned up.
                patch.setattr(Path, "unlink", lambda *_, **__: None)
            try:
                archive._write(lacking[0])
            except (PowerCutError, OSError):
                failed += 1
        names = archive_files.present(folder)
        for segment in lacking:
            files = archive_files.ArchivedFiles.of(folder, segment)
            if files.name in names:
                archive_files.prove(files, segment)
    assert failed == times
    assert proved(folder) == 3 * EVENTS


@pytest.mark.parametrize("suffix", [".jsonl", ".checkpoint.json"])
@pytest.mark.parametrize("damage", [b"{}\n", b"", b"\xff\xfe"])
async def test_a_rotten_copy_is_named_put_aside_and_written_again(
    node: OneNode, tmp_path: Path, folder: Path, suffix: str, damage: bytes
) -> None:
    """(U2)."""
    archive = archive_of(node, tmp_path / "local.db", folder)
    await archive.step()
    (rotten,) = named(folder, f"00000002-*{suffix}")
    rotten.write_bytes(damage)
    await archive.read_again()
    with pytest.raises(SegmentError, match="segment 2 is damaged in the archive"):
        await archive.read_again()
    assert archive.waiting == 1
    assert rotten.with_name(f"{rotten.name}.damaged-1").read_bytes() == damage
    await archive.step()
    assert archive.waiting == 0
    assert proved(folder) == 3 * EVENTS


async def test_a_checkpoint_of_another_segment_is_found(
    node: OneNode, tmp_path: Path, folder: Path
) -> None:
    """(U2) It is signed, and proves nothing here."""
    archive = archive_of(node, tmp_path / "local.db", folder)
    await archive.step()
    first, second, _ = named(folder, "*.checkpoint.json")
    first.write_bytes(second.read_bytes())
    with pytest.raises(SegmentError, match="the checkpoint is of other events"):
        await archive.read_again()
    await archive.step()
    assert proved(folder) == 3 * EVENTS


async def test_one_flipped_bit_of_an_event_is_found(
    node: OneNode, tmp_path: Path, folder: Path
) -> None:
    archive = archive_of(node, tmp_path / "local.db", folder)
    await archive.step()
    rotten = named(folder, "*.jsonl")[0]
    for place in (40, 400, -70):
        content = bytearray(rotten.read_bytes())
        content[place] ^= 1
        rotten.write_bytes(content)
        archive._read_again = 0
        with pytest.raises(SegmentError):
            await archive.read_again()
        await archive.step()
        assert proved(folder) == 3 * EVENTS


async def test_a_folder_that_is_not_mounted_is_a_failure(
    node: OneNode,
    tmp_path: Path,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Otherwise the log fills the disk of the mount point. The node goes on."""
    moved = folder.with_name("not-mounted")
    folder.rename(moved)  # noqa: ASYNC240
    monkeypatch.setattr(archiving, "RETRY_S", 0.01)
    archive = archive_of(node, tmp_path / "local.db", folder)
    task = asyncio.create_task(archive.run())
    async with asyncio.timeout(20):
        while "No such file or directory" not in str(list(map(vars, caplog.records))):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        assert named(tmp_path, "archive") == []
        assert archive.waiting == 3
        moved.rename(folder)
        while archive.waiting or archive.holding.held != ((1, 3),):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize(
    "damage",
    [
        "DELETE FROM audit_events WHERE sequence = ?",
        "UPDATE audit_events SET detail = 'x' WHERE sequence = ?",
    ],
)
async def test_what_this_node_lacks_is_left_out_until_it_is_fetched(
    node: OneNode, tmp_path: Path, folder: Path, damage: str
) -> None:
    """(U2) Never less than a whole segment, and nothing that the chain does not prove."""
    path = tmp_path / "local.db"
    await discard(node, path)
    with sqlite3.connect(sealed_events.file_of(path)) as db:
        db.execute(damage, (EVENTS + 2,))
    archive = archive_of(node, path, folder)
    with pytest.raises(SegmentError):
        await archive.step()
    assert archive.holding.held == ((1, 1), (3, 3))
    assert archive.waiting == 1
    assert stored_numbers(path) == [1, 2, 3]


async def test_two_nodes_may_share_an_archive(
    node: OneNode, tmp_path: Path, folder: Path
) -> None:
    first = archive_of(node, tmp_path / "local.db", folder)
    second = archive_of(node, tmp_path / "local.db", folder, "n2")
    await asyncio.gather(first.step(), second.step())
    assert proved(folder) == 3 * EVENTS
    assert named(folder, ".*") == []


async def test_the_doctor_tells_what_is_not_archived(
    node: OneNode, tmp_path: Path, folder: Path
) -> None:
    """(U2) Without reading the copies."""
    state = tmp_path / "local.db"

    def finding(folder: Path) -> tuple[Verdict, str]:
        (found,) = check_archive(state, folder)
        return found.verdict, found.words

    assert list(check_archive(state, None)) == []
    verdict, words = finding(tmp_path / "none")
    assert verdict is Verdict.FAIL
    assert "mount or create it" in words
    verdict, words = finding(folder)
    assert verdict is Verdict.WARN
    assert words.startswith(f"3 of 3 segments are not in {folder}")
    await archive_of(node, state, folder).step()
    assert finding(folder) == (Verdict.OK, f"3 segments in {folder}")
