# SPDX-License-Identifier: Apache-2.0
"""The cluster's status shows an archive that lags or does not work, and no other (U2)."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from sparecode_node.domain.ids import NodeId
from sparecode_node.domain.membership import REPORT_MAX, ArchiveReport
from sparecode_node.domain.policy import DAY_MS, HOUR_MS
from sparecode_node.domain.retention import LATE_MS
from sparecode_node.domain.segments import Holding
from sparecode_node.queries.archives import AuditArchive, AuditRetention
from sparecode_node.services.cluster import archive as archiving
from sparecode_node.statemachine import audit, sealed_events
from sparecode_node.statemachine.tables import archives, segments
from tests.services.one_node import OneNode, one_node
from tests.services.test_archive import archive_of
from tests.services.test_notices import add_users
from tests.services.test_retention import confirm, retention_of
from tests.services.two_replicas import NODE

pytestmark = pytest.mark.asyncio

EVENTS = 8
N0 = NodeId("n0")
FOLDER = "/srv/archive"


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "SEGMENT_EVENTS", EVENTS)
    monkeypatch.setattr(archiving, "REST", 0.0)
    monkeypatch.setattr(archiving, "RETRY_S", 0.01)


@pytest_asyncio.fixture
async def node(tmp_path: Path) -> AsyncIterator[OneNode]:
    """Return a node with three sealed segments, and no retention."""
    sealed_events.create(tmp_path / "local.db")
    (tmp_path / "archive").mkdir()
    async with one_node(tmp_path) as node:
        await add_users(node, *(f"user{number}" for number in range(3 * EVENTS)))
        yield node


async def seen(node: OneNode) -> AuditRetention:
    await node.login()
    status = await node.cluster.status(node.admin("ClusterService/GetStatus"))
    retention: AuditRetention = status.audit_retention
    return retention


async def the_archive(node: OneNode) -> AuditArchive:
    (archive,) = (await seen(node)).archives
    return archive


def pass_hours(node: OneNode, hours: float) -> None:
    node.clock.pass_s(hours * HOUR_MS / 1000)


async def test_one_archive_is_enough_without_a_retention(
    node: OneNode, tmp_path: Path
) -> None:
    """(U2) The number of copies is a condition of removal, and nothing is removed."""
    await confirm(node, tmp_path / "local.db")
    pass_hours(node, 3)
    retention = await seen(node)
    assert retention.unarchived_segments == ""
    assert [each.late_segments for each in retention.archives] == [""]
    await node.policies.update(
        node.admin("PolicyService/UpdatePolicy"),
        version=1,
        values={"second_approver": False, "audit_retention_ms": 90 * DAY_MS},
    )
    assert (await seen(node)).unarchived_segments.startswith("1 to ")


async def test_an_archive_that_stalled_is_late_after_two_hours(
    node: OneNode, tmp_path: Path
) -> None:
    """(U2) It looks unlike one that works, also if its node does not answer."""
    archive = await confirm(node, tmp_path / "local.db")
    await add_users(node, *(f"later{number}" for number in range(EVENTS)))
    node.clock.pass_s(LATE_MS / 1000 - 60)
    assert (await the_archive(node)).late_segments == ""
    node.clock.pass_s(120)
    assert (await the_archive(node)).late_segments == "4"
    await archive.step()
    await retention_of(node, archive).step()
    assert (await the_archive(node)).late_segments == ""


async def test_a_folder_that_was_never_mounted_is_shown_with_the_cause(
    node: OneNode, tmp_path: Path
) -> None:
    """(U2) No archive has ever confirmed anything, so the state knows of none."""
    archive = archive_of(node, tmp_path / "local.db", tmp_path / "missing")
    task = asyncio.create_task(archive.run())
    async with asyncio.timeout(60):
        while not archive.report().problem:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        assert "No such file or directory" in archive.report().problem
        node.replicator.archives[NODE] = archive.report()
        told = await the_archive(node)
        assert told.archiver == f"node:{NODE}"
        assert told.place == str(tmp_path / "missing")
        assert told.late_segments == "1 to 3"
        assert "No such file or directory" in told.problem
        assert (told.segments, told.confirmed_at_ms, told.counts) == ("", None, False)
        (tmp_path / "missing").mkdir()
        while archive.report().problem:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_the_archive_of_another_member_is_shown_with_its_cause(
    node: OneNode,
) -> None:
    """(U2) The node that is asked has an archive that works, or none."""
    report = ArchiveReport.of(FOLDER, "No space left on device")
    node.replicator.archives[N0] = report
    told = await the_archive(node)
    assert (told.archiver, told.problem) == ("node:n0", "No space left on device")
    assert told.late_segments == "1 to 3"


async def test_a_mount_that_hangs_from_the_start_is_late(node: OneNode) -> None:
    """(U2) It gives no error, and its node has confirmed nothing."""
    node.replicator.archives[NODE] = ArchiveReport.of(FOLDER, "")
    assert (await the_archive(node)).late_segments == ""
    pass_hours(node, 3)
    assert (await the_archive(node)).late_segments == "1 to 3"


async def test_what_a_node_has_not_fetched_is_not_late_in_its_archive(
    node: OneNode,
) -> None:
    """(U2) A fetch after years lasts for hours, and the status names it by itself."""
    node.replicator.archives[NODE] = ArchiveReport.of(FOLDER, "")
    pass_hours(node, 3)
    for holder, through in ((NODE, 1), (N0, 3)):
        segments.save_holding(node.local_db, holder, Holding(through=through), 1)
    assert (await the_archive(node)).late_segments == "1"


async def test_two_nodes_with_one_folder_are_one_copy_in_the_status(
    node: OneNode, tmp_path: Path
) -> None:
    """(U4) The removal and the status count alike; another folder is another copy."""
    archive = await confirm(node, tmp_path / "local.db")
    own = await the_archive(node)
    assert own.folder == archive.found.folder_id != ""
    await node.policies.update(
        node.admin("PolicyService/UpdatePolicy"),
        version=1,
        values={"second_approver": False, "audit_retention_ms": 90 * DAY_MS},
    )
    said = {"place": "/mnt", "now_ms": node.clock.now_ms(), "new": (1, 2, 3)}
    archives.save(node.local_db, "node:n2", folder=own.folder, **said)
    assert (await seen(node)).unarchived_segments == "1 to 3"
    archives.save(node.local_db, "node:n2", folder="2" * 32, **said)
    assert (await seen(node)).unarchived_segments == ""


async def test_a_node_tells_of_a_new_id_of_its_folder(
    node: OneNode, tmp_path: Path
) -> None:
    """(U4) With the same segments, once it has read them under the new id."""
    archive = await confirm(node, tmp_path / "local.db")
    before = archive.found.folder_id
    (tmp_path / "archive" / "archive-id").unlink()
    await archive.step()
    await retention_of(node, archive).step()
    assert (await the_archive(node)).folder == archive.found.folder_id != before


async def test_neither_a_tape_nor_a_former_archive_is_late(
    node: OneNode, tmp_path: Path
) -> None:
    """(U2) An administrator chooses what a tape has; a node may have no archive any more."""
    archives.save(node.local_db, "administrator:root", "tape", 1, new=(1,))
    await confirm(node, tmp_path / "local.db")
    await retention_of(node, None).step()
    pass_hours(node, 3)
    retention = await seen(node)
    assert [each.late_segments for each in retention.archives] == ["", ""]


async def test_a_report_is_short_and_can_be_sent() -> None:
    """(U2) Names of files need not be UTF-8."""
    report = ArchiveReport.of(f"/srv/\udcff{'a' * 2_000}", "x" * 2_000)
    assert len(report.place.encode()) <= REPORT_MAX
    assert len(report.problem) == REPORT_MAX
