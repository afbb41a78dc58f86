# SPDX-License-Identifier: Apache-2.0
"""The archive: sealed audit events with signed checkpoints, proved without a node (U2)."""

import asyncio
import contextlib
import errno
import json
import os
import sqlite3
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from sparecode_client.audit.archive import archived_segments
from sparecode_client.audit.checkpoints import read_checkpoint, signature_is_right
from sparecode_client.audit.verification import verify_files
from sparecode_node.queries.archives import Told
from sparecode_node.services.ambient import SystemEntropy
from sparecode_node.services.cluster import archive as archiving
from sparecode_node.services.cluster import archive_files
from sparecode_node.services.cluster.archive import Found, SegmentArchive
from sparecode_node.services.files.guarded_files import create
from sparecode_node.statemachine import audit, sealed_events
from sparecode_node.statemachine.segment_chain import SegmentError
from sparecode_node.statemachine.tables import segments
from sparecode_node.statemachine.tables.segments import Segment
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
        sealing=node.sealing,
        entropy=SystemEntropy(),
    )


def named(folder: Path, pattern: str) -> list[Path]:
    return sorted(folder.glob(pattern))


def content_of(folder: Path) -> dict[str, bytes]:
    return {each.name: each.read_bytes() for each in folder.iterdir()}


def proved(folder: Path) -> int:
    """Return up to which event a stranger proves the archive."""
    archived = archived_segments(folder)
    signed = [read_checkpoint(each.checkpoint) for each in archived]
    assert all(map(signature_is_right, signed))
    verdict = verify_files([each.events for each in archived], signed)
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


async def test_a_checkpoint_says_when_its_segment_ended(
    node: OneNode, tmp_path: Path, folder: Path
) -> None:
    """(U2) Signed at a later time, it would say that the log had no more events then."""
    archive = archive_of(node, tmp_path / "local.db", folder)
    await archive.step()
    first = named(folder, "*.checkpoint.json")[0]
    right = first.read_bytes()
    (segment, *_) = segments.all_sealed(node.local_db)
    assert json.loads(right)["at_ms"] == segment.last_at_ms
    first.write_bytes(b"{}")
    archive._read_again = 0
    with pytest.raises(SegmentError, match="the checkpoint is damaged"):
        await archive.read_again()
    node.clock.pass_s(3600)
    await archive.step()
    assert first.read_bytes() == right


