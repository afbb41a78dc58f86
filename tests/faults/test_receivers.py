# SPDX-License-Identifier: Apache-2.0
"""What a campaign sees at the receivers of notices and in the files of sealed events."""

import asyncio
import contextlib
import json
import random
import sqlite3
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from local_cluster.cluster import LocalNode, Ports

from sparecode_node.statemachine import sealed_events
from tests.faults import receiver_strikes, receivers, segment_strikes
from tests.faults.disk_faults import Calls, Hits
from tests.faults.receivers import (
    FILE,
    Mode,
    Receivers,
    folder_of,
    lines_of,
    newest_in,
    spoiled,
)
from tests.faults.strikes import Strikes
from tests.services.receiver import AUTHORITY

EVENTS = [f"{number} UpdateUser user:alice" for number in (4, 5, 6)]


def line(number: int, action: str = "UpdateUser") -> bytes:
    event = {"sequence": number, "action": action, "target": "user:alice"}
    return json.dumps(event).encode()


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ([line(4), line(5), line(6)], ""),
        ([line(4), line(5), line(6), line(7)], ""),
        ([line(4), line(5)], "1 events are missing at the end"),
        ([line(4), line(6)], "6 UpdateUser user:alice in place of 5"),
        ([line(4), line(4), line(5), line(6)], "4 UpdateUser user:alice in place of 5"),
        ([line(4), line(5, "DeleteUser"), line(6)], "5 DeleteUser"),
        ([line(4), b'{"sequence": 5, "act', line(6)], "line 2 is no event"),
    ],
    ids=["whole", "longer", "short", "gap", "repetition", "another event", "torn"],
)
def test_a_file_that_is_not_the_log_is_seen(lines: list[bytes], words: str) -> None:
    problem = spoiled(lines, 4, EVENTS)
    assert bool(problem) == bool(words)
    assert words in problem


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ([line(6)], ""),
        ([line(4), line(6)], ""),
        ([line(4), line(5), line(6), line(7)], ""),
        ([], "1 events are missing at the end"),
        ([line(5)], "1 events are missing at the end"),
        ([line(7)], "7 UpdateUser user:alice in place of 6"),
        ([line(5), line(4), line(6)], "4 UpdateUser user:alice in place of 6"),
        ([line(5, "DeleteUser"), line(6)], "5 DeleteUser"),
    ],
)
def test_a_file_may_lack_what_retention_has_removed(
    lines: list[bytes], words: str
) -> None:
    problem = spoiled(lines, 4, EVENTS, removed=5)
    assert bool(problem) == bool(words)
    assert words in problem


def test_the_newest_event_of_a_file_may_be_half_written() -> None:
    assert newest_in([line(4), line(5), b'{"sequence": 6, "act']) == 5
    assert newest_in([]) == 0


@pytest.fixture
def node(tmp_path: Path) -> LocalNode:
    ports = Ports(agents=7300, peers=7301, admin=7304)
    node = LocalNode("n1", tmp_path / "n1", ports, testing=True)
    folder_of(node).mkdir(parents=True)
    return node


def test_rotated_files_are_read_oldest_first(node: LocalNode) -> None:
    for name, number in (("", 12), (".1", 11), (".2", 10), (".10", 2)):
        file = folder_of(node) / f"{FILE}.jsonl{name}"
        file.write_bytes(line(number) + b"\n")
    assert [json.loads(each)["sequence"] for each in lines_of(node)] == [2, 10, 11, 12]


# --- Strikes on the webhook


