# SPDX-License-Identifier: Apache-2.0
"""Calls refused before they become commands are audited: bounded, each once (U1)."""

import asyncio
import logging
import os
import threading
from pathlib import Path

import pytest

import sparecode_node
from sparecode_node.replication.errors import NoQuorumError
from sparecode_node.rpc.stderr import grpc_lines
from sparecode_node.services.access.refusals import (
    KINDS_MAX,
    OTHER_METHODS,
    PAUSE_S,
    Refusals,
)
from sparecode_node.services.access.security_log import (
    CALL_REFUSED,
    HANDSHAKE_FAILED,
    PACKET_DROPPED,
    RADIUS_UNSUPPORTED,
    SecurityLog,
)
from sparecode_node.services.ambient import SystemEntropy
from sparecode_node.services.error_table import Answer, Code
from tests.services.one_node import OneNode
from tests.services.two_replicas import FakeClock

pytestmark = pytest.mark.asyncio

FAILED = (
    "I1125 04:26:35.469624   12708 ssl_transport_security.cc:2563] Handshake failed "
    "with error SSL_ERROR_SSL: error:1000007d:SSL routines:OPENSSL_internal:"
    "CERTIFICATE_VERIFY_FAILED: certificate has expired"
)
METHOD = "UserService/ListUsers"


def events(node: OneNode) -> list[tuple[str, ...]]:
    return node.primary_db.execute(
        "SELECT actor, target, reason, detail FROM audit_events "
        "WHERE action = 'NoteRefusedCalls' ORDER BY sequence"
    ).fetchall()


@pytest.mark.parametrize("code", Code)
async def test_every_door_asks_which_log_a_refusal_is_for(
    caplog: pytest.LogCaptureFixture, code: Code
) -> None:
    """(U1) A caller that is not known, or may not do this, is in the security log."""
    answer = Answer(code=code, reason="REASON", words="words")
    fields = {"method": METHOD, "caller": "vpn", "ms": "4.2"}
    caplog.set_level(logging.INFO)
    security = SecurityLog(FakeClock())
    door = logging.getLogger("door")
    security.refused_call(answer, door, fields, peer="192.0.2.1")
    (line,) = caplog.records
    is_stranger = code in (Code.UNAUTHENTICATED, Code.PERMISSION_DENIED)
    assert line.name == ("sparecode_node.security" if is_stranger else "door")
    assert hasattr(line, "ms") is not is_stranger
    security.refused_call(answer, door, fields, peer="", is_stranger=True)
    assert caplog.records[-1].name == "sparecode_node.security"


async def test_no_door_judges_by_itself() -> None:
    """(U1) A line about a refused call is written in one place."""
    folder = Path(sparecode_node.__file__).parent
    judges = {
        each.parent.name
        for door in ("rpc", "http", "radius", "console", "web")
        for each in (folder / door).rglob("*.py")
        if '"call refused"' in each.read_text()
    }
    assert not judges


async def test_equal_refusals_are_one_event_a_minute(node: OneNode) -> None:
    """(U1) The first at once; the following ones are counted."""
    refusals = node.refusals
    refusals.record(METHOD, "session_ended")
    assert await refusals.flush(node.replicator)
    for _ in range(1000):
        refusals.record(METHOD, "session_ended")
    assert not await refusals.flush(node.replicator)
    node.clock.pass_s(PAUSE_S + 1)
    assert await refusals.flush(node.replicator)
    assert events(node) == [
        ("nobody", METHOD, "session_ended", ""),
        ("nobody", METHOD, "session_ended", "1000 calls"),
    ]


async def test_a_flood_of_kinds_is_held_to_a_rate(node: OneNode) -> None:
    """(U1) A caller cannot fill the log with many methods, and no call is lost."""
    refusals = node.refusals
    for number in range(10 * KINDS_MAX):
        refusals.record(f"method {number}", "unimplemented")
    assert not await refusals.flush(node.replicator)
    burst = len(events(node))
    assert burst < 50
    for _ in range(KINDS_MAX):
        node.clock.pass_s(1)
        await refusals.flush(node.replicator)
    noted = events(node)
    assert len(noted) <= KINDS_MAX + 1
    calls = sum(int(each[3].split()[0]) if each[3] else 1 for each in noted)
    assert calls == 10 * KINDS_MAX
    assert OTHER_METHODS in {each[1] for each in noted}