async def test_a_long_step_ends_so_that_others_are_done(
    node: OneNode, tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What fails comes last, and takes no time from the rest."""
    monkeypatch.setattr(archiving, "ROUND_S", 0.0)
    archive = archive_of(node, tmp_path / "local.db", folder)
    (first, *_) = archive._look()
    files = archive_files.ArchivedFiles.of(folder, first)
    files.events.with_name(f".{files.events.name}.n1.part").mkdir()
    with pytest.raises(OSError, match=r"Is a directory|Operation not permitted"):
        await archive.step()
    for number in (2, 3):
        await archive.step()
        assert archive.holding.held == ((2, number),)


async def test_a_quiet_archive_is_looked_at_once_a_minute(
    node: OneNode, tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A look costs the more, the older the log is."""
    archive = archive_of(node, tmp_path / "local.db", folder)
    looks = []
    look = archive._look

    def counted() -> Any:
        looks.append(1)
        return look()

    monkeypatch.setattr(archive, "_look", counted)
    await archive._step_if_due()
    assert len(looks) == 2
    await archive._step_if_due()
    assert len(looks) == 3
    for _ in range(5):
        await archive._step_if_due()
    assert len(looks) == 3
    await add_users(node, *(f"more{number}" for number in range(EVENTS)))
    await archive._step_if_due()
    assert archive.holding.held == ((1, 4),)
    monkeypatch.setattr(archiving, "LOOK_S", 0.0)
    await archive._step_if_due()
    assert len(looks) == 6


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

    def until_it_failed(self, real: Any) -> Any:
        def call(*args: Any, **options: Any) -> Any:
            return None if self.calls >= self.fails_at else real(*args, **options)

        return call


FAILURES = {
    "power cut": PowerCutError(),
    "full disk": OSError(errno.ENOSPC, "No space left on device"),
}


@pytest.mark.parametrize(
    ("owner", "call", "times"),
    [
        # Two files, the folder after each, and both again to read them.
        (os, "open", 6),
        (os, "fsync", 4),  # Two files, and the folder after each.
        (Path, "replace", 2),
        # While it is written, and while it is read back.
        (archive_files.audit_export, "lines", 2 * EVENTS),
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
            if kind == "power cut":  # Nothing is cleaned up after it.
                patch.setattr(Path, "unlink", disk.until_it_failed(Path.unlink))
            try:
                archive._write(lacking[0])
            except (PowerCutError, OSError):
                failed += 1
        names = archive_files.present(folder)
        for segment in lacking:
            files = archive_files.ArchivedFiles.of(folder, segment)
            if files.name in names:
                archive._prove(segment)
    assert failed == times
    assert proved(folder) == 3 * EVENTS


async def test_a_file_is_synced_before_it_gets_its_name(
    node: OneNode, tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """(U2) A power cut takes what is not synced, whatever its name is."""
    did: list[str] = []

    def noted(what: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def noting(*arguments: Any, **more: Any) -> Any:
            did.append(what)
            return call(*arguments, **more)

        return noting

    monkeypatch.setattr(archive_files.os, "fsync", noted("sync", os.fsync))
    monkeypatch.setattr(Path, "replace", noted("name", Path.replace))
    synced = noted("sync folder", archive_files.sync_directory)
    monkeypatch.setattr(archive_files, "sync_directory", synced)
    archive = archive_of(node, tmp_path / "local.db", folder)
    monkeypatch.setattr(Path, "hardlink_to", noted("name", Path.hardlink_to))
    (first, *_) = archive._look()
    file = ["sync", "name", "sync folder"]
    assert did[:3] == file  # The id of the folder.
    did.clear()
    archive._write(first)
    assert [each for each in did if each != "sync"] == [*file[1:], *file[1:]]
    assert did[:2] == file[:2]
    assert did[did.index("sync folder") :].count("sync") >= 1


@pytest.mark.parametrize("has_links", [True, False])
async def test_nodes_that_share_a_folder_read_one_id(
    node: OneNode,
    tmp_path: Path,
    folder: Path,
    has_links: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """(U4) The first one makes it; another folder has another id."""
    if not has_links:

        def without(*_: object) -> None:
            raise PermissionError(errno.EPERM, "Operation not permitted")

        monkeypatch.setattr(Path, "hardlink_to", without)
    own, other = (
        archive_of(node, tmp_path / "local.db", folder, node_id)
        for node_id in ("n1", "n2")
    )
    (tmp_path / "elsewhere").mkdir()
    third = archive_of(node, tmp_path / "local.db", tmp_path / "elsewhere", "n3")
    for each in (own, other, third):
        await each.step()
    assert len(own.found.folder_id) == 32
    assert own.found.folder_id == other.found.folder_id != third.found.folder_id
    assert proved(folder) == 3 * EVENTS
    assert not named(folder, ".*")
    again = archive_of(node, tmp_path / "local.db", folder)
    await again.step()
    assert again.found.folder_id == own.found.folder_id


async def test_two_nodes_that_come_at_once_read_one_id(
    node: OneNode, tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """(U4) Both found no id. The second one does not replace that of the first."""
    own, other = (
        archive_of(node, tmp_path / "local.db", folder, node_id)
        for node_id in ("n1", "n2")
    )
    link = Path.hardlink_to

    def later(path: Path, part: Path) -> None:
        monkeypatch.setattr(Path, "hardlink_to", link)
        other._look()
        link(path, part)

    monkeypatch.setattr(Path, "hardlink_to", later)
    own._look()
    assert own.found.folder_id == other.found.folder_id != ""


async def test_a_damaged_id_stops_the_archive(
    node: OneNode, tmp_path: Path, folder: Path
) -> None:
    """(U4) A new id would count as another copy. What was confirmed is withdrawn."""
    archive = archive_of(node, tmp_path / "local.db", folder)
    await archive.step()
    archive.told = Told(
        numbers=frozenset(),
        folder_id="",
        said_ms=0,
        folder_changes=0,
        is_of_last_change=False,
    )
    (folder / archive_files.FOLDER_ID).write_bytes(b"")
    with pytest.raises(SegmentError, match="archive-id is damaged: delete it"):
        await archive.step()
    assert archive.found == Found(folder_id="", proved=())
    assert archive.waiting == 3
    (folder / archive_files.FOLDER_ID).unlink()
    await archive.step()
    assert archive.found.folder_id
    assert archive.waiting == 0


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


@pytest.mark.parametrize("suffix", [".jsonl", ".checkpoint.json"])
async def test_one_flipped_bit_is_found(
    node: OneNode, tmp_path: Path, folder: Path, suffix: str
) -> None:
    """(U2) Also in the signature, and in the time that it covers."""
    archive = archive_of(node, tmp_path / "local.db", folder)
    await archive.step()
    rotten = named(folder, f"*{suffix}")[0]
    for place in (40, 130, 200, 230, 330, -70, -30):
        content = bytearray(rotten.read_bytes())
        content[place] ^= 1
        rotten.write_bytes(content)
        archive._read_again = 0
        with pytest.raises(SegmentError):
            await archive.read_again()
        await archive.step()
        assert proved(folder) == 3 * EVENTS


async def test_a_rotten_event_keeps_no_other_segment_waiting(
    node: OneNode, tmp_path: Path, folder: Path
) -> None:
    """(U2) Bytes that are no UTF-8 are rot as any other."""
    node.local_db.execute(
        "UPDATE audit_events SET detail = CAST(x'ff' AS TEXT) WHERE sequence = 3"
    )
    node.local_db.commit()
    archive = archive_of(node, tmp_path / "local.db", folder)
    with pytest.raises(SegmentError):
        await archive.step()
    assert archive.holding.held == ((2, 3),)


@pytest.mark.parametrize("suffix", [".jsonl", ".checkpoint.json"])
async def test_a_link_is_not_followed(
    node: OneNode, tmp_path: Path, folder: Path, suffix: str
) -> None:
    """Who can write to the folder would let the node overwrite a file of its own."""
    archive = archive_of(node, tmp_path / "local.db", folder)
    own = tmp_path / "own"
    own.write_text("the node's")
    segment = archive._look()[0]
    name = archive_files.ArchivedFiles.of(folder, segment).name
    (folder / f".{name}{suffix}.n1.part").symlink_to(own)
    await archive.step()
    assert own.read_text() == "the node's"
    assert proved(folder) == 3 * EVENTS


async def test_a_new_file_is_made_at_no_other_name(tmp_path: Path) -> None:
    """The link may be laid between two calls. The mode is for those who verify."""
    (tmp_path / "own").touch()
    (tmp_path / "part").symlink_to(tmp_path / "own")
    before = os.umask(0o077)
    try:
        with pytest.raises(FileExistsError):
            create(str(tmp_path / "part"), os.O_WRONLY)
        os.close(create(str(tmp_path / "new"), os.O_WRONLY))
    finally:
        os.umask(before)
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o640


def make_link(path: Path) -> None:
    path.symlink_to(path.with_name("nowhere"))


def make_link_to_a_fifo(path: Path) -> None:
    os.mkfifo(path.with_name("fifo"))
    path.symlink_to(path.with_name("fifo"))


@pytest.mark.parametrize("suffix", [".jsonl", ".checkpoint.json"])
@pytest.mark.parametrize("when", ["before", "after", "while it runs"])
@pytest.mark.parametrize(
    "make", [make_link, make_link_to_a_fifo, os.mkfifo, Path.mkdir]
)
async def test_what_is_no_file_is_put_aside(
    node: OneNode,
    tmp_path: Path,
    folder: Path,
    make: Callable[[Path], None],
    when: str,
    suffix: str,
) -> None:
    """It does not count as archived, and the node does not wait at a FIFO."""
    archive = archive_of(node, tmp_path / "local.db", folder)
    if when != "before":
        await archive.step()
    name = archive_files.ArchivedFiles.of(folder, archive_segment(tmp_path)).name
    path = folder / f"{name}{suffix}"
    path.unlink(missing_ok=True)
    make(path)
    async with asyncio.timeout(60):
        if when == "while it runs":
            with pytest.raises(OSError, match=path.name):
                await archive.read_again()
            assert archive.waiting == 1
        await archive.step()
    assert archive.waiting == 0
    assert [each.name for each in named(folder, "*.damaged-1")] == [
        f"{path.name}.damaged-1"
    ]
    assert proved(folder) == 3 * EVENTS


def archive_segment(folder: Path) -> Segment:
    """Return the first segment."""
    with contextlib.closing(sealed_events.open_log(folder / "local.db")) as db:
        return segments.all_sealed(db)[0]


async def test_a_file_that_cannot_be_read_counts_as_waiting(
    node: OneNode, tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if it cannot be put aside; the others are written meanwhile."""
    archive = archive_of(node, tmp_path / "local.db", folder)
    await archive.step()
    unreadable = named(folder, "00000001-*.jsonl")[0]
    named(folder, "00000003-*.jsonl")[0].unlink()
    read = archive_files._prove_events

    def fail(path: Path, *rest: Any) -> None:
        if path == unreadable:
            raise OSError(errno.EIO, "Input/output error", str(path))
        read(path, *rest)

    def forbidden(*_: Any) -> None:
        raise PermissionError

    with monkeypatch.context() as patch:
        patch.setattr(archive_files, "_prove_events", fail)
        patch.setattr(Path, "rename", forbidden)
        with pytest.raises(OSError, match="Input/output error"):
            await archive.read_again()
        assert archive.waiting == 2
        with pytest.raises(PermissionError):
            await archive.step()
        assert archive.holding.held == ((2, 3),)
        assert archive.waiting == 1
    await archive.step()
    assert archive.waiting == 0
    assert archive.report().problem == ""
    assert named(folder, "*.damaged-*") == []


async def test_the_events_that_a_crash_has_left_are_not_written_again(
    node: OneNode, tmp_path: Path, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A file server may forbid to overwrite them. Wrong ones are put aside."""
    archive = archive_of(node, tmp_path / "local.db", folder)
    await archive.step()
    for each in named(folder, "*.checkpoint.json"):
        each.unlink()
    first, second, _ = named(folder, "*.jsonl")
    inode = first.stat().st_ino
    second.write_bytes(first.read_bytes())
    await archive.step()
    assert first.stat().st_ino == inode
    (aside,) = named(folder, "*.damaged-*")
    assert aside.name == f"{second.name}.damaged-1"
    assert aside.read_bytes() == first.read_bytes()
    assert "archive_file_put_aside" in caplog.text
    assert proved(folder) == 3 * EVENTS


@pytest.mark.parametrize(
    "line",
    [
        b'{"detail":' + b"[" * 500 + b"]" * 500 + b"}",
        b"[" * 20000,
        b"[]",
        b'{"sequence":"1"}',
        b'{"at_ms":1e999}',
    ],
)
async def test_no_line_of_an_archive_stops_the_node(
    node: OneNode, tmp_path: Path, folder: Path, line: bytes
) -> None:
    """It is from a file that others can write to."""
    archive = archive_of(node, tmp_path / "local.db", folder)
    await archive.step()
    path = named(folder, "*.jsonl")[0]
    event = json.loads(path.read_bytes().splitlines()[0])
    with contextlib.suppress(ValueError, TypeError, RecursionError):
        line = json.dumps(event | json.loads(line)).encode()
    path.write_bytes(line + b"\n")
    with pytest.raises(SegmentError, match="segment 1 is damaged in the archive"):
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
    async with asyncio.timeout(60):
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
    with contextlib.closing(sqlite3.connect(sealed_events.file_of(path))) as db, db:
        db.execute(damage, (EVENTS + 2,))
    archive = archive_of(node, path, folder)
    with pytest.raises(SegmentError):
        await archive.step()
    assert archive.holding.held == ((1, 1), (3, 3))
    assert archive.waiting == 1
    assert stored_numbers(path) == [1, 2, 3]


async def test_a_node_that_joins_does_not_warn_of_what_it_has_not_fetched(
    node: OneNode, tmp_path: Path, folder: Path
) -> None:
    """(U2) The log is long, and its file is empty at first: this is no tampering."""
    path = tmp_path / "local.db"
    await discard(node, path)
    with contextlib.closing(sqlite3.connect(sealed_events.file_of(path))) as db:
        db.execute("DELETE FROM audit_events WHERE sequence <= ?", (2 * EVENTS,))
        db.execute("DELETE FROM stored_segments WHERE number <= 2")
        db.commit()
    archive = archive_of(node, path, folder)
    assert await archive._logged("write", archive.step)
    assert archive.report().problem == ""
    assert archive.waiting == 0
    assert archive.holding.held == ((3, 3),)


async def test_a_damaged_copy_of_what_this_node_lacks_stays_the_cause(
    node: OneNode, tmp_path: Path, folder: Path
) -> None:
    """(U2) It is written again once the node has fetched the segment, and not before."""
    path = tmp_path / "local.db"
    archive = archive_of(node, path, folder)
    await archive.step()
    await discard(node, path)
    with contextlib.closing(sqlite3.connect(sealed_events.file_of(path))) as db:
        (first,) = db.execute(
            "SELECT hash FROM stored_segments WHERE number = 1"
        ).fetchone()
        db.execute("DELETE FROM stored_segments WHERE number = 1")
        db.commit()
        named(folder, "*.jsonl")[0].write_bytes(b"{}\n")
        with pytest.raises(SegmentError, match="segment 1 is damaged"):
            await archive.read_again()
        for _ in range(2):
            assert await archive._logged("write", archive.step)
        assert "segment 1 is damaged in the archive" in archive.report().problem
        db.execute("INSERT INTO stored_segments (number, hash) VALUES (1, ?)", (first,))
        db.commit()
    assert await archive._logged("write", archive.step)
    assert archive.report().problem == ""
    assert archive.holding.held == ((1, 3),)


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
