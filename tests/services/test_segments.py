# SPDX-License-Identifier: Apache-2.0
"""Sealed audit events: stored in the background, fetched from members, read as before (U1)."""

import asyncio
import contextlib
import dataclasses
import errno
import shutil
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
import pytest_asyncio
from local_cluster.cluster import free_ports

from sparecode.internal.v1 import peers_pb2, peers_pb2_grpc
from sparecode_client.audit import verification as offline
from sparecode_node.daemon.metrics.events import EventCounts
from sparecode_node.domain.administrators import Role
from sparecode_node.domain.ids import NodeId
from sparecode_node.domain.notices import ChannelKind
from sparecode_node.domain.outcomes import Reason
from sparecode_node.domain.segments import Holding
from sparecode_node.queries import activity
from sparecode_node.queries.audit import AuditFilter
from sparecode_node.queries.segments import MissingSegmentError
from sparecode_node.queries.transaction import DamagedFileError
from sparecode_node.replication.links import segment_exchange
from sparecode_node.replication.links.segment_exchange import (
    NoSegments,
    SegmentCalls,
    SegmentExchange,
    SegmentNotHeldError,
    SegmentSource,
)
from sparecode_node.replication.links.transport import MESSAGE_BYTES_MAX
from sparecode_node.replication.offline.refounding import SurvivingLog
from sparecode_node.services.ambient import SystemEntropy
from sparecode_node.services.cluster import segment_file
from sparecode_node.services.cluster import segments as keeping
from sparecode_node.services.cluster.segment_holders import SegmentHolders
from sparecode_node.services.cluster.segments import SegmentKeeper
from sparecode_node.services.error_table import EXCEPTIONS
from sparecode_node.services.errors import (
    ApprovalNeededError,
    InvalidFieldError,
    Refused,
)
from sparecode_node.services.files import age_files
from sparecode_node.services.files.backup_verification import (
    missing_events,
    open_backup,
)
from sparecode_node.statemachine import audit, sealed_events
from sparecode_node.statemachine.missing_segments import missing_segments
from sparecode_node.statemachine.sealed_events import file_of
from sparecode_node.statemachine.segment_chain import SegmentError
from sparecode_node.statemachine.snapshots import (
    read_state,
    write_snapshot,
    write_whole,
)
from sparecode_node.statemachine.tables import segments as held_segments
from sparecode_node.tool.doctor.findings import Verdict
from sparecode_node.tool.doctor.state import check_state
from sparecode_node.tool.recovery_report import print_missing_segments
from tests.services.one_node import OneNode, one_node
from tests.services.test_administrators import settled
from tests.services.test_approvals import Pair
from tests.services.test_audit import reading, shown
from tests.services.test_audit_export import as_client, exported, signed
from tests.services.test_backups import name_recipients, write
from tests.services.test_notices import add_users
from tests.services.test_streams import create, file_stream, lines

pytestmark = pytest.mark.asyncio

EVENTS = 8
"""Of a segment in these tests."""
N2, N3 = NodeId("n2"), NodeId("n3")


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "SEGMENT_EVENTS", EVENTS)
    monkeypatch.setattr(segment_exchange, "PART_EVENTS", 3)
    monkeypatch.setattr(keeping, "REST", 0.0)
    monkeypatch.setattr(keeping, "TURN_EVENTS", 3)


@pytest_asyncio.fixture
async def node(tmp_path: Path) -> AsyncIterator[OneNode]:
    """Return a node with some history and a file for sealed events."""
    sealed_events.create(tmp_path / "local.db")
    async with one_node(tmp_path) as node:
        for number in range(3 * EVENTS):
            node.clock.pass_s(10)
            await node.users.create(
                node.admin("UserService/CreateUser"),
                username=f"user{number}",
                display_name="",
                email="",
            )
        yield node


@contextlib.asynccontextmanager
async def kept(
    state: Path,
    on_stored: Callable[[Any], object] = lambda _: None,
    serves: Callable[[], bool] = lambda: True,
) -> AsyncIterator[SegmentKeeper]:
    keeper = SegmentKeeper(state, on_stored, serves=serves)
    keeper.allow(((1, 2**63),))
    try:
        yield keeper
    finally:
        keeper._file.close()


@contextlib.asynccontextmanager
async def another_member(state: Path) -> AsyncIterator[SegmentKeeper]:
    """Yield the keeper of another member, which has stored all segments of a state."""
    path = state.with_name("other.db")
    write_snapshot(state, path)
    sealed_events.create(path)
    async with kept(path) as keeper:
        await keeper.step()
        yield keeper


def stored_numbers(path: Path) -> list[int]:
    with contextlib.closing(sqlite3.connect(file_of(path))) as db:
        rows = db.execute("SELECT number FROM stored_segments ORDER BY number")
        return [number for (number,) in rows]


async def discard(node: OneNode, path: Path) -> None:
    """Store everything that is sealed, and let apply discard it."""
    local = node.replicator._local

    def stored(segment: Any) -> None:
        local.stored = segment

    async with kept(path, stored) as keeper:
        await keeper.step()
    (last,) = node.local_db.execute("SELECT max(sequence) FROM audit_events").fetchone()
    for _ in range(last):
        await node.replicator.read_barrier(timeout_s=60)
    (first,) = node.local_db.execute(
        "SELECT min(sequence) FROM audit_events"
    ).fetchone()
    assert first > 2 * EVENTS


async def views(node: OneNode) -> list[object]:
    """Return what the use cases show of the audit log."""
    pages: list[object] = []
    token = ""
    while True:
        page = await node.audit.list(
            reading(node, "ListAuditEvents"),
            criteria=AuditFilter(),
            page_size=3,
            page_token=token,
        )
        pages.append(page.value.items)
        if not (token := page.value.next_page_token):
            break
    last = node.clock.now_ms()
    criteria = [
        AuditFilter(action="CreateUser"),
        AuditFilter(target="user3"),
        AuditFilter(start_ms=last - 150_000, end_ms=last - 50_000),
    ]
    verdict = await node.audit.verify_chain(reading(node, "VerifyChain"))
    return [
        *pages,
        *[await shown(node, each) for each in criteria],
        await exported(node),
        verdict.value,
    ]