@pytest.mark.asyncio
async def test_a_webhook_misbehaves_for_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is not signed is told, and a notice that was refused may come later."""
    monkeypatch.setattr(receivers, "CLIENTS_ADDRESS", "127.0.0.1")
    tls = ssl.create_default_context(cadata=AUTHORITY.pem.decode())
    async with Receivers(tmp_path) as hook, httpx.AsyncClient(verify=tls) as client:

        async def post(timeout_s: float = 60) -> int:
            sent = {"webhook-id": "c-1-1", "content-length": "2"}
            url = hook._hook.url
            answer = await client.post(
                url, content=b"{}", headers=sent, timeout=timeout_s
            )
            return answer.status_code

        assert await post() == 204
        assert hook.arrivals.faults == ["not verified: Missing required headers"]
        hook.begin(Mode.FAILS)
        assert await post() == 500
        assert hook.arrivals.refused == {"c-1-1"}
        assert await asyncio.to_thread(hook.end) == 1
        hook.begin(Mode.HANGS)
        with pytest.raises(httpx.ReadTimeout):
            await post(timeout_s=2)
        assert await asyncio.to_thread(hook.end) == 1
        assert await post() == 204
        await asyncio.to_thread(hook.begin, Mode.IS_CLOSED)
        with pytest.raises(httpx.ConnectError):
            await post()
        assert await asyncio.to_thread(hook.end) >= 1
        assert await post() == 204


class SilentHook:
    """A receiver to which nothing is delivered again."""

    taken = 3

    def begin(self, _: Mode) -> None: ...

    def end(self) -> int:
        return 2


def striking(node: LocalNode, hook: Any = None) -> Strikes:
    site: Any = SiteOfOne(node)
    return Strikes(
        site,
        random.Random(1),
        primary=lambda: node,
        offset_of=lambda _: 0.0,
        newest_applied=lambda: 0,
        first_success=lambda _after, _but: None,
        receivers=hook or SilentHook(),
    )


def test_a_cluster_that_does_not_deliver_again_fails(
    node: LocalNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receiver_strikes, "RESUMED_S", 0.0)
    monkeypatch.setattr(Strikes, "_last", lambda _self, least, _most: least)
    assert "nothing was delivered" in striking(node).receiver_hangs().failure


# --- Strikes on sealed segments


class SiteOfOne:
    """A node that writes into its log what it would do after a start."""

    def __init__(self, node: LocalNode) -> None:
        self.nodes = [node]

    def start(self, node: LocalNode) -> None:
        with node.log.open("a") as log:
            log.write("12:00 INFO segment_not_stored cause=damaged\n")


@pytest.fixture
def file(node: LocalNode, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a file with four segments of two events, for which no strike waits."""
    monkeypatch.setattr(segment_strikes, "FETCHED_S", 0.0)
    monkeypatch.setattr(segment_strikes, "EACH_S", 0.0)
    monkeypatch.setattr(segment_strikes, "SEGMENT_EVENTS", 2)
    file = sealed_events.file_of(node.directory / "data" / "state.db")
    node.log.touch()
    with contextlib.closing(sealed_events._open(file)) as db:
        for number in range(1, 9):
            db.execute(
                "INSERT INTO audit_events VALUES "
                "(?, 0, '', '', 'Authenticate', '', '', '', 'was accepted', x'00')",
                (number,),
            )
        for number in range(1, 5):
            db.execute("INSERT INTO stored_segments VALUES (?, x'00')", (number,))
    state = node.directory / "data" / "state.db"
    with contextlib.closing(sqlite3.connect(state, isolation_level=None)) as db:
        db.execute("CREATE TABLE audit_events (sequence INTEGER PRIMARY KEY)")
        db.execute("INSERT INTO audit_events VALUES (9)")
    return file


@pytest.mark.parametrize(
    ("strike", "words"),
    [
        ("segments_deleted", "4 of 4 segments were not stored again"),
        ("segments_spoiled", "4 of 4 segments were not stored again"),
        ("segment_rotten", "was not stored again"),
    ],
)
def test_a_node_that_does_not_fetch_what_it_lost_fails(
    node: LocalNode,
    file: Path,
    strike: str,
    words: str,
) -> None:
    proof = getattr(striking(node), strike)()
    assert words in proof.failure
    assert not proof.bit
    if strike == "segment_rotten":
        with contextlib.closing(sqlite3.connect(file)) as db:
            (changed,) = db.execute(
                "SELECT count(*) FROM audit_events WHERE detail = 'was accepted.'"
            ).fetchone()
        assert changed == 1
    else:
        assert segment_strikes._numbers(file) == set()


