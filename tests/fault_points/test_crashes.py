# SPDX-License-Identifier: Apache-2.0
"""
A crash at the fault points to which no simulation and no campaign leads.

What was done before it counts, what was not done is done again, and nothing is lost.
"""

import asyncio
import contextlib
import datetime as dt
import os
import sqlite3
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from sparecode_node.daemon.certificate_watch import Certificates
from sparecode_node.domain.ids import NodeId
from sparecode_node.fault_points import Point
from sparecode_node.membership import recovery
from sparecode_node.membership.certificates import write_certificates
from sparecode_node.services.ambient import SystemClock, SystemEntropy
from sparecode_node.services.cluster import archive as archiving
from sparecode_node.services.cluster import archive_files
from sparecode_node.services.cluster.backups import BackupSource
from sparecode_node.services.cluster.feature_level import raise_feature_level
from sparecode_node.services.cluster.renewals import Renewals
from sparecode_node.services.files import age_files
from sparecode_node.services.state.state_process import StateProcesses
from sparecode_node.statemachine import audit, sealed_events
from sparecode_node.statemachine.feature_level import NEWEST
from sparecode_node.statemachine.tables import formats, schema
from tests.fault_points.crashes import crash_at
from tests.services.one_node import OneNode, one_node
from tests.services.test_archive import archive_of, proved
from tests.services.test_backups import last_event, name_recipients, write
from tests.services.test_joining import (
    Files,
    events,
    joiner,
    joining,
    key,
    request_of,
    ticket,
)
from tests.services.test_notices import add_users
from tests.test_certificate_watch import NOW, HandClock, config_of, ignore
from tests.test_recovery import epoch_of, survivor

pytestmark = pytest.mark.asyncio

EVENTS = 8


@pytest_asyncio.fixture
async def node(tmp_path: Path) -> AsyncIterator[OneNode]:
    sealed_events.create(tmp_path / "local.db")
    async with one_node(tmp_path) as node:
        yield node


