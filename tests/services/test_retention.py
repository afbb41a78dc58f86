# SPDX-License-Identifier: Apache-2.0
"""Archived audit events that are old leave every node, and readers say so (U4)."""

import contextlib
import errno
import shutil
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import pytest_asyncio

from sparecode_client.audit.archive import archived_segments
from sparecode_client.audit.checkpoints import read_checkpoint
from sparecode_client.audit.verification import verify_files
from sparecode_node.daemon.metrics.events import EventCounts
from sparecode_node.domain.ids import NodeId, RequestId
from sparecode_node.domain.policy import DAY_MS
from sparecode_node.domain.segments import in_words
from sparecode_node.queries import archives as archive_queries
from sparecode_node.queries.audit import AuditFilter, AuditHead
from sparecode_node.replication.replicator import Proposal
from sparecode_node.services.ambient import SystemEntropy
from sparecode_node.services.cluster import archive as archiving
from sparecode_node.services.cluster import archive_files, checkpoints
from sparecode_node.services.cluster import segments as keeping
from sparecode_node.services.cluster.archive import SegmentArchive
from sparecode_node.services.cluster.retention import Retention
from sparecode_node.services.files import audit_export
from sparecode_node.services.files.audit_export import ExportFormat
from sparecode_node.statemachine import audit, sealed_events
from sparecode_node.statemachine.commands import UnstampedCall
from sparecode_node.statemachine.commands.segments import NoteArchive
from sparecode_node.statemachine.missing_segments import missing_segments
from sparecode_node.statemachine.sealed_events import file_of
from sparecode_node.statemachine.segment_chain import SegmentError
from sparecode_node.statemachine.short_segments import short_segments
from sparecode_node.statemachine.tables import archives, segments
from sparecode_node.statemachine.tables.segments import Segment
from sparecode_node.tool.doctor.archive import check_copies
from sparecode_node.tool.doctor.findings import Verdict
from sparecode_node.tool.doctor.state import check_state
from tests.services.one_node import OneNode, one_node
from tests.services.test_archive import archive_of, named
from tests.services.test_audit import reading
from tests.services.test_notices import add_users
from tests.services.test_segments import discard, kept, stored_numbers

pytestmark = pytest.mark.asyncio

EVENTS = 8
RETENTION_DAYS = 90
N2 = NodeId("n2")


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "SEGMENT_EVENTS", EVENTS)
    monkeypatch.setattr(archiving, "REST", 0.0)
    monkeypatch.setattr(keeping, "REST", 0.0)
    monkeypatch.setattr(keeping, "DELETED_EVENTS", 3)


@pytest_asyncio.fixture
async def node(tmp_path: Path) -> AsyncIterator[OneNode]:
    """Return a node with three sealed segments, and a retention of ninety days."""
    sealed_events.create(tmp_path / "local.db")
    (tmp_path / "archive").mkdir()
    async with one_node(tmp_path) as node:
        await node.policies.update(
            node.admin("PolicyService/UpdatePolicy"),
            version=1,
            values={
                "second_approver": False,
                "audit_retention_ms": RETENTION_DAYS * DAY_MS,
            },
        )
        await add_users(node, *(f"user{number}" for number in range(3 * EVENTS)))
        yield node


def retention_of(node: OneNode, archive: SegmentArchive | None) -> Retention:
    return Retention(
        archive=archive,
        replicator=node.replicator,
        state=node.state,
        clock=node.clock,
        entropy=SystemEntropy(),
    )


async def confirm(node: OneNode, state: Path) -> SegmentArchive:
    """Archive all segments on this node, and confirm them."""
    archive = archive_of(node, state, state.parent / "archive")
    retention = retention_of(node, archive)
    for _ in range(2):  # It tells a new id, and then looks again.
        await retention.step()
        await archive.step()
        await retention.step()
    return archive


def confirm_as(node: OneNode, other: NodeId, through: int, folder: str = "") -> None:
    """Confirm an archive in the name of another member; *folder*: not its usual one."""
    with_hash = segments.find(node.local_db, through)
    assert with_hash is not None
    command = NoteArchive(
        node_id=other,
        place="/srv/other",
        through=through,
        hash_after=with_hash.hash_after,
        folder=folder or other.removeprefix("n") * 32,
        folder_changes=archives.folder_changes(node.local_db),
    )
    call = UnstampedCall.of_node(other, command, RequestId(SystemEntropy().uuid()))
    node.replicator.commit([Proposal(call=call)])


async def age(node: OneNode, archive: SegmentArchive, others: int = 0) -> None:
    """
    Let time pass, and let the primary remove what is due.

    All say again what they have, the other member the first *others* segments.
    """
    node.clock.pass_s((RETENTION_DAYS + 1) * DAY_MS / 1000)
    if others:
        confirm_as(node, N2, others)
    await retention_of(node, archive).step()
    await archive.step()  # What may be removed is read before it is confirmed again.
    await retention_of(node, archive).step()
    node.replicator.leads = True
    await retention_of(node, archive).step()
    await node.login()