async def test_the_seam_is_not_seen(node: OneNode, tmp_path: Path) -> None:
    """(U1) Pages, filters, exports and the verified chain stay the same."""
    node.clock.pass_s(10)
    before = await views(node)
    await discard(node, tmp_path / "local.db")
    assert await views(node) == before


async def test_a_checkpoint_is_of_the_end_of_a_segment(
    node: OneNode, tmp_path: Path
) -> None:
    """(U2) With the time of its last event: there are later events now."""
    await discard(node, tmp_path / "local.db")
    node.clock.pass_s(10)
    call = reading(node, "GetCheckpoint")
    for number in (1, 2):
        end = (await node.audit.checkpoint(call, segment=number)).value
        page = await node.audit.list(
            reading(node, "ListAuditEvents"),
            criteria=AuditFilter(),
            from_sequence=number * EVENTS,
            page_size=1,
        )
        (last,) = page.value.items
        assert (end.sequence, end.head) == (last.event.sequence, last.hash)
        assert end.at_ms == last.event.at_ms
        assert end.at_ms < (await node.audit.checkpoint(call)).value.at_ms
    for number, words in ((999, "999 is not sealed"), (-1, "must be 0 to")):
        with pytest.raises(InvalidFieldError, match=words) as raised:
            await node.audit.checkpoint(call, segment=number)
        assert raised.value.field == "segment"


async def test_an_export_ends_where_it_is_asked_to(
    node: OneNode, tmp_path: Path
) -> None:
    """(U2) On both sides of the seam."""
    await discard(node, tmp_path / "local.db")
    whole = (await exported(node)).splitlines()
    for first, last in ((1, EVENTS), (EVENTS, EVENTS + 1), (1, len(whole) + 50)):
        part = await exported(node, after_sequence=first - 1, up_to_sequence=last)
        assert part.splitlines() == whole[first - 1 : last]


# --- Members


class Member(SegmentCalls, peers_pb2_grpc.PeerServiceServicer):
    """Another member, called without TLS."""

    def __init__(self, source: SegmentSource) -> None:
        self._segments = SegmentExchange(source)

    async def _caller(self, _: Any) -> NodeId:
        return NodeId("n1")


class Lying(NoSegments):
    """A member that sends other words, or too many."""

    def __init__(self, line: bytes) -> None:
        self.line = line

    def lend(
        self,
        number: int,
        hash_after: bytes,
        *,
        skip: int,
        most: int,
    ) -> bytes:
        return self.line * most if skip < EVENTS else b""


@contextlib.asynccontextmanager
async def linked(
    exchange: SegmentExchange, **members: SegmentSource
) -> AsyncIterator[None]:
    """Let an exchange reach members over gRPC."""
    async with contextlib.AsyncExitStack() as stack:
        channels = {}
        for name, source in members.items():
            server = grpc.aio.server()
            peers_pb2_grpc.add_PeerServiceServicer_to_server(Member(source), server)
            address = f"127.0.0.1:{free_ports(1)[0]}"
            server.add_insecure_port(address)
            await server.start()
            stack.push_async_callback(server.stop, None)
            channels[NodeId(name)] = await stack.enter_async_context(
                grpc.aio.insecure_channel(address)
            )
        exchange.connect(channel=channels.get, others=lambda: channels)
        yield


@contextlib.asynccontextmanager
async def joined(node: OneNode, folder: Path) -> AsyncIterator[Path]:
    """Take away what a node that has installed a snapshot does not have."""
    path = folder / "local.db"
    await discard(node, path)
    with contextlib.closing(sqlite3.connect(file_of(path))) as db:
        db.execute("DELETE FROM audit_events")
        db.execute("DELETE FROM stored_segments")
        db.commit()
    yield path


@pytest_asyncio.fixture
async def whole(node: OneNode, tmp_path: Path) -> AsyncIterator[SegmentKeeper]:
    """Return another member, which has the log in both of its files."""
    async with another_member(tmp_path / "local.db") as keeper:
        yield keeper


class Asked(NoSegments):
    """A member that writes down which segments it is asked for."""

    def __init__(self, source: SegmentKeeper, *, lacks: int = 0) -> None:
        self.source, self.lacks = source, lacks
        self.asked: list[int] = []

    def lend(self, number: int, hash_after: bytes, *, skip: int, most: int) -> bytes:
        self.asked.append(number)
        if number == self.lacks:
            raise SegmentNotHeldError("not now")
        return self.source.lend(number, hash_after, skip=skip, most=most)


async def test_a_node_that_joined_fetches_what_it_lacks(
    node: OneNode, whole: SegmentKeeper, tmp_path: Path
) -> None:
    """(U1) Until then it refuses to show less than there is. It serves newer events."""
    before = await views(node)
    async with joined(node, tmp_path) as path, kept(path) as keeper:
        newest = await node.audit.list(
            reading(node, "ListAuditEvents"), criteria=AuditFilter(), page_size=1
        )
        assert newest.value.items == before[0][:1]  # type: ignore[index]
        for read in (
            lambda: shown(node),
            lambda: shown(node, from_sequence=1),
            lambda: shown(node, AuditFilter(target="user3")),
            lambda: shown(node, AuditFilter(end_ms=node.clock.now_ms() - 150_000)),
            lambda: exported(node),
            lambda: node.audit.verify_chain(reading(node, "VerifyChain")),
        ):
            with pytest.raises(MissingSegmentError):
                await read()
        async with linked(keeper.exchange, n2=NoSegments(), n3=whole):
            await keeper.step()
        assert keeper.missing == ()
        assert await views(node) == before
    assert EXCEPTIONS[MissingSegmentError].reason == "AUDIT_SEGMENT_MISSING"