@pytest.mark.usefixtures("file")
@pytest.mark.parametrize(
    ("line", "is_stored"),
    [
        ("segment_fetched segment=3 peer=n2", True),
        ("segment_recovered segment=3 file=state-audit.db.damaged-1", True),
        ("segment_fetched segment=30 peer=n2", False),
    ],
)
def test_a_rotten_segment_may_come_from_a_member_or_from_a_file_put_aside(
    node: LocalNode,
    monkeypatch: pytest.MonkeyPatch,
    line: str,
    is_stored: bool,
) -> None:
    """A node takes it from a file that it put aside earlier, if that has it whole."""
    monkeypatch.setattr(segment_strikes, "_only_in_file", lambda _: {3})

    def start(_: SiteOfOne, started: LocalNode) -> None:
        with started.log.open("a") as log:
            log.write(
                f"12:00 INFO segment_not_stored cause=damaged\n12:01 INFO {line}\n"
            )

    monkeypatch.setattr(SiteOfOne, "start", start)
    proof = striking(node).segment_rotten()
    assert (proof.bit, not proof.failure) == (is_stored, is_stored)


class Unreadable:
    """A disk some of whose reads have failed."""

    def __init__(self, failed: int) -> None:
        self._failed = failed

    @contextlib.contextmanager
    def inject(self, calls: Calls, **_: object) -> Iterator["Unreadable"]:
        assert calls is Calls.READS
        yield self

    def hits(self) -> Hits:
        return Hits(self._failed, 0.0)


@pytest.mark.parametrize(
    ("strike", "failed", "words"),
    [
        ("segment_page_rotten", 0, "and not found"),
        ("segment_reads_fail", 4, "0 of 4 segments are not there again"),
        ("segment_reads_fail", 0, ""),
    ],
)
def test_a_running_node_that_does_not_repair_its_file_fails(
    node: LocalNode,
    file: Path,
    monkeypatch: pytest.MonkeyPatch,
    strike: str,
    failed: int,
    words: str,
) -> None:
    monkeypatch.setattr(Strikes, "_reads", lambda *_: False)
    monkeypatch.setattr(
        SiteOfOne, "faults", lambda *_: Unreadable(failed), raising=False
    )
    before = file.read_bytes()
    proof = getattr(striking(node), strike)()
    assert not proof.bit
    assert words in proof.failure
    assert bool(proof.failure) == bool(words)
    assert (file.read_bytes() != before) == (strike == "segment_page_rotten")


def test_the_page_that_has_an_event_now_is_overwritten(tmp_path: Path) -> None:
    """A node that fetches old segments last splits pages, which keep what moved."""
    file = tmp_path / "state-audit.db"
    hashes = {number: bytes([number]) * 32 for number in range(1, 201)}
    with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as db:
        db.execute(
            "CREATE TABLE audit_events (sequence INTEGER PRIMARY KEY, hash BLOB, text)"
        )
        for number in reversed(range(1, 201)):
            row = (number, hashes[number], "x" * 100)
            db.execute("INSERT INTO audit_events VALUES (?, ?, ?)", row)
        (size,) = db.execute("PRAGMA page_size").fetchone()
    content = file.read_bytes()
    twice = [number for number in hashes if content.count(hashes[number]) > 1]
    assert twice
    for number in twice:
        file.write_bytes(content)
        assert segment_strikes._zero_page(file, number)
        assert not segment_strikes._shows(file, number)
        changed = [
            at
            for at in range(0, len(content), size)
            if file.read_bytes()[at : at + size] != content[at : at + size]
        ]
        assert len(changed) == 1


def test_a_copy_is_confirmed_of_what_retention_removes_next(
    node: LocalNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node that has just joined confirms later segments first."""
    strikes, confirmed = striking(node), {30, 31, 33}
    monkeypatch.setattr(strikes, "_removed", lambda: 28)
    monkeypatch.setattr(strikes, "_confirmed", lambda _: {node.node_id: confirmed})
    assert strikes._common(None) == []
    confirmed.add(29)
    assert strikes._common(None) == [29, 30, 31]