async def test_refusals_are_recorded_later_and_once_after_a_failure(
    node: OneNode,
) -> None:
    """(U1, Q1) With the same request id: the first attempt may have succeeded."""
    refusals = node.refusals
    refusals.record(METHOD, "role", "administrator:dora")
    node.replicator.down = NoQuorumError()
    with pytest.raises(NoQuorumError):
        await refusals.flush(node.replicator)
    pending = refusals._request_id
    node.replicator.down = None
    assert await refusals.flush(node.replicator)
    assert refusals._request_id == pending
    assert events(node) == [("administrator:dora", METHOD, "role", "")]


async def test_a_node_records_refusals_in_the_background(node: OneNode) -> None:
    """(U1) Until it is stopped. No call waits for it."""
    running = asyncio.create_task(node.refusals.run(node.replicator))
    node.refusals.record(METHOD, "session_ended")
    async with asyncio.timeout(60):
        while not events(node):
            await asyncio.wait({running}, timeout=0.01)
    assert events(node) == [("nobody", METHOD, "session_ended", "")]
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_a_flood_of_packets_hides_no_refused_call(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """(U1) A stranger's packets cost nothing, so their lines have a rate of their own."""
    clock = FakeClock()
    security = SecurityLog(clock)
    for _ in range(1000):
        security.note(PACKET_DROPPED, peer="192.0.2.7", cause="unknown_client")
    dropped = len(caplog.records)
    assert dropped < 50
    security.note(CALL_REFUSED, method="UserService/ListUsers")
    assert caplog.records[-1].getMessage() == CALL_REFUSED
    assert "left_out" not in vars(caplog.records[-1])
    clock.pass_s(10)
    security.note(RADIUS_UNSUPPORTED, agent="radius:vpn")
    assert vars(caplog.records[-1])["left_out"] == str(1000 - dropped)
    assert security.counts[PACKET_DROPPED] == 1000


async def test_a_failed_handshake_is_a_line_with_its_cause(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """(U1) From gRPC's own line; the random parts of it are left out."""
    security = SecurityLog(FakeClock())
    security.grpc_line(FAILED)
    security.grpc_line("I1125 04:26:35.4 12 chttp2_transport.cc:1403] Got goaway")
    security.grpc_line("E1125 04:26:35.4 12 server.cc:7] No address added")
    security.grpc_line("whatever")
    assert [(each.name, each.getMessage()) for each in caplog.records] == [
        ("sparecode_node.security", HANDSHAKE_FAILED),
        ("grpc", "No address added"),
    ]
    cause = vars(caplog.records[0])["cause"]
    assert cause == "certificate verify failed: certificate has expired"
    assert security.counts[HANDSHAKE_FAILED] == 1


async def test_lines_have_a_rate_and_counts_have_none(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """(U1) The next line tells how many were left out."""
    clock = FakeClock()
    security = SecurityLog(clock)
    with caplog.at_level(logging.WARNING):
        for _ in range(5000):
            security.note("call refused", method=METHOD)
    lines = len(caplog.records)
    assert lines < 50
    clock.pass_s(60)
    security.note("call refused", method=METHOD)
    assert vars(caplog.records[-1])["left_out"] == str(5000 - lines)
    assert security.counts["call refused"] == 5001


async def test_writing_to_stderr_never_blocks() -> None:
    """A blocked thread of gRPC might hold what the reader needs."""
    reading = threading.Event()
    lines: list[str] = []

    def slow(line: str) -> None:
        lines.append(line)
        reading.wait(10)

    def fill() -> None:
        while True:
            os.write(2, b"x" * 4096 + b"\n")

    with grpc_lines(slow):
        os.write(2, b"first\n")
        with pytest.raises(BlockingIOError):
            fill()
        reading.set()
    assert lines[0] == "first"


async def test_stderr_is_as_it_was_afterwards(
    capfd: pytest.CaptureFixture[str],
) -> None:
    lines: list[str] = []
    with grpc_lines(lines.append):
        os.write(2, b"from gRPC\n")
    os.write(2, b"from us\n")
    assert lines == ["from gRPC"]
    assert capfd.readouterr().err == "from us\n"


async def test_refusals_need_no_loop_to_be_made(node: OneNode) -> None:
    """A node is built before its loop runs, and may refuse its first call at once."""

    def build() -> Refusals:
        with pytest.raises(RuntimeError, match="no running event loop"):
            asyncio.get_running_loop()
        refusals = Refusals(clock=node.clock, entropy=SystemEntropy())
        refusals.record(METHOD, "role")
        return refusals

    refusals = await asyncio.to_thread(build)
    assert await refusals.flush(node.replicator)
    assert events(node) == [("nobody", METHOD, "role", "")]