@pytest.mark.parametrize(
    "point", [Point.ARCHIVE_SYNC, Point.ARCHIVE_RENAME, Point.ARCHIVE_WRITTEN]
)
@pytest.mark.parametrize("passes", [0, 1])
async def test_an_interrupted_archive_is_completed(
    node: OneNode,
    tmp_path: Path,
    point: Point,
    passes: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """(U2) What a crash leaves is no segment, or one that proves itself."""
    monkeypatch.setattr(audit, "SEGMENT_EVENTS", EVENTS)
    monkeypatch.setattr(archiving, "REST", 0.0)
    await add_users(node, *(f"user{number}" for number in range(2 * EVENTS)))
    folder = tmp_path / "archive"
    folder.mkdir()
    with crash_at(point, passes if point is not Point.ARCHIVE_WRITTEN else 0):
        await archive_of(node, tmp_path / "local.db", folder).step()
    await archive_of(node, tmp_path / "local.db", folder).step()
    assert proved(folder) == 2 * EVENTS
    assert not list(folder.glob(".*"))


LEFT: dict[str, Callable[[bytes], bytes | None]] = {
    "all": bytes,
    "a part": lambda content: content[: len(content) // 2],
    "zeros": lambda content: bytes(len(content)),
    "nothing": lambda _: b"",
    "no name": lambda _: None,
}
"""What a death leaves of a file of the archive that has no final name yet: all, or less."""


@pytest.mark.parametrize("passes", [0, 1, 2, 3])
@pytest.mark.parametrize(
    ("point", "left"),
    [
        *((Point.ARCHIVE_SYNC, each) for each in LEFT),
        (Point.ARCHIVE_RENAME, "all"),  # It is synced, and its name is not.
        (Point.ARCHIVE_RENAME, "no name"),
    ],
)
async def test_what_a_death_leaves_in_an_archive_is_no_segment(
    node: OneNode,
    tmp_path: Path,
    point: Point,
    passes: int,
    left: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """(U2) A killed process cleans nothing up, and a power cut takes what is not synced."""
    monkeypatch.setattr(audit, "SEGMENT_EVENTS", EVENTS)
    monkeypatch.setattr(archiving, "REST", 0.0)
    await add_users(node, *(f"user{number}" for number in range(2 * EVENTS)))
    folder = tmp_path / "archive"
    folder.mkdir()
    with crash_at(point, passes), monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", lambda *_, **__: None)
        await archive_of(node, tmp_path / "local.db", folder).step()
    part = max(folder.glob(".*.part"), key=lambda each: each.stat().st_ctime_ns)
    for each in set(folder.glob(".*.part")) - {part}:
        each.unlink()  # The id of the folder, whose first name could not be removed.
    content = LEFT[left](part.read_bytes())
    part.unlink() if content is None else part.write_bytes(content)
    complete = {each.name for each in folder.iterdir() if each != part}
    assert len(complete) == passes
    # The first file is the id of the folder.
    assert len(archive_files.present(folder)) == max(0, passes - 1) // 2
    told = [each.read_bytes() for each in folder.glob("archive-id")]
    archive = archive_of(node, tmp_path / "local.db", folder)
    await archive.step()
    assert proved(folder) == 2 * EVENTS
    assert not list(folder.glob(".*"))
    assert not list(folder.glob("*.damaged-*"))
    assert archive.waiting == 0
    assert not told or told == [f"{archive.found.folder_id}\n".encode()]


@pytest.mark.parametrize(
    "point", [Point.BACKUP_PERMITTED, Point.BACKUP_COPIED, Point.BACKUP_SENT]
)
async def test_after_a_crash_another_backup_is_taken(
    node: OneNode, tmp_path: Path, point: Point
) -> None:
    """The log has the permission, and no end that did not happen."""
    _, public = age_files.new_identity()
    await name_recipients(node, public)
    with crash_at(point):
        await write(node, tmp_path / "first.backup")
    assert last_event(node) == ("CreateBackup", "applied", "")
    await write(node, tmp_path / "second.backup")
    assert last_event(node) == ("NoteBackup", "applied", "")
    assert not [n for n in os.listdir(tmp_path) if n.startswith("backup.")]  # noqa: PTH208


async def test_a_start_removes_the_copy_of_a_killed_backup(tmp_path: Path) -> None:
    """It is as large as the state, and nothing else removes it."""
    left = Path(tempfile.mkdtemp(prefix="backup.", dir=tmp_path))
    (left / "state.db").touch()
    others = [tmp_path / "backup.tar", tmp_path / "backup.of-mine"]
    others[0].touch()
    others[1].mkdir()
    BackupSource.of(
        tmp_path / "local.db", StateProcesses(), "", rotten=lambda _: None
    ).remove_leftovers()
    kept = sorted(os.listdir(tmp_path))  # noqa: PTH208
    assert kept == sorted(each.name for each in others)


async def test_a_joiner_without_an_answer_asks_again(node: OneNode) -> None:
    """(P5) It is admitted once, by one event, and gets its files the second time."""
    asks = joiner(await ticket(node), key())
    with crash_at(Point.JOIN_ADMITTED):
        await joining(node).admit(asks, timeout_s=60)
    grant = await joining(node).admit(asks, timeout_s=60)
    assert grant.certificate
    assert sum(event[1] == "AdmitNode" for event in events(node)) == 1


async def test_a_renewal_is_recorded_before_it_is_signed(node: OneNode) -> None:
    """(P5) A crash between the two leaves an event too many, never a certificate."""
    asks = joiner(await ticket(node), private := key())
    await joining(node).admit(asks, timeout_s=60)

    async def renew() -> bytes:
        renewals = Renewals(
            replicator=node.replicator,
            state=node.state,
            authority=Files(),
            clock=node.clock,
            entropy=SystemEntropy(),
        )
        return await renewals.renew(
            NodeId("n4"), b"", request_of(private), timeout_s=60
        )

    with crash_at(Point.RENEWAL_RECORDED):
        await renew()
    assert events(node)[-1][1] == "RenewCertificate"
    assert (await renew()).startswith(b"-----BEGIN CERTIFICATE")


@pytest.mark.parametrize("point", [Point.CERTIFICATE_RECORDED, Point.CERTIFICATE_SHOWN])
async def test_a_new_certificate_is_shown_after_a_crash(
    tmp_path: Path, point: Point
) -> None:
    """(P5a) The next process reads the files, and shows what they hold."""

    def written(days: int) -> bytes:
        now = NOW + dt.timedelta(days=days)
        write_certificates(
            tmp_path, members=["n1"], hosts=["127.0.0.1"], now=now, days=20, force=True
        )
        return (tmp_path / "n1.pem").read_bytes()

    first, config = written(0), config_of(tmp_path)
    certificates = Certificates(config, HandClock(), on_renewed=ignore)
    second = written(1)
    with crash_at(point):
        await certificates.check()
    shown = first if point is Point.CERTIFICATE_RECORDED else second
    names = [name for name in config.tls_listeners if certificates[name] is not None]
    assert shown in {certificates[name].certificate for name in names}
    again = Certificates(config, HandClock(), on_renewed=ignore)
    assert {again[name].certificate for name in names} == {second}


async def test_an_interrupted_change_of_the_format_is_done_again(
    tmp_path: Path,
) -> None:
    """A node may go back to release 0.1.0, or stay, after a crash at either way."""
    with contextlib.closing(
        sqlite3.connect(tmp_path / "state.db", isolation_level=None)
    ) as db:
        formats.prepare(db)
        for level, before in ((1, schema.VERSION), (schema.VERSION, 1)):
            with crash_at(Point.FORMAT_CHANGE):
                formats.convert(db, level)
            assert db.execute("PRAGMA user_version").fetchone() == (before,)
            formats.convert(db, level)
            assert db.execute("PRAGMA user_version").fetchone() == (level,)


class Raising:
    """A cluster of level 1 whose members all know the newest."""

    node_id = NodeId("n1")

    def __init__(self) -> None:
        self.level = 1

    @property
    def level_to_raise(self) -> int | None:
        return NEWEST if self.level < NEWEST else None

    async def propose(self, proposal: object, *, timeout_s: float) -> object:
        assert timeout_s > 0
        self.level = proposal.call.command.level  # type: ignore[attr-defined]
        return None


async def test_the_level_is_raised_by_the_next_primary() -> None:
    cluster = Raising()
    with crash_at(Point.LEVEL_RAISE):
        await raise_feature_level(cluster, SystemEntropy())  # type: ignore[arg-type]
    assert cluster.level == 1
    work = asyncio.create_task(
        raise_feature_level(cluster, SystemEntropy())  # type: ignore[arg-type]
    )
    async with asyncio.timeout(60):
        while cluster.level < NEWEST:  # noqa: ASYNC110 - the cluster is no event.
            await asyncio.sleep(0)
    work.cancel()
    await asyncio.gather(work, return_exceptions=True)


async def test_a_recovery_that_crashed_is_begun_again(tmp_path: Path) -> None:
    """(E1) The old files stay until the new ones are complete."""
    config, ring = await survivor(tmp_path)
    before = epoch_of(config)
    with crash_at(Point.RECOVERY_LOG):
        recovery.recover(config, clock=SystemClock(), entropy=SystemEntropy())
    assert epoch_of(config) == before
    made = recovery.recover(config, clock=SystemClock(), entropy=SystemEntropy())
    assert made.cluster_id not in (ring, before[0])
    own = recovery.surviving_log(config)
    assert own.last_index == own.applied_index + 1