async def confirmed_and_removed(node: OneNode, state: Path) -> SegmentArchive:
    """Archive all segments on this node, and let two archives be enough to remove two."""
    archive = await confirm(node, state)
    confirm_as(node, N2, 2)
    await age(node, archive, 2)
    await archive.step()
    return archive


async def old_and_confirmed(
    node: OneNode, state: Path
) -> tuple[SegmentArchive, Retention]:
    """Let two members have all three segments, which are then old enough to go."""
    archive = await confirm(node, state)
    retention = retention_of(node, archive)
    confirm_as(node, N2, 3)
    for _ in range(3):
        await retention.step()
        await archive.step()
    assert confirmed(node) == {1, 2, 3}
    node.clock.pass_s((RETENTION_DAYS + 1) * DAY_MS / 1000)
    confirm_as(node, N2, 3)
    return archive, retention


def spoil(folder: Path, number: int) -> bytes:
    """Spoil an archived segment; return what was there."""
    file = named(folder, "*.jsonl")[number - 1]
    whole = file.read_bytes()
    file.write_bytes(b"{}\n")
    return whole


def confirmed(node: OneNode) -> set[int]:
    return set(archives.numbers_of(node.local_db, "node:n1"))


async def test_a_node_confirms_what_it_has_read_back(
    node: OneNode, tmp_path: Path
) -> None:
    """(U2) A file that is there by its name alone is read before it counts."""
    archive = await confirm(node, tmp_path / "local.db")
    assert archive.found.proved == ((1, 3),)
    assert confirmed(node) == {1, 2, 3}
    async with node.state.transaction() as transaction:
        seen = await archive_queries.overview(transaction, node.clock.now_ms(), {})
    (own,) = seen.archives
    assert (own.archiver, own.place) == ("node:n1", str(tmp_path / "archive"))
    assert own.segments == "1 to 3"
    assert seen.unarchived_segments == "1 to 3"  # The policy wants two.