async def test_a_read_waits_for_what_it_needs(
    node: OneNode,
    whole: SegmentKeeper,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """(U1) A node that joined shows the whole log at once, and fetches in this order."""
    monkeypatch.setattr(keeping, "PAUSE_S", 3600.0)
    monkeypatch.setattr(keeping, "RETRY_S", 3600.0)
    before = await shown(node, from_sequence=1), await exported(node)
    other, serves = Asked(whole), False

    async with (
        joined(node, tmp_path) as path,
        kept(path, serves=lambda: serves) as keeper,
        linked(keeper.exchange, n2=other),
    ):
        node.audit._reader._fetch_segment = keeper.fetch
        await keeper.step()
        assert [each.number for each in keeper.missing] == [3, 2, 1]
        asleep, sleep = asyncio.Event(), keeper._wanted.sleep

        async def noted(seconds: float) -> None:
            asleep.set()
            await sleep(seconds)

        monkeypatch.setattr(keeper._wanted, "sleep", noted)
        running = asyncio.create_task(keeper.run())
        await asleep.wait()
        serves = True
        assert await keeper.fetch(1, 60.0)
        assert other.asked[0] == 1, "not the newest"
        assert (await shown(node, from_sequence=1), await exported(node)) == before
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_a_read_does_not_wait_beyond_its_deadline(
    node: OneNode, whole: SegmentKeeper, tmp_path: Path
) -> None:
    """It is refused in time, so that its caller asks another node."""
    assert whole.missing == ()
    async with joined(node, tmp_path) as path, kept(path) as keeper:
        with pytest.raises(SegmentNotHeldError):
            await keeper.step()
        node.audit._reader._fetch_segment = keeper.fetch
        context = dataclasses.replace(reading(node, "ListAuditEvents"), deadline_s=1.05)
        with pytest.raises(MissingSegmentError):
            await node.audit.list(context, criteria=AuditFilter(), from_sequence=1)
        # One that no member has is told at once.
        reader = asyncio.create_task(shown(node, from_sequence=1))
        running = asyncio.create_task(keeper.run())
        with pytest.raises(MissingSegmentError):
            await reader
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_the_newest_missing_segment_is_fetched_first(
    node: OneNode, whole: SegmentKeeper, tmp_path: Path
) -> None:
    other = Asked(whole)
    async with (
        joined(node, tmp_path) as path,
        kept(path) as keeper,
        linked(keeper.exchange, n2=other),
    ):
        await keeper.step()
    assert list(dict.fromkeys(other.asked)) == [3, 2, 1]


async def test_a_long_fetch_does_not_keep_new_events_waiting(
    node: OneNode,
    whole: SegmentKeeper,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """All voters wait with the discard of what this node has not stored."""
    monkeypatch.setattr(keeping, "ROUND_S", 0.0)
    other = Asked(whole, lacks=3)
    async with (
        joined(node, tmp_path) as path,
        kept(path) as keeper,
        linked(keeper.exchange, n2=other),
    ):
        with pytest.raises(SegmentNotHeldError):
            await keeper.step()
        assert other.asked == [3], "a step ends after some seconds"
        await add_users(node, *(f"later{number}" for number in range(EVENTS)))
        await keeper.step()
        assert stored_numbers(path) == [2, 4], "what was not sent comes last"
        await keeper.step()
        assert stored_numbers(path) == [1, 2, 4]


async def test_a_node_fetches_nothing_before_it_serves(
    node: OneNode, whole: SegmentKeeper, tmp_path: Path
) -> None:
    """(U5) A join costs the same, whatever the age of the audit log."""
    ready: list[bool] = []
    async with (
        joined(node, tmp_path) as path,
        kept(path, serves=lambda: bool(ready)) as keeper,
        linked(keeper.exchange, n2=whole),
    ):
        await keeper.step()
        assert [each.number for each in keeper.missing] == [3, 2, 1]
        assert stored_numbers(path) == []
        ready.append(True)
        await keeper.step()
        assert keeper.missing == ()
        assert stored_numbers(path) == [1, 2, 3]


@pytest.mark.parametrize("line", [b"{}\n", b"x" * 100_000 + b"\n", b""])
async def test_a_member_that_sends_other_events_is_passed_over(
    node: OneNode, whole: SegmentKeeper, tmp_path: Path, line: bytes
) -> None:
    """(U1) The chain in the state proves the events of any sender."""
    async with joined(node, tmp_path) as path, kept(path) as keeper:
        async with linked(keeper.exchange, n2=Lying(line)):
            with pytest.raises(SegmentNotHeldError, match="no member has"):
                await keeper.step()
            assert [each.number for each in keeper.missing] == [3, 2, 1]
        async with linked(keeper.exchange, n2=Lying(line), n3=whole):
            await keeper.step()
        assert keeper.missing == ()


async def test_a_segment_of_long_events_is_sent_in_parts() -> None:
    """A script may name 100 users in each change: 200 such events fill a message."""
    lines = [b"x" * length + b"\n" for length in (300_000, 10, *[9_000] * 200)]

    class Long(NoSegments):
        def lend(
            self,
            number: int,
            hash_after: bytes,
            *,
            skip: int,
            most: int,
        ) -> bytes:
            return b"" if skip else b"".join(lines)

    request = peers_pb2.FetchSegmentRequest(number=1)
    exchange = SegmentExchange(Long())
    parts = [each.lines async for each in exchange.lend(request)]
    assert b"".join(parts) == b"".join(lines)
    assert all(each.endswith(b"\n") for each in parts)
    assert max(map(len, parts)) < MESSAGE_BYTES_MAX // 2


async def test_a_gap_between_events_of_the_state_is_told(node: OneNode) -> None:
    """A backup of a node that was alone may lack a segment between others."""
    node.local_db.execute(
        "DELETE FROM audit_events WHERE sequence BETWEEN ? AND ?",
        (EVENTS + 1, 2 * EVENTS),
    )
    node.local_db.commit()
    with pytest.raises(MissingSegmentError):
        await shown(node)


@pytest.mark.parametrize("text", ["'x'", "CAST(x'ff' AS TEXT)"])
async def test_a_rotten_own_event_comes_from_another_member(
    node: OneNode, whole: SegmentKeeper, tmp_path: Path, text: str
) -> None:
    """The state's database may be damaged where the digest no longer looks."""
    path = tmp_path / "local.db"
    before = await views(node)
    node.local_db.execute(
        f"UPDATE audit_events SET detail = {text} WHERE sequence = 3"  # noqa: S608
    )
    node.local_db.commit()
    async with kept(path) as keeper:
        with pytest.raises(SegmentNotHeldError):
            await keeper.step()
        assert stored_numbers(path) == [2, 3], "the others do not wait for it"
        async with linked(keeper.exchange, n2=whole):
            await keeper.step()
    await discard(node, path)
    assert await views(node) == before


async def test_a_failing_disk_is_tried_again(
    node: OneNode,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The task goes on, and nothing is discarded meanwhile."""
    stored: list[Any] = []
    full = True
    store = sealed_events.SealedEvents.store

    def failing(*args: Any) -> None:
        if full:
            raise sqlite3.OperationalError("database or disk is full")
        store(*args)

    monkeypatch.setattr(sealed_events.SealedEvents, "store", failing)
    monkeypatch.setattr(keeping, "RETRY_S", 0.01)
    keeper = SegmentKeeper(tmp_path / "local.db", stored.append)
    keeper.allow(((1, 2**63),))
    task = asyncio.create_task(keeper.run())
    async with asyncio.timeout(60):
        while "disk is full" not in str([vars(each) for each in caplog.records]):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        assert not any(stored)
        full = False
        while not (stored and stored[-1]) or stored[-1].segment.number < 3:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


# --- Backups, dashboard, search, doctor


async def test_a_backup_has_every_event_and_a_member_that_lacks_one_makes_none(
    node: OneNode, whole: SegmentKeeper, tmp_path: Path
) -> None:
    """(E1) A restore must not lose audit events."""
    secret, public = age_files.new_identity()
    await name_recipients(node, public)
    path = tmp_path / "local.db"
    node.backups._source = dataclasses.replace(
        node.backups._source, write_whole=lambda target: write_whole(path, target)
    )
    await discard(node, path)
    await write(node, tmp_path / "a.backup")
    signed = open_backup(tmp_path / "a.backup", tmp_path / "opened.db", [secret])
    with contextlib.closing(sqlite3.connect(tmp_path / "opened.db")) as db:
        (count,) = db.execute("SELECT count(*) FROM audit_events").fetchone()
    assert count == signed.manifest.audit_sequence > 3 * EVENTS
    async with joined(node, tmp_path):
        with pytest.raises(MissingSegmentError):
            await write(node, tmp_path / "b.backup")
        # A node that is alone has no other: what it has is better than no backup.
        node.replicator.gone |= {"n0", "n3"}
        await write(node, tmp_path / "c.backup")
        opened = open_backup(tmp_path / "c.backup", tmp_path / "part.db", [secret])
    assert opened.manifest.audit_sequence > signed.manifest.audit_sequence
    assert whole.missing == ()


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE audit_events SET detail = 'another' WHERE sequence = 3",
        "UPDATE audit_events SET detail = CAST(x'ff' AS TEXT) WHERE sequence = 3",
        "DELETE FROM audit_events WHERE sequence = 3",
    ],
)
async def test_no_backup_has_a_rotten_event(
    node: OneNode, whole: SegmentKeeper, tmp_path: Path, damage: str
) -> None:
    """(E1) It could never be restored. The segment is fetched again at once."""
    _, public = age_files.new_identity()
    await name_recipients(node, public)
    path = tmp_path / "local.db"
    await discard(node, path)
    async with kept(path) as keeper:
        await keeper.step()
        node.backups._source = dataclasses.replace(
            node.backups._source,
            write_whole=lambda target: write_whole(path, target),
            rotten=keeper.suspect,
        )
        with contextlib.closing(sqlite3.connect(file_of(path))) as db, db:
            db.execute(damage)
        with pytest.raises(MissingSegmentError, match=f"1 to {EVENTS}"):
            await write(node, tmp_path / "a.backup")
        async with linked(keeper.exchange, n2=whole):
            await keeper.step()
        assert keeper.missing == ()
        await write(node, tmp_path / "b.backup")


async def test_a_backup_without_sealed_events_has_the_state_alone(
    node: OneNode, whole: SegmentKeeper, tmp_path: Path
) -> None:
    """
    (E1) It is as large as the estate; a member that lacks events can make it, too.

    What is left of a segment that is being discarded is not in it: the chain is verified
    around whole segments.
    """
    secret, public = age_files.new_identity()
    await name_recipients(node, public)
    path = tmp_path / "local.db"
    await discard(node, path)
    async with joined(node, tmp_path):
        await write(node, tmp_path / "a.backup", without_sealed_events=True)
        signed = open_backup(tmp_path / "a.backup", tmp_path / "opened.db", [secret])
    with contextlib.closing(sqlite3.connect(tmp_path / "opened.db")) as db:
        sealed = held_segments.all_sealed(db)[-1].last_sequence
        (first,) = db.execute("SELECT min(sequence) FROM audit_events").fetchone()
    assert min(sealed + 1, signed.manifest.audit_sequence) <= first
    assert missing_events(tmp_path / "opened.db") == ((1, sealed),)
    assert whole.missing == ()


async def test_the_doctor_names_missing_and_damaged_events(
    node: OneNode, tmp_path: Path
) -> None:
    path = tmp_path / "local.db"

    def finding() -> Any:
        (found,) = [
            each
            for each in check_state(path, journal=None, ring=None)
            if each.subject == "audit log"
        ]
        return found

    await discard(node, path)
    assert finding().verdict is Verdict.OK
    with contextlib.closing(sqlite3.connect(file_of(path))) as db:
        db.execute("UPDATE audit_events SET detail = 'x' WHERE sequence = 3")
        db.commit()
    assert finding().verdict is Verdict.FAIL
    assert "breaks at event 3" in finding().words
    assert "in its place" in finding().words, "a node that is alone has no other copy"
    async with joined(node, tmp_path):
        assert finding().verdict is Verdict.WARN
        assert f"{3 * EVENTS} of" in finding().words
    file_of(path).write_bytes(b"not a database" * 1000)
    file_of(path).with_name(f"{file_of(path).name}-wal").unlink(missing_ok=True)
    assert finding().verdict is Verdict.FAIL


async def test_the_doctor_passes_over_the_rest_of_a_missing_segment(
    node: OneNode, tmp_path: Path
) -> None:
    """A snapshot may be of a moment when a member was discarding a segment."""
    node.local_db.execute("DELETE FROM audit_events WHERE sequence <= 3")
    node.local_db.commit()
    findings = check_state(tmp_path / "local.db", journal=None, ring=None)
    (finding,) = [each for each in findings if each.subject == "audit log"]
    assert finding.verdict is Verdict.WARN
    assert f"{EVENTS} of" in finding.words


async def test_the_dashboard_counts_what_there_is(
    node: OneNode, tmp_path: Path
) -> None:
    """It says from when on it counts, and counts the rest when that has come."""

    async def tally() -> activity.Tally:
        async with node.state.transaction() as transaction:
            return await activity.extend(
                transaction,
                activity.Tally(),
                now_ms=node.clock.now_ms(),
                rows=1000,
            )

    before = await tally()
    await discard(node, tmp_path / "local.db")
    assert await tally() == before
    async with joined(node, tmp_path):
        part = await tally()
    assert part.from_ms > before.from_ms
    assert part.first > 2 * EVENTS


async def test_the_digest_of_a_node_that_joined_is_the_others(
    node: OneNode, whole: SegmentKeeper, tmp_path: Path
) -> None:
    assert whole.missing == ()
    async with joined(node, tmp_path) as path:
        facts = read_state(path)
    assert facts.digest == node.replicator._primary.digest()


# --- What the members hold


def holder(node: OneNode, keeper: SegmentKeeper) -> SegmentHolders:
    return SegmentHolders(
        keeper=keeper,
        replicator=node.replicator,
        state=node.state,
        entropy=SystemEntropy(),
    )


def noted(node: OneNode) -> dict[NodeId, Holding]:
    return held_segments.holdings(node.local_db)


def save(node: OneNode, node_id: NodeId, holding: Holding) -> None:
    held_segments.save_holding(node.local_db, node_id, holding, 1)
    node.local_db.commit()


async def test_events_are_discarded_only_when_all_voters_hold_them(
    node: OneNode, tmp_path: Path
) -> None:
    """(U1, U5) So a voter that was away finds in a snapshot what it has not stored."""
    stored: list[Any] = []
    keeper = SegmentKeeper(tmp_path / "local.db", stored.append)
    holders = holder(node, keeper)
    await keeper.step()
    own, others = (
        node.replicator.node_id,
        {each.node_id for each in node.replicator.members()},
    )
    others.discard(own)
    assert others
    await holders.step()
    await node.replicator.read_barrier(timeout_s=60)
    assert noted(node) == {own: Holding(through=3)}
    await holders.step()
    await keeper.step()
    assert not any(stored), "another voter has told nothing"
    for each in others:
        save(node, each, Holding(through=2))
    await holders.step()
    await keeper.step()
    assert stored[-1].segment.number == 2
    assert not await holders.step(), "it tells nothing twice"
    keeper._file.close()


async def test_a_rotten_segment_is_named_told_and_fetched_again(
    node: OneNode, whole: SegmentKeeper, tmp_path: Path
) -> None:
    """(U1) The members learn of it before it is whole again."""
    path = tmp_path / "local.db"
    await discard(node, path)
    async with kept(path) as keeper:
        await keeper.step()
        assert keeper.holding == Holding(through=3)
        with contextlib.closing(sqlite3.connect(file_of(path))) as db:
            db.execute("UPDATE audit_events SET detail = 'x' WHERE sequence = 3")
            db.commit()
        with pytest.raises(SegmentError, match="segment 1 is damaged"):
            await keeper.read_again()
        with pytest.raises(SegmentNotHeldError):
            await keeper.step()
        assert keeper.holding == Holding(through=3, missing=((1, 1),))
        await holder(node, keeper).step()
        await node.replicator.read_barrier(timeout_s=60)
        assert noted(node)[node.replicator.node_id] == keeper.holding
        async with linked(keeper.exchange, n2=whole):
            await keeper.step()
        assert keeper.holding == Holding(through=3)
        for _ in range(4):
            await keeper.read_again()


@pytest.mark.usefixtures("node")
async def test_a_quiet_node_reads_no_row_of_the_segments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A log of years has thousands of segments, and a look comes each second."""
    async with kept(tmp_path / "local.db") as keeper:
        await keeper.step()
        await keeper.step()

        def forbidden(_: object) -> None:
            raise AssertionError

        monkeypatch.setattr(held_segments, "all_sealed", forbidden)
        monkeypatch.setattr(keeper, "_new_plan", forbidden)
        await keeper.step()
        assert keeper.holding == Holding(through=3)


async def test_readers_go_on_after_a_loss_was_declared(
    node: OneNode, tmp_path: Path
) -> None:
    """(U1) With a gap that verification names."""
    async with joined(node, tmp_path) as path, kept(path) as keeper:
        with pytest.raises(SegmentNotHeldError):
            await keeper.step()
        with pytest.raises(MissingSegmentError):
            await exported(node)
        await node.membership.declare_segments_lost(
            node.admin("ClusterService/DeclareSegmentsLost"),
            first=1,
            last=3,
            reason="its disk was destroyed",
        )
        await keeper.step()
        assert keeper.missing == ()
        assert b"its disk was destroyed" in await exported(node)
        verdict = (await node.audit.verify_chain(reading(node, "VerifyChain"))).value
        assert verdict.broken_sequence == 0
        assert f"events 1 to {EVENTS} were declared lost" in verdict.problem
        (found,) = [
            each
            for each in check_state(path, journal=None, ring=None)
            if each.subject == "audit log"
        ]
        assert found.verdict is Verdict.OK
        assert "were declared lost" in found.words


@pytest.mark.parametrize("gone", [(1, 1), (2, 3)])
async def test_an_export_with_declared_losses_is_proved_without_a_node(
    node: OneNode, tmp_path: Path, gone: tuple[int, int]
) -> None:
    """(U2) The client proves by the declaring event what is on both sides of a gap."""
    first, last = gone
    path = tmp_path / "local.db"
    await discard(node, path)
    with contextlib.closing(sqlite3.connect(file_of(path))) as db:
        db.execute(
            "DELETE FROM audit_events WHERE sequence BETWEEN ? AND ?",
            ((first - 1) * EVENTS + 1, last * EVENTS),
        )
        db.execute("DELETE FROM stored_segments WHERE number BETWEEN ? AND ?", gone)
        db.commit()
    await node.membership.declare_segments_lost(
        node.admin("ClusterService/DeclareSegmentsLost"),
        first=first,
        last=last,
        reason="its disk was destroyed",
    )
    file = tmp_path / "audit.jsonl"
    file.write_bytes(await exported(node))
    verdict = offline.verify(file, [as_client(await signed(node))])
    assert verdict.problem is None
    (lost,) = verdict.lost
    assert (lost.first, lost.last) == ((first - 1) * EVENTS + 1, last * EVENTS)
    assert verdict.proved_up_to == lost.declared_by


async def test_a_stream_waits_for_missing_events_until_they_are_declared_lost(
    node: OneNode, tmp_path: Path
) -> None:
    """(N2, U1) It leaves out only what no member has, and goes on with the next event."""
    folder = tmp_path / "events"
    folder.mkdir()
    node.delivery._folder = node.channels._folder = folder
    await create(node, ChannelKind.FILE)
    working = await file_stream(node)
    working._position = 0
    async with joined(node, tmp_path):
        assert not await working.step()
        assert "lacks the audit events 1 to 8" in working.last_cause
        await node.membership.declare_segments_lost(
            node.admin("ClusterService/DeclareSegmentsLost"),
            first=1,
            last=3,
            reason="its disk was destroyed",
        )
        await node.replicator.read_barrier(timeout_s=60)
        assert not (folder / "siem.jsonl").exists()
        node.clock.pass_s(3600)
        await working.step()
    assert working.last_cause.startswith("events 1 to 24 are left out")
    written = [each["sequence"] for each in lines(folder / "siem.jsonl")]
    assert written == list(range(3 * EVENTS + 1, written[-1] + 1))
    await node.delivery._end("siem")


async def test_what_a_member_holds_is_not_declared_lost(node: OneNode) -> None:
    """(U1) The others fetch it there."""
    save(node, node.replicator.node_id, Holding(through=3))
    with pytest.raises(Refused, match="segments 1"):
        await node.membership.declare_segments_lost(
            node.admin("ClusterService/DeclareSegmentsLost"),
            first=1,
            last=1,
            reason="its disk was destroyed",
        )


async def test_what_a_busy_member_holds_is_not_declared_lost(node: OneNode) -> None:
    """(U1) It runs, and will answer: naming it as destroyed does not help."""
    save(node, N3, Holding(through=3))
    declared = {"first": 1, "last": 1, "reason": "r", "destroyed": ["n3"]}
    node.replicator.busy = {"n3"}
    with pytest.raises(Refused, match="n3 has segments 1"):
        await node.membership.declare_segments_lost(
            node.admin("ClusterService/DeclareSegmentsLost"), **declared
        )
    node.replicator.busy = set()
    await node.membership.declare_segments_lost(
        node.admin("ClusterService/DeclareSegmentsLost"), **declared
    )


async def test_a_holder_that_has_returned_ends_a_waiting_declaration(
    node: OneNode,
) -> None:
    """(U1, P3) The request may wait for a day, and a member that was down has them."""
    pair = Pair(node, node.bearer, await settled(node, Role.SUPER_ADMIN))
    with pytest.raises(ApprovalNeededError) as raised:
        await node.membership.declare_segments_lost(
            node.admin("ClusterService/DeclareSegmentsLost"),
            first=1,
            last=1,
            reason="its disk was destroyed",
        )
    own = node.replicator.node_id
    save(node, own, Holding(through=3))
    with pytest.raises(Refused, match="has segments 1") as refused:
        await pair.approve(raised.value.approval_id)
    assert refused.value.rejected.reason is Reason.SEGMENT_HELD
    assert held_segments.lost(node.local_db) == ()
    save(node, own, Holding(through=3, missing=((1, 1),)))
    await pair.approve(raised.value.approval_id)
    await node.replicator.read_barrier(timeout_s=60)
    assert held_segments.lost(node.local_db) == (1,)


async def test_a_lost_segment_is_fetched_from_a_member_that_has_it_after_all(
    node: OneNode, whole: SegmentKeeper, tmp_path: Path
) -> None:
    """(U1) The declaration only lets readers go on meanwhile."""
    before = await views(node)
    async with joined(node, tmp_path) as path, kept(path) as keeper:
        save(node, N2, Holding(through=3))
        held_segments.save_holding(node.primary_db, N2, Holding(through=3), 1)
        with pytest.raises(Refused, match="n2 has told that it has segments 1 to 3"):
            await node.membership.declare_segments_lost(
                node.admin("ClusterService/DeclareSegmentsLost"),
                first=1,
                last=3,
                reason="its disk was destroyed",
            )
        await node.membership.declare_segments_lost(
            node.admin("ClusterService/DeclareSegmentsLost"),
            first=1,
            last=3,
            reason="its disk was destroyed",
            destroyed=["n2"],
        )
        assert b"its disk was destroyed" in await exported(node)
        holders = SegmentHolders(
            keeper=keeper,
            replicator=node.replicator,
            state=node.state,
            entropy=SystemEntropy(),
        )
        async with linked(keeper.exchange, n2=whole):
            await holders.step()
            await keeper.step()
            assert stored_numbers(path) == [], "no member has told that it has them"
            save(node, N2, Holding(through=3))
            await holders.step()
            await keeper.step()
        assert stored_numbers(path) == [1, 2, 3]
        assert (await views(node))[-1] != before[-1], "there are more events now"
        verdict = (await node.audit.verify_chain(reading(node, "VerifyChain"))).value
        assert verdict.problem == ""
        assert (await shown(node, from_sequence=1))[: 3 * EVENTS] == sorted(
            (each for page in before if isinstance(page, tuple) for each in page),
            key=lambda record: record.event.sequence,
        )[: 3 * EVENTS]


async def test_rot_is_looked_for_while_another_segment_is_missing(
    node: OneNode,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """(U1) A segment that no member has must not hide the rot of others for months."""
    monkeypatch.setattr(keeping, "RETRY_S", 0.01)
    monkeypatch.setattr(keeping, "READ_AGAIN_S", 0.01)
    path = tmp_path / "local.db"
    await discard(node, path)
    with contextlib.closing(sqlite3.connect(file_of(path))) as db:
        db.execute("DELETE FROM stored_segments WHERE number = 1")
        db.execute("DELETE FROM audit_events WHERE sequence BETWEEN 1 AND ?", (EVENTS,))
        db.execute(
            "UPDATE audit_events SET detail = 'x' WHERE sequence = ?", (2 * EVENTS,)
        )
        db.commit()
    keeper = SegmentKeeper(path, lambda _: None)
    task = asyncio.create_task(keeper.run())
    async with asyncio.timeout(60):
        while "segment 2 is damaged" not in str(list(map(vars, caplog.records))):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert "no member has the audit events 1 to 8" in str(
        list(map(vars, caplog.records))
    )


def change(file: Path, sql: str) -> None:
    with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as db:
        db.execute(sql)


def zero_page_of(path: Path, sequence: int) -> None:
    """Overwrite the page of the sealed file with an event, as a bad disk does."""
    file = file_of(path)
    with contextlib.closing(sqlite3.connect(file)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        (page_size,) = db.execute("PRAGMA page_size").fetchone()
        (found,) = db.execute(
            "SELECT hash FROM audit_events WHERE sequence = ?", (sequence,)
        ).fetchone()
    content = bytearray(file.read_bytes())
    page = content.index(found) // page_size * page_size
    content[page : page + page_size] = bytes(page_size)
    with file.open("r+b") as opened:
        opened.write(content)


async def test_a_damaged_file_is_replaced_while_the_node_runs(
    node: OneNode, tmp_path: Path
) -> None:
    """(U1) What it still has is kept, the rest is fetched, and readers see both."""
    path, other = tmp_path / "local.db", tmp_path / "other.db"
    stored: list[Any] = []
    await add_users(node, *(f"more{number}" for number in range(8 * EVENTS)))
    write_snapshot(path, other)
    sealed_events.create(other)
    before = await shown(node)
    await discard(node, path)
    numbers = stored_numbers(path)
    zero_page_of(path, 3)
    async with kept(path, stored.append) as keeper, kept(other) as whole:
        keeper.on_replaced = node.state.reopen
        await whole.step()
        await keeper.step()
        with pytest.raises(SegmentError, match="segment 1 is damaged"):
            await keeper.read_again()
        async with linked(keeper.exchange, n2=whole):
            with pytest.raises(sqlite3.DatabaseError, match="malformed"):
                await keeper.step()
            await keeper.step()
        assert keeper.missing == ()
        assert stored_numbers(path) == numbers
    assert None in stored, "meanwhile nothing was discarded"
    assert (await shown(node))[-len(before) :] == before
    (aside,) = sealed_events.put_aside_files(path)
    assert aside.name == "local-audit.db.damaged-1"


async def test_a_reader_that_meets_a_damaged_page_starts_the_repair(
    node: OneNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """(U1) The keeper itself reads one segment a minute, of forty thousand."""
    path, other = tmp_path / "local.db", tmp_path / "other.db"
    await add_users(node, *(f"more{number}" for number in range(8 * EVENTS)))
    write_snapshot(path, other)
    sealed_events.create(other)
    before = await shown(node)
    await discard(node, path)
    async with kept(path) as keeper, kept(other) as whole:
        keeper.on_replaced = node.state.reopen
        node.state.on_damage = keeper.suspect_file
        await whole.step()
        await keeper.step()
        zero_page_of(path, 3)
        await node.state.reopen()  # Nothing of the page is in a reader's memory.
        with pytest.raises(DamagedFileError):
            await shown(node)
        async with linked(keeper.exchange, n2=whole):
            await keeper.step()
        assert keeper.missing == ()
        assert (await shown(node))[-len(before) :] == before
        assert len(sealed_events.put_aside_files(path)) == 1

        looks = []
        monkeypatch.setattr(
            segment_file, "find_damage", lambda _, **__: looks.append(1)
        )
        for _ in range(3):
            keeper.suspect_file()
            await keeper.step()
        assert not looks, "it has just looked, and reads all of a large file"
        keeper._check_from_s = 0.0  # A minute later.
        await keeper.step()
        assert looks == [1], "what was asked for meanwhile"
        assert keeper._check_pause_s == 2 * keeping.READ_AGAIN_S
        await keeper.step()
        assert looks == [1]


async def test_a_damaged_page_does_not_end_the_search_index(
    node: OneNode, tmp_path: Path
) -> None:
    """(U1) It reads the newest event again and again; a task that fails ends its node."""
    path, told = tmp_path / "local.db", asyncio.Event()
    await discard(node, path)
    numbers = stored_numbers(path)
    zero_page_of(path, numbers[-1] * EVENTS)
    await node.state.reopen()
    node.state.on_damage = told.set
    with pytest.raises(DamagedFileError):
        await shown(node)
    assert told.is_set()
    told.clear()
    looks = asyncio.Queue[float]()

    async def sleep(seconds: float) -> None:
        looks.put_nowait(seconds)
        await asyncio.sleep(0)

    following = asyncio.create_task(
        node.state.search.run(node.state.transaction, sleep)
    )
    for _ in range(3):
        await asyncio.wait_for(looks.get(), timeout=30)
    assert not following.done()
    following.cancel()


async def test_a_stop_breaks_a_check_off(
    node: OneNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """(U1) It reads all of the file: minutes, after years."""
    monkeypatch.setattr(sealed_events, "STEPS_BETWEEN", 1)
    path = tmp_path / "local.db"
    await discard(node, path)
    zero_page_of(path, 3)
    assert sealed_events.find_damage(path)
    assert not sealed_events.find_damage(path, ends=lambda: True)
    checked = threading.Event()

    def endless(_: Path, *, ends: Callable[[], bool]) -> str:
        checked.set()
        while not ends():
            threading.Event().wait(0.001)
        return ""

    monkeypatch.setattr(segment_file, "find_damage", endless)
    async with kept(path) as keeper:
        check = asyncio.create_task(asyncio.to_thread(keeper._file.check))
        await asyncio.to_thread(checked.wait, 30)
        await asyncio.wait_for(asyncio.to_thread(keeper._file.close), timeout=30)
        assert not await check
        assert not keeper._file.check(), "it is closed"


@pytest.mark.parametrize(
    "spoil",
    [
        lambda file: file.write_bytes(bytes(100) + file.read_bytes()[100:]),
        lambda file: change(
            file, "UPDATE audit_events SET detail = CAST(x'ff41' AS TEXT)"
        ),
    ],
    ids=["header", "text"],
)
async def test_a_reader_is_told_of_other_damage(
    node: OneNode, tmp_path: Path, spoil: Callable[[Path], object]
) -> None:
    path, told = tmp_path / "local.db", asyncio.Event()
    await discard(node, path)
    with contextlib.closing(sqlite3.connect(file_of(path))) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    spoil(file_of(path))
    await node.state.reopen()
    node.state.on_damage = told.set
    with pytest.raises(DamagedFileError):
        await shown(node)
    assert told.is_set()


async def test_other_errors_of_a_reader_start_no_repair(node: OneNode) -> None:
    told: list[int] = []
    node.state.on_damage = lambda: told.append(1)
    with pytest.raises(sqlite3.OperationalError):
        async with node.state.transaction() as transaction:
            await transaction.one("SELECT absent FROM audit_events")
    with pytest.raises(sqlite3.ProgrammingError):
        async with node.state.transaction():
            raise sqlite3.ProgrammingError("Cannot operate on a closed database.")
    assert not told


async def test_a_damaged_file_is_replaced_when_a_full_disk_lets_it(
    node: OneNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """(U1) Nothing is discarded, and the metric tells of it."""
    path = tmp_path / "local.db"
    stored: list[Any] = []
    full = True

    def failing(state: Path) -> None:
        if full:
            raise OSError(errno.ENOSPC, "No space left on device")
        sealed_events.create(state)

    monkeypatch.setattr(segment_file, "create", failing)
    async with kept(path, stored.append) as keeper:
        await keeper.step()
        assert stored[-1] is not None
        monkeypatch.setattr(
            segment_file, "find_damage", lambda _, **__: "page 3 is damaged"
        )
        with (
            pytest.raises(OSError, match="No space left"),
            keeper._file.opened(),
        ):
            raise sqlite3.DatabaseError("database disk image is malformed")
        assert stored[-1] is None
        assert keeper.holding == Holding()
        counts = EventCounts(path)
        counts.take()
        assert counts.missing_segments == 3
        with pytest.raises(OSError, match="No space left"):
            await keeper.step()
        full = False
        await keeper.step()
        counts.take()
        assert counts.missing_segments == 0
        assert stored[-1] is not None


async def test_events_after_a_gap_in_the_state_are_shown_when_they_are_found(
    node: OneNode, tmp_path: Path
) -> None:
    """(U1) A node that was alone made its backup without a segment."""
    path = tmp_path / "local.db"
    before = await shown(node, from_sequence=1)
    async with kept(path) as keeper:
        await keeper.step()
    node.local_db.execute(
        "DELETE FROM audit_events WHERE sequence BETWEEN ? AND ?",
        (EVENTS + 1, 2 * EVENTS),
    )
    node.local_db.commit()
    assert await shown(node, from_sequence=1) == before


async def test_a_recovery_tells_which_older_events_this_node_lacks(
    node: OneNode, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """(U1, E2) As the founder it has no member to fetch them from."""
    path = tmp_path / "local.db"
    own = SurvivingLog(
        cluster_id="c",
        node_id=node.replicator.node_id,
        members=(),
        applied_index=1,
        last_index=1,
        last_term=1,
    )
    save(node, own.node_id, Holding(through=3))
    save(node, N2, Holding(through=2))
    save(node, N3, Holding(through=1))
    await discard(node, path)
    print_missing_segments(own, missing_segments(path, own.node_id))
    assert capsys.readouterr().out == ""
    with contextlib.closing(sqlite3.connect(file_of(path))) as db:
        db.execute("DELETE FROM stored_segments WHERE number >= 2")
        db.commit()
    print_missing_segments(own, missing_segments(path, own.node_id))
    words = capsys.readouterr().out
    assert f"lacks segments 2 to 3 of the audit log,\n{2 * EVENTS} older" in words
    assert "n2 has told that it has segments 2." in words
    assert "n3 has told" not in words
    assert "state-audit.db.damaged-101" in words
    sealed_events.put_aside(path)
    sealed_events.create(path)
    assert missing_segments(path, own.node_id).ranges == ((1, 3),)


async def test_the_file_of_a_lost_member_is_taken_in(
    node: OneNode, whole: SegmentKeeper, tmp_path: Path
) -> None:
    """(U1) As `recover` and the runbook say: copied under the name of a damaged file."""
    before = await views(node)
    async with joined(node, tmp_path) as path, kept(path) as keeper:
        other = file_of(tmp_path / "other.db")
        for suffix in ("", "-wal"):
            source = other.with_name(other.name + suffix)
            if source.exists():
                name = f"{file_of(path).name}.damaged-101{suffix}"
                shutil.copy(source, path.with_name(name))
        await keeper.step()
        assert keeper.missing == ()
    assert await views(node) == before


async def test_what_a_damaged_file_still_has_is_recovered(
    node: OneNode, tmp_path: Path
) -> None:
    """(U1) This node may be the only one: one damaged page takes one segment with it."""
    path = tmp_path / "local.db"
    before = await shown(node, from_sequence=EVENTS + 1)
    await discard(node, path)
    with contextlib.closing(sqlite3.connect(file_of(path))) as db:
        db.execute("UPDATE audit_events SET detail = 'x' WHERE sequence = 3")
        db.commit()
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    sealed_events.put_aside(path)
    sealed_events.create(path)
    async with kept(path) as keeper:
        with pytest.raises(SegmentNotHeldError, match="events 1 to 8"):
            await keeper.step()
        assert stored_numbers(path) == [2, 3]
        assert [each.number for each in keeper.missing] == [1]
    await node.state.reopen()
    assert await shown(node, from_sequence=EVENTS + 1) == before


async def test_a_full_disk_is_named_while_a_damaged_file_is_recovered(
    node: OneNode, tmp_path: Path
) -> None:
    """(U1) The administrator makes room, and must not take the events for lost."""
    path = tmp_path / "local.db"
    await add_users(node, *(f"more{number}" for number in range(8 * EVENTS)))
    await discard(node, path)
    before = stored_numbers(path)
    sealed_events.put_aside(path)
    sealed_events.create(path)
    async with kept(path) as keeper:
        with keeper._file.opened() as file:
            (pages,) = file._db.execute("PRAGMA page_count").fetchone()
            file._db.execute(f"PRAGMA max_page_count = {pages}").fetchone()
        with pytest.raises(sqlite3.OperationalError, match="disk is full"):
            await keeper.step()
        assert stored_numbers(path) != before
        file._db.execute("PRAGMA max_page_count = 1000000").fetchone()
        await keeper.step()
        assert keeper.missing == ()
    assert stored_numbers(path) == before


@pytest.mark.usefixtures("node")
async def test_nothing_is_discarded_after_a_member_has_lost_a_segment(
    tmp_path: Path,
) -> None:
    """(U1) A discard that was allowed before ends."""
    stored: list[Any] = []
    async with kept(tmp_path / "local.db", stored.append) as keeper:
        await keeper.step()
        assert stored[-1].segment.number == 3
        keeper.allow(())
        await keeper.step()
        assert stored[-1] is None