async def test_a_folder_that_changes_meanwhile_is_told_as_it_was(
    node: OneNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """(U4) The archive looks in a thread, between any two steps of the confirmation."""
    state = tmp_path / "local.db"
    archive = archive_of(node, state, tmp_path / "archive")
    retention = retention_of(node, archive)
    await retention.step()
    await archive.step()
    before = archive.found.folder_id
    find = archive_queries.hash_after

    async def later(*arguments: Any) -> bytes:
        (tmp_path / "archive").rename(tmp_path / "unmounted")
        with contextlib.suppress(OSError):
            archive._look()
        return await find(*arguments)

    monkeypatch.setattr(archive_queries, "hash_after", later)
    await retention.step()
    assert confirmed(node) == {1, 2, 3}
    assert archives.folder_of(node.local_db, "node:n1") == before != ""


async def test_a_file_of_the_right_name_alone_is_not_confirmed(
    node: OneNode, tmp_path: Path
) -> None:
    """(U2) Anyone who writes to the folder could otherwise have the log removed."""
    state = tmp_path / "local.db"
    archive = archive_of(node, state, tmp_path / "archive")
    await archive.step()
    spoil(tmp_path / "archive", 1)
    # After a restart, which has read nothing yet.
    archive = archive_of(node, state, tmp_path / "archive")
    retention = retention_of(node, archive)
    await retention.step()
    with pytest.raises(SegmentError):
        await archive.step()
    await retention.step()
    assert confirmed(node) == {2, 3}
    for _ in range(2):
        await archive.step()
        await retention.step()
    assert confirmed(node) == {1, 2, 3}  # Written again.


async def test_a_rotten_copy_is_withdrawn(node: OneNode, tmp_path: Path) -> None:
    """(U2) And a missing mount withdraws everything until it is back."""
    state = tmp_path / "local.db"
    archive = await confirm(node, state)
    (first, *_) = named(tmp_path / "archive", "*.jsonl")
    first.write_bytes(first.read_bytes()[:-2])
    with pytest.raises(SegmentError):
        await archive.read_again()
    await retention_of(node, archive).step()
    assert confirmed(node) == {2, 3}
    (tmp_path / "archive").rename(tmp_path / "unmounted")
    with pytest.raises(OSError, match="No such file"):
        await archive.step()
    await retention_of(node, archive).step()
    assert confirmed(node) == set()


async def test_one_node_alone_removes_nothing(node: OneNode, tmp_path: Path) -> None:
    """(U4) It may be broken, or lie."""
    await age(node, await confirm(node, tmp_path / "local.db"))
    assert archives.removed(node.local_db).through == 0


async def test_old_segments_leave_the_node_and_readers_say_so(
    node: OneNode, tmp_path: Path
) -> None:
    """(U4) Pages, exports and verification go on after them, and the archive proves all."""
    state = tmp_path / "local.db"
    archive = await confirm(node, state)
    confirm_as(node, N2, 2)
    await discard(node, state)
    await age(node, archive, 2)
    assert archives.removed(node.local_db).through == 2
    async with kept(state) as keeper:
        await keeper.step()
        assert keeper.missing == ()
        await keeper.step()
    assert stored_numbers(state)[0] == 3
    assert missing_segments(state, NodeId("n1")).ranges == ()
    page = await node.audit.list(
        reading(node, "ListAuditEvents"), criteria=AuditFilter(), page_size=500
    )
    assert page.value.items[-1].event.sequence == 2 * EVENTS + 1
    assert page.value.removed is not None
    assert page.value.removed.last_sequence == 2 * EVENTS
    assert "node:n1" in page.value.removed.archives
    verdict = await node.audit.verify_chain(reading(node, "VerifyChain"))
    assert verdict.value.broken_sequence == 0
    assert f"removed the events 1 to {2 * EVENTS}" in verdict.value.problem
    (finding,) = [
        each
        for each in check_state(state, journal=None, ring=None)
        if each.subject == "audit log"
    ]
    assert finding.verdict is Verdict.OK
    assert f"retention has removed events 1 to {2 * EVENTS}" in finding.words
    archived = archived_segments(tmp_path / "archive")
    proved = verify_files(
        [each.events for each in archived],
        [read_checkpoint(each.checkpoint) for each in archived],
    )
    assert proved.proved_up_to == 3 * EVENTS
    # The log that is left says itself what is gone.
    records = list(reversed(page.value.items))
    export = tmp_path / "export.jsonl"
    export.write_bytes(audit_export.lines(ExportFormat.JSON_LINES, records))
    head = AuditHead(sequence=records[-1].event.sequence, hash=records[-1].hash)
    signed = tmp_path / "head.json"
    signed.write_bytes(
        archive_files._text(
            checkpoints.sign(node.sealing, head, at_ms=node.clock.now_ms())
        )
    )
    left = verify_files([export], [read_checkpoint(signed)])
    assert left.problem is None
    assert left.removed is not None
    assert (left.removed.segments, left.removed.last) == (2, 2 * EVENTS)
    assert left.removed.copies == 2
    assert left.removed.archives.startswith("node:n1 (")
    both = verify_files(
        [archived[0].events, archived[1].events, export], [read_checkpoint(signed)]
    )
    assert (both.problem, both.first, both.removed) == (None, 1, None)


async def test_a_page_that_does_not_reach_back_says_nothing(
    node: OneNode, tmp_path: Path
) -> None:
    state = tmp_path / "local.db"
    archive = await confirm(node, state)
    confirm_as(node, N2, 2)
    await age(node, archive, 2)
    page = await node.audit.list(
        reading(node, "ListAuditEvents"), criteria=AuditFilter(), page_size=1
    )
    assert page.value.removed is None
    page = await node.audit.list(
        reading(node, "ListAuditEvents"),
        criteria=AuditFilter(),
        from_sequence=3,
        page_size=1,
    )
    assert page.value.removed is not None
    assert page.value.items[0].event.sequence == 2 * EVENTS + 1


async def test_deletion_goes_on_after_a_crash(node: OneNode, tmp_path: Path) -> None:
    """(U4) Each transaction deletes some events; the next start deletes the rest."""
    state = tmp_path / "local.db"
    archive = await confirm(node, state)
    confirm_as(node, N2, 2)
    await discard(node, state)
    await age(node, archive, 2)
    file = sealed_events.SealedEvents(state)
    assert file.delete_removed(3)
    file.close()
    assert stored_numbers(state) == [3]
    async with kept(state) as keeper:
        await keeper.step()
    file = sealed_events.SealedEvents(state)
    assert not file.delete_removed(3)
    file.close()
    assert file_of(state).exists()


async def test_removed_events_leave_nothing_in_the_file(
    node: OneNode, tmp_path: Path
) -> None:
    """(U4) Free pages would still have them, for as long as nothing is written there."""
    state = tmp_path / "local.db"
    await add_users(node, *(f"later{number}" for number in range(12 * EVENTS)))
    archive = await confirm(node, state)
    confirm_as(node, N2, 2)
    await discard(node, state)

    def content() -> bytes:
        with contextlib.closing(sqlite3.connect(file_of(state))) as db:
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        return file_of(state).read_bytes()

    assert b"user3" in content()
    await age(node, archive, 2)
    async with kept(state) as keeper:
        await keeper.step()
    assert 2 not in stored_numbers(state)
    assert b"user3" not in content()


async def test_a_node_without_an_archive_withdraws_what_it_had(
    node: OneNode, tmp_path: Path
) -> None:
    """(U4) Its `node.toml` names no folder any more, so nothing reads it again."""
    await confirm(node, tmp_path / "local.db")
    assert confirmed(node) == {1, 2, 3}
    await retention_of(node, None).step()
    assert confirmed(node) == set()


async def test_a_node_says_again_what_it_still_reads(
    node: OneNode, tmp_path: Path
) -> None:
    """(U4) What was said long ago does not count."""
    archive = await confirm(node, tmp_path / "local.db")
    before_ms = archives.said_ms(node.local_db, "node:n1")
    await retention_of(node, archive).step()
    assert archives.said_ms(node.local_db, "node:n1") == before_ms
    node.clock.pass_s(DAY_MS / 1000)
    await retention_of(node, archive).step()
    assert archives.said_ms(node.local_db, "node:n1") >= before_ms + DAY_MS


async def test_a_copy_is_read_again_before_it_lets_events_go(
    node: OneNode, tmp_path: Path
) -> None:
    """(U4) A file that has rotted since is there by its name."""
    archive = await confirm(node, tmp_path / "local.db")
    retention = retention_of(node, archive)
    node.clock.pass_s((RETENTION_DAYS + 1) * DAY_MS / 1000)
    spoil(tmp_path / "archive", 1)
    before_ms = archives.said_ms(node.local_db, "node:n1")
    await retention.step()
    assert archives.said_ms(node.local_db, "node:n1") == before_ms
    with pytest.raises(SegmentError, match="segment 1 is damaged in the archive"):
        await archive.step()
    await retention.step()
    assert confirmed(node) == {2, 3}
    confirm_as(node, N2, 3)
    node.replicator.leads = True
    await retention.step()
    assert archives.removed(node.local_db).through == 0
    await archive.step()  # It is written again, and so it was read.
    await retention.step()
    assert archives.removed(node.local_db).through > 0


async def test_what_is_withdrawn_lets_nothing_go_that_was_not_read(
    node: OneNode, tmp_path: Path
) -> None:
    """(U4) The withdrawal of one segment is no news of the others."""
    archive, retention = await old_and_confirmed(node, tmp_path / "local.db")
    for number in (1, 3):
        spoil(tmp_path / "archive", number)
    archive._read_again = 2
    with pytest.raises(SegmentError, match="segment 3 is damaged"):
        await archive.read_again()
    node.replicator.leads = True
    await retention.step()
    assert 3 not in confirmed(node)
    await retention.step()
    assert archives.removed(node.local_db).through == 0
    for _ in range(4):  # Read, put aside and written again, all of it is confirmed.
        with contextlib.suppress(SegmentError):
            await archive.step()
        await retention.step()
        confirm_as(node, N2, 3)
    assert archives.removed(node.local_db).through == 3


async def test_a_full_disk_is_named_beside_a_damaged_copy(
    node: OneNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """(U2) The copy of a removed segment stays damaged until an operator acts."""
    archive = await confirmed_and_removed(node, tmp_path / "local.db")
    spoil(tmp_path / "archive", 1)
    archive._read_again = 0
    assert not await archive._logged("read", archive.read_again)

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(archive_files, "write", full)
    await add_users(node, *(f"more{number}" for number in range(EVENTS)))
    for _ in range(2):
        spoil(tmp_path / "archive", 1)  # Another copy, as bad as the first one.
        assert not await archive._logged("write", archive.step)
        assert "No space left on device" in archive.report().problem


async def test_what_was_read_a_week_ago_is_read_again(
    node: OneNode, tmp_path: Path
) -> None:
    """(U4) Removal may wait for another archive, for as long as it takes."""
    archive = await confirm(node, tmp_path / "local.db")
    await age(node, archive)
    node.clock.pass_s(6 * DAY_MS / 1000)
    said_ms = archives.said_ms(node.local_db, "node:n1")
    await retention_of(node, archive).step()
    assert archives.said_ms(node.local_db, "node:n1") > said_ms
    node.clock.pass_s(2 * DAY_MS / 1000)
    said_ms = archives.said_ms(node.local_db, "node:n1")
    await retention_of(node, archive).step()
    assert archives.said_ms(node.local_db, "node:n1") == said_ms
    await archive.step()
    await retention_of(node, archive).step()
    assert archives.said_ms(node.local_db, "node:n1") > said_ms


async def test_the_last_copy_of_removed_events_is_read_from_time_to_time(
    node: OneNode, tmp_path: Path
) -> None:
    """(U4) The nodes have these events no longer: an operator has to act."""
    archive = await confirmed_and_removed(node, tmp_path / "local.db")
    assert archives.removed(node.local_db).through == 2
    (_, second, *_) = named(tmp_path / "archive", "*.jsonl")
    whole = second.read_bytes()
    second.write_bytes(b"{}\n")
    archive._read_again = 0
    await archive.read_again()
    with pytest.raises(SegmentError, match="take it from another archive"):
        await archive.read_again()
    assert archive.waiting == 1
    assert second.read_bytes() == b"{}\n"
    # Others are read rightly afterwards; the cause stays for as long as the damage.
    for _ in range(2):
        assert await archive._logged("read", archive.read_again)
        assert await archive._logged("write", archive.step)
    assert "segment 2 is damaged in the archive" in archive.report().problem
    assert "take it from another archive" in archive.report().problem
    second.write_bytes(whole)
    assert await archive._logged("write", archive.step)
    assert archive.waiting == 0
    assert archive.report().problem == ""


async def test_a_folder_that_was_away_has_no_damaged_copies(
    node: OneNode, tmp_path: Path
) -> None:
    """(U4) The copies of removed segments cannot be written again: each would be a cause."""
    archive = await confirmed_and_removed(node, tmp_path / "local.db")
    (tmp_path / "archive").rename(tmp_path / "unmounted")
    for _ in range(3):
        await archive._logged("read", archive.read_again)
        assert not await archive._logged("write", archive.step)
    assert "No such file or directory" in archive.report().problem
    (tmp_path / "unmounted").rename(tmp_path / "archive")
    assert await archive._logged("write", archive.step)
    assert (archive.waiting, archive.report().problem) == (0, "")


async def test_the_cause_of_a_removed_copy_goes_with_its_files(
    node: OneNode, tmp_path: Path
) -> None:
    """(U4) What is deleted can no longer be damaged: nothing waits for it."""
    archive = await confirmed_and_removed(node, tmp_path / "local.db")
    first, *_ = named(tmp_path / "archive", "*.jsonl")
    first.write_bytes(b"{}\n")
    archive._read_again = 0
    with pytest.raises(SegmentError, match="take it from another archive"):
        await archive.read_again()
    assert archive.report().problem
    first.unlink()
    await archive.step()
    assert (archive.waiting, archive.report().problem) == (0, "")


async def test_what_is_found_damaged_while_a_node_confirms_is_not_confirmed(
    node: OneNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """(U4) The archive reads in a thread, between any two steps of the confirmation."""
    archive, retention = await old_and_confirmed(node, tmp_path / "local.db")
    spoil(tmp_path / "archive", 1)
    await retention.step()
    find = archive_queries.soon_removable

    async def later(*arguments: Any) -> Any:
        with contextlib.suppress(SegmentError):
            await archive.step()
        return await find(*arguments)

    monkeypatch.setattr(archive_queries, "soon_removable", later)
    node.replicator.leads = True
    await retention.step()
    assert named(tmp_path / "archive", "*.damaged-1")
    assert archives.removed(node.local_db).through == 0


async def old_and_read(node: OneNode, state: Path) -> tuple[SegmentArchive, Retention]:
    """As `old_and_confirmed`; and this node has read all copies since they are old."""
    archive, retention = await old_and_confirmed(node, state)
    for _ in range(3):
        await retention.step()
        await archive.step()
    assert confirmed(node) >= {1, 2, 3}
    return archive, retention


@pytest.mark.parametrize("moment", ["soon_removable", "hash_after"])
async def test_a_copy_found_damaged_meanwhile_counts_as_unread_however_lately_it_was_read(
    node: OneNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """(U4) The node counts no longer, until its next confirmation lets the events go."""
    archive, retention = await old_and_read(node, tmp_path / "local.db")
    confirm_as(node, N2, 3, folder="c" * 32)
    await retention.step()
    await archive.step()
    spoil(tmp_path / "archive", 1)
    read_meanwhile(archive, monkeypatch, moment)
    entries = len(node.replicator.entries)
    node.replicator.leads = True
    await retention.step()
    assert named(tmp_path / "archive", "*.damaged-1")
    assert len(node.replicator.entries) == entries
    assert archives.removed(node.local_db).through == 0


def read_meanwhile(
    archive: SegmentArchive, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """Let the archive read the first copy while retention asks the state something."""
    find = getattr(archive_queries, moment)
    archive._read_again = 0

    async def later(*arguments: Any, **named_arguments: Any) -> Any:
        with contextlib.suppress(SegmentError):
            await archive.read_again()
        return await find(*arguments, **named_arguments)

    monkeypatch.setattr(archive_queries, moment, later)


async def test_the_primary_removes_nothing_whose_copy_it_just_found_damaged(
    node: OneNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """(U4) The state still counts that copy: the node withdraws it in its next step."""
    archive, retention = await old_and_read(node, tmp_path / "local.db")
    await retention.step()
    spoil(tmp_path / "archive", 1)
    node.replicator.leads = True
    with monkeypatch.context() as patch:
        read_meanwhile(archive, patch, "removable")
        await retention.step()
    assert named(tmp_path / "archive", "*.damaged-1")
    assert archives.removed(node.local_db).through == 0
    assert 1 in confirmed(node)
    await retention.step()
    assert 1 not in confirmed(node)


async def test_an_unreadable_copy_is_kept_in_mind_if_the_look_then_fails(
    node: OneNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """(U4) The disk may get worse at the moment at which the state cannot be read, too."""
    archive, retention = await old_and_read(node, tmp_path / "local.db")
    await retention.step()
    prove = archive_files.prove

    def unreadable(files: Any, segment: Any, is_signed: Any) -> None:
        if segment.number == 1:
            raise OSError(errno.EIO, "Input/output error")
        prove(files, segment, is_signed)

    monkeypatch.setattr(archive_files, "prove", unreadable)
    archive._read_again = 0
    with monkeypatch.context() as patch:
        error = sqlite3.OperationalError("locked")
        patch.setattr(archive_files, "present", Mock(side_effect=error))
        with pytest.raises(sqlite3.OperationalError):
            await archive.read_again()
    with contextlib.suppress(OSError):
        await archive.step()
    await retention.step()
    assert 1 not in confirmed(node)


@pytest.mark.parametrize(
    "error",
    [OSError(errno.EIO, "Input/output error"), sqlite3.OperationalError("locked")],
)
async def test_damage_is_kept_in_mind_if_the_folder_cannot_be_looked_at_then(
    node: OneNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """(U4)."""
    archive, retention = await old_and_read(node, tmp_path / "local.db")
    whole = spoil(tmp_path / "archive", 1)
    archive._read_again = 0
    with monkeypatch.context() as patch:
        patch.setattr(archive_files, "present", Mock(side_effect=error))
        with pytest.raises(type(error)):
            await archive.read_again()
    for _ in range(3):
        with contextlib.suppress(SegmentError):
            await archive.step()
        await retention.step()
    assert named(tmp_path / "archive", "*.jsonl")[0].read_bytes() == whole


async def test_what_was_read_while_the_clock_was_ahead_is_read_again(
    node: OneNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """(U4) A clock that was 400 days ahead must not stand for 400 days."""
    archive, retention = await old_and_confirmed(node, tmp_path / "local.db")
    now_ms = node.clock.now_ms

    async def lost(_: object) -> None:
        """Propose nothing, because the clock differs."""

    with monkeypatch.context() as patch:
        patch.setattr(node.clock, "now_ms", lambda: now_ms() + 400 * DAY_MS)
        patch.setattr(retention, "_propose", lost)
        for _ in range(2):
            await retention.step()
            await archive.step()
    spoil(tmp_path / "archive", 1)
    node.replicator.leads = True
    await retention.step()
    assert archives.removed(node.local_db).through == 0


async def test_a_node_whose_clock_is_behind_reads_what_is_old_by_the_logs_time(
    node: OneNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """(U4) A follower proposes although its clock differs; the log's time is the primary's."""
    archive, retention = await old_and_confirmed(node, tmp_path / "local.db")
    confirm_as(node, N2, 3, folder="c" * 32)
    whole = spoil(tmp_path / "archive", 1)
    now_ms = node.clock.now_ms
    with monkeypatch.context() as patch:
        patch.setattr(node.clock, "now_ms", lambda: now_ms() - 30 * DAY_MS)
        for _ in range(3):
            await retention.step()
            with contextlib.suppress(SegmentError):
                await archive.step()
    assert named(tmp_path / "archive", "*.jsonl")[0].read_bytes() == whole


async def test_a_copy_that_was_due_is_read_once(
    node: OneNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node that is no member any more confirms nothing, and has no reason to read on."""
    archive, retention = await old_and_confirmed(node, tmp_path / "local.db")
    await retention.step()
    monkeypatch.setattr(retention, "_is_member", lambda: False)
    read: list[int] = []
    prove = archive_files.prove

    def noting(files: Any, segment: Segment, *rest: Any) -> None:
        read.append(segment.number)
        prove(files, segment, *rest)

    monkeypatch.setattr(archive_files, "prove", noting)
    for _ in range(3):
        await archive.step()
        await retention.step()
    assert sorted(read) == [1, 2, 3]


async def test_what_was_read_in_another_folder_is_read_again(
    node: OneNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """(U4) Another disk may be mounted for a while, and be read, without a quorum."""
    archive, retention = await old_and_confirmed(node, tmp_path / "local.db")
    folder, other, away = (tmp_path / each for each in ("archive", "other", "away"))
    shutil.copytree(folder, other)
    (other / "archive-id").write_text("b" * 32 + "\n")
    folder.rename(away)
    other.rename(folder)

    async def lost(_: object) -> None:
        """There is no quorum."""

    with monkeypatch.context() as patch:
        patch.setattr(retention, "_propose", lost)
        for _ in range(3):
            await archive.step()
            await retention.step()
    folder.rename(other)
    away.rename(folder)
    spoil(folder, 1)
    node.replicator.leads = True
    await archive.step()
    await retention.step()
    assert archives.removed(node.local_db).through == 0


async def test_removed_segments_are_not_read_because_they_were_due(
    node: OneNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """(U4) Other archives may have let them go before this node has read its own."""
    monkeypatch.setattr(audit, "SEGMENT_EVENTS", 10_000)  # No other is sealed.
    n3 = NodeId("n3")
    confirm_as(node, n3, 3)
    archive, retention = await old_and_confirmed(node, tmp_path / "local.db")
    confirm_as(node, n3, 3)
    confirm_as(node, N2, 3)
    node.replicator.leads = True
    await retention.step()
    assert archives.removed(node.local_db).through == 3
    await archive.step()
    monkeypatch.setattr(archive_files, "prove", unreadable)
    for _ in range(2):
        await retention.step()
        await archive.step()
    assert archive._is_idle


def unreadable(*_: object, **__: object) -> None:
    raise OSError(errno.EIO, "Input/output error")


async def test_a_copy_that_is_mended_while_its_damage_is_noted_is_read_again(
    node: OneNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """(U2) An operator's copy may take longer than the reading."""
    archive = await confirmed_and_removed(node, tmp_path / "local.db")
    whole = spoil(tmp_path / "archive", 2)
    archive._read_again = 1
    look = archive._look

    def copied() -> Any:
        named(tmp_path / "archive", "*.jsonl")[1].write_bytes(whole)
        monkeypatch.setattr(archive, "_look", look)
        return look()

    monkeypatch.setattr(archive, "_look", copied)
    assert not await archive._logged("read", archive.read_again)
    assert archive.waiting == 1
    await archive.step()
    assert (archive.waiting, archive.report().problem) == (0, "")


async def test_of_copies_that_cannot_be_read_one_is_tried_in_a_step(
    node: OneNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """(U2) Reading a bad disk takes long. Each comes in turn, and may be read again."""
    archive = await confirmed_and_removed(node, tmp_path / "local.db")
    tried: list[int] = []
    prove = archive._prove

    def count(segment: Segment) -> None:
        tried.append(segment.number)
        prove(segment)

    monkeypatch.setattr(archive, "_prove", count)
    with monkeypatch.context() as patch:
        patch.setattr(archive_files, "prove", unreadable)
        archive._read_again = 0
        for _ in range(2):
            assert not await archive._logged("read", archive.read_again)
        tried.clear()
        for _ in range(4):
            assert not await archive._logged("write", archive.step)
        assert tried == [1, 2, 1, 2]
        assert "Input/output error" in archive.report().problem
        assert archive.waiting == 2
    for _ in range(2):
        await archive.step()
    assert await archive._logged("write", archive.step)
    assert (archive.waiting, archive.report().problem) == (0, "")


async def test_a_copy_that_could_not_be_read_once_and_that_the_node_lacks_counts_again(
    node: OneNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """(U2) The node cannot write it, so only reading it can show that it is whole."""
    state = tmp_path / "local.db"
    archive = await confirm(node, state)
    retention = retention_of(node, archive)
    await discard(node, state)
    with contextlib.closing(sqlite3.connect(file_of(state))) as db, db:
        db.execute("DELETE FROM stored_segments WHERE number = 1")
    with monkeypatch.context() as patch:
        patch.setattr(archive_files, "prove", unreadable)
        archive._read_again = 0
        assert not await archive._logged("read", archive.read_again)
        await retention.step()
        assert confirmed(node) == {2, 3}
        assert not await archive._logged("write", archive.step)
        assert "Input/output error" in archive.report().problem
    for _ in range(2):
        assert await archive._logged("write", archive.step)
        await retention.step()
    assert confirmed(node) == {1, 2, 3}
    assert archive.report().problem == ""


async def test_a_lost_segment_that_is_stored_here_is_archived(
    node: OneNode, tmp_path: Path
) -> None:
    """(U2) It was found again; one that is not here is passed over."""
    state = tmp_path / "local.db"
    async with kept(state) as keeper:
        await keeper.step()
    segments.declare_lost(node.local_db, [1, 2], 0, "its disk was destroyed")
    file = sqlite3.connect(file_of(state), isolation_level=None)
    file.execute("DELETE FROM stored_segments WHERE number = 2")
    file.close()
    archive = archive_of(node, state, tmp_path / "archive")
    await archive.step()
    assert archive.holding.held == ((1, 1), (3, 3))


async def test_an_administrator_confirms_a_copy_by_its_files(
    node: OneNode, tmp_path: Path
) -> None:
    """(U4) The hashes that the command reads from the copy are those of the cluster."""
    archive = await confirm(node, tmp_path / "local.db")
    copy = archived_segments(tmp_path / "archive")[:2]
    read = verify_files(
        [each.events for each in copy],
        [read_checkpoint(each.checkpoint) for each in copy],
    )
    await node.membership.confirm_archive(
        node.admin("ClusterService/ConfirmArchive"),
        first=1,
        last=2,
        hash_before=read.hash_before,
        hash_after=read.hash_after,
        place="a disk in the vault",
    )
    # Eight days later this node has said nothing, and the copy still counts.
    node.clock.pass_s(8 * DAY_MS / 1000)
    async with node.state.transaction() as transaction:
        seen = await archive_queries.overview(transaction, node.clock.now_ms(), {})
    assert {each.archiver: each.counts for each in seen.archives} == {
        "administrator:root": True,
        "node:n1": False,
    }
    await age(node, archive)
    assert archives.removed(node.local_db).through == 2


async def test_a_withdrawn_copy_is_missed_by_metrics_doctor_and_status(
    node: OneNode, tmp_path: Path
) -> None:
    """(U4) Nothing is removed on its word, and the alert follows the metric."""
    state = tmp_path / "local.db"
    archive = await confirm(node, state)
    hashes = [segments.find(node.local_db, number) for number in (1, 2)]
    assert hashes[0] is not None
    assert hashes[1] is not None
    await node.membership.confirm_archive(
        node.admin("ClusterService/ConfirmArchive"),
        first=1,
        last=2,
        hash_before=hashes[0].hash_before,
        hash_after=hashes[1].hash_after,
        place="tape 12",
    )
    counts = EventCounts(state, node.clock)
    counts.take()
    assert counts.short_segments == 1
    await node.membership.withdraw_archive(
        node.admin("ClusterService/WithdrawArchive"),
        administrator="Root",
        first=2,
        last=2,
        reason="tape 12 cannot be read",
    )
    node.clock.pass_s(60)
    counts.take()
    assert counts.short_segments == 2
    (finding,) = check_copies(state, node.clock.now_ms() + 2 * 60 * 60 * 1000)
    assert finding.words.startswith("segments 2 to 3 are in fewer than 2 archives")
    async with node.state.transaction() as transaction:
        seen = await archive_queries.overview(transaction, node.clock.now_ms(), {})
    assert seen.unarchived_segments == "2 to 3"
    await age(node, archive)
    assert archives.removed(node.local_db).through == 1


async def test_segments_in_too_few_archives_are_counted_and_told(
    node: OneNode, tmp_path: Path
) -> None:
    """(U4) Metrics and the doctor say the same as the cluster's status."""
    state = tmp_path / "local.db"
    archive = await confirm(node, state)
    confirm_as(node, N2, 2)
    counts = EventCounts(state, node.clock)

    def told(after_s: int = 60) -> tuple[int, int, int]:
        node.clock.pass_s(after_s)
        counts.take()
        oldest_ms = counts.oldest_short_ms
        return counts.removed_segments, counts.short_segments, oldest_ms

    for _ in range(2):
        await retention_of(node, archive).step()
        await archive.step()
    third = segments.find(node.local_db, 3)
    assert third is not None
    assert told() == (0, 1, third.last_at_ms)
    now_ms = node.clock.now_ms()
    assert list(check_copies(state, now_ms)) == []  # It was sealed a moment ago.
    (finding,) = check_copies(state, now_ms + 2 * 60 * 60 * 1000)
    assert finding.verdict is Verdict.WARN
    assert finding.words.startswith("segments 3 are in fewer than 2 archives")
    await age(node, archive, 2)
    assert told() == (2, 2, third.last_at_ms)  # A fourth was sealed meanwhile.
    node.clock.pass_s(8 * DAY_MS / 1000)
    async with node.state.transaction() as transaction:
        seen = await archive_queries.overview(transaction, node.clock.now_ms(), {})
    short = short_segments(node.local_db, node.clock.now_ms())
    assert seen.unarchived_segments == in_words(short.ranges) == "3 to 4"
    assert told() == (2, 2, third.last_at_ms)
    await node.login()
    await node.policies.update(
        node.admin("PolicyService/UpdatePolicy"),
        version=2,
        values={"audit_retention_ms": 0},
    )
    # Counting walks all segments, and a monitor may scrape every few seconds.
    assert told(after_s=0) == (2, 2, third.last_at_ms)
    assert told() == (2, 0, 0)
