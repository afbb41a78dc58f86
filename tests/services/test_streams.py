# SPDX-License-Identifier: Apache-2.0
"""Streams: every event, in order, to a receiver of syslog and to files (N2, N4)."""

import asyncio
import contextlib
import datetime as dt
import errno
import json
import logging
import os
import re
import shutil
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

import httpcore
import pytest
import pytest_asyncio

from sparecode_node.domain.audit import AuditEvent
from sparecode_node.domain.notices import ChannelKind, EventClass
from sparecode_node.replication.errors import NoQuorumError
from sparecode_node.services.errors import InvalidFieldError
from sparecode_node.services.files import guarded_files
from sparecode_node.services.notices import addresses, event_file, syslog
from sparecode_node.services.notices.ocsf import ocsf_event
from sparecode_node.services.notices.streams import StreamLane
from sparecode_node.services.notices.syslog import syslog_message
from sparecode_node.statemachine.tables import segments
from tests.services.one_node import OneNode
from tests.services.receiver import AUTHORITY
from tests.services.test_notices import (
    CREATE,
    UPDATE,
    add_users,
    lane,
    local_names,
)

pytestmark = pytest.mark.asyncio

WAIT_S = 60
RFC_5424 = re.compile(
    r"<(\d{1,3})>1 (\S+) (\S+) (\S+) (\S+) (\S+) (\[meta sequenceId=\"\d+\"\]) (\{.*\})"
)


@dataclass(kw_only=True)
class Collector:
    """A receiver of syslog over TLS that a test can stop and start again."""

    folder: Path
    port: int = 0
    messages: list[str] = field(default_factory=list)
    silent: bool = False
    """Whether it makes no TLS handshake."""
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when a connection without a handshake has ended."""
    server: asyncio.Server | None = None
    writers: list[asyncio.StreamWriter] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"tcp+tls://127.0.0.1:{self.port}"

    async def start(self) -> None:
        tls = None if self.silent else server_tls(self.folder)
        self.server = await asyncio.start_server(
            self.serve, "127.0.0.1", self.port, ssl=tls
        )
        self.port = self.server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        assert self.server is not None
        self.server.close()
        for each in self.writers:
            each.transport.abort()

    async def serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.writers.append(writer)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            if self.silent:
                while await reader.read(1000):
                    pass
                self.ended.set()
                return
            while True:
                length = int(await reader.readuntil(b" "))
                self.messages.append((await reader.readexactly(length)).decode())

    async def until(self, count: int) -> list[dict[str, object]]:
        """Wait for a number of messages, and return their bodies."""
        async with asyncio.timeout(WAIT_S):
            while len(self.messages) < count:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        matches = [RFC_5424.fullmatch(each) for each in self.messages]
        assert all(matches)
        return [json.loads(each[8]) for each in matches if each]


def server_tls(folder: Path) -> ssl.SSLContext:
    issued = AUTHORITY.issue_member(
        "siem", hosts=["127.0.0.1"], now=dt.datetime.now(dt.UTC)
    )
    (folder / "siem.pem").write_bytes(issued.certificate)
    (folder / "siem.key").write_bytes(issued.key)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(folder / "siem.pem", folder / "siem.key")
    return tls


@pytest_asyncio.fixture
async def siem(node: OneNode, tmp_path: Path) -> AsyncIterator[Collector]:
    """Return a receiver of syslog, and end the lanes of the node after the test."""
    collector = Collector(folder=tmp_path)
    await collector.start()
    yield collector
    for channel in list(node.delivery._lanes):
        await node.delivery._end(channel)
    await collector.stop()


async def create(node: OneNode, kind: ChannelKind, **settings: object) -> None:
    common: dict[str, object] = {"name": "siem", "kind": kind}
    if kind is ChannelKind.SYSLOG:
        common |= {"allow_private": True, "authority": AUTHORITY.pem.decode()}
    await node.channels.create(node.admin(CREATE), **{**common, **settings})


async def stream(node: OneNode) -> StreamLane:
    """Return the stream of a node that has become the primary."""
    working = await lane(node)
    assert isinstance(working, StreamLane)
    return working


def newest(node: OneNode) -> int:
    row = node.primary_db.execute("SELECT max(sequence) FROM audit_events").fetchone()
    return int(row[0])


def position(node: OneNode) -> int:
    (found,) = node.primary_db.execute("SELECT position FROM channels").fetchone()
    return int(found)


async def test_syslog_gets_every_event_in_order(node: OneNode, siem: Collector) -> None:
    """(N2) From the one of the channel on, whatever its class; no row waits for it."""
    before = newest(node)
    await create(node, ChannelKind.SYSLOG, address=siem.url)
    await add_users(node, "alice", "bob")
    await node.authenticate("123456", username="alice")
    working = await stream(node)
    assert not await working.step()
    bodies = await siem.until(newest(node) - before)
    sequences = [body["metadata"]["sequence"] for body in bodies]
    assert sequences == list(range(before + 1, newest(node) + 1))
    assert [body["metadata"]["event_code"] for body in bodies][:3] == [
        "SaveChannel",
        "CreateUser",
        "CreateUser",
    ]
    assert position(node) == newest(node)
    assert node.primary_db.execute("SELECT * FROM notices").fetchall() == []
    (view,) = (await node.channels.list(node.admin("NoticeService/ListChannels"))).value
    assert (view.waiting, view.oldest_at_ms) == (0, None)


async def test_another_primary_goes_on_after_the_recorded_event(
    node: OneNode, siem: Collector
) -> None:
    """(N2) What was not recorded is sent again, and nothing is left out."""
    await create(node, ChannelKind.SYSLOG, address=siem.url)
    await add_users(node, "alice")
    working = await stream(node)
    await working.step()
    recorded = position(node)
    await add_users(node, "bob")
    node.replicator.down = NoQuorumError()
    with pytest.raises(NoQuorumError):
        await working.step()
    node.replicator.down = None
    assert position(node) == recorded
    node.replicator.leads = False
    await node.delivery.step()
    assert node.delivery._lanes == {}
    await add_users(node, "eve")
    await (await stream(node)).step()
    bodies = await siem.until(5)
    names = [body["unmapped"]["target"] for body in bodies]
    assert names == ["channel siem", "alice", "bob", "bob", "eve"]
    uids = [body["metadata"]["uid"] for body in bodies]
    assert uids[2] == uids[3], "a repetition has the same id"


async def test_a_receiver_that_is_down_loses_nothing(
    node: OneNode, siem: Collector
) -> None:
    """(N2) What waits is shown, and it is tried seldom."""
    await create(node, ChannelKind.SYSLOG, address=siem.url)
    await siem.stop()
    await add_users(node, *(f"user{number}" for number in range(5)))
    working = await stream(node)
    assert not await working.step()
    assert "cannot connect" in working.last_cause
    (view,) = (await node.channels.list(node.admin("NoticeService/ListChannels"))).value
    assert view.waiting == 6
    assert view.oldest_at_ms == node.clock.now_ms()
    await siem.start()
    assert not await working.step()
    assert siem.messages == [], "its wait is not over"
    node.clock.pass_s(600)
    await working.step()
    bodies = await siem.until(6)
    assert len({body["metadata"]["uid"] for body in bodies}) == 6
    # The receiver closes an open connection: the next events go over another one.
    await siem.stop()
    await siem.start()
    await add_users(node, "late")
    async with asyncio.timeout(WAIT_S):
        while position(node) < newest(node):
            node.clock.pass_s(600)
            await working.step()
    assert (await siem.until(7))[-1]["unmapped"]["target"] == "late"


async def test_a_reset_connection_is_a_failed_delivery() -> None:
    """(N2) The event loop may have closed the socket while bytes were waited for."""
    connection = socket.socket()
    connection.close()
    with pytest.raises(httpcore.WriteError):
        syslog._unacknowledged(connection)


async def test_a_silent_receiver_keeps_no_connection(
    node: OneNode, siem: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """(N4) A handshake that is cut off closes its connection, of whatever kind."""
    await siem.stop()
    siem.silent, siem.port = True, 0
    await siem.start()
    monkeypatch.setattr(syslog, "TOTAL_S", 0.2)
    await create(node, ChannelKind.SYSLOG, address=siem.url)
    working = await stream(node)
    await working.step()
    assert "not received within" in working.last_cause
    async with asyncio.timeout(WAIT_S):
        await siem.ended.wait()


async def test_the_certificate_of_a_receiver_is_verified(
    node: OneNode, siem: Collector
) -> None:
    """(N4) And a private address needs the channel's permission."""
    await create(node, ChannelKind.SYSLOG, address=siem.url, authority="")
    working = await stream(node)
    await working.step()
    assert "certificate" in working.last_cause.lower()
    assert siem.messages == []
    with pytest.raises(InvalidFieldError):
        await node.channels.update(node.admin(UPDATE), name="siem", allow_private=False)


async def test_a_name_is_resolved_once_and_checked(
    node: OneNode, siem: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """(N4) A name of a private address leads nowhere, whatever it was a moment ago."""
    asked: list[str] = []
    monkeypatch.setattr(addresses, "resolve", local_names(asked))
    await create(
        node,
        ChannelKind.SYSLOG,
        address=f"tcp+tls://siem.example:{siem.port}",
        allow_private=False,
    )
    working = await stream(node)
    await working.step()
    assert siem.writers == []
    assert "private" in working.last_cause
    assert asked == ["siem.example"]


async def test_a_test_sends_one_message_and_shows_it(
    node: OneNode, siem: Collector
) -> None:
    """(N2) Syslog has no answer."""
    await create(node, ChannelKind.SYSLOG, address=siem.url)
    tested = await node.channels.test(
        node.admin("NoticeService/TestChannel"), name="siem"
    )
    assert tested.delivered
    await siem.until(1)
    assert siem.messages == [tested.sent]
    assert tested.received == ""


@pytest.mark.skipif(shutil.which("rsyslogd") is None, reason="rsyslogd is missing")
async def test_rsyslog_stores_every_event(
    node: OneNode, siem: Collector, tmp_path: Path
) -> None:
    """(N2) A real receiver takes the framing, the header and the message apart."""
    server_tls(tmp_path)
    (tmp_path / "ca.pem").write_bytes(AUTHORITY.pem)
    stored, port = tmp_path / "stored", tmp_path / "port"
    (tmp_path / "rsyslog.conf").write_text(
        f"""
        global(workDirectory="{tmp_path}" maxMessageSize="64k"
            DefaultNetstreamDriver="ossl"
            DefaultNetstreamDriverCAFile="{tmp_path}/ca.pem"
            DefaultNetstreamDriverCertFile="{tmp_path}/siem.pem"
            DefaultNetstreamDriverKeyFile="{tmp_path}/siem.key")
        module(load="imtcp" StreamDriver.Name="ossl" StreamDriver.Mode="1"
            StreamDriver.AuthMode="anon")
        template(name="parts" type="string"
            string="%syslogfacility% %hostname% %app-name% %msgid% %structured-data% %msg%\\n")
        input(type="imtcp" address="127.0.0.1" port="0" listenPortFileName="{port}")
        action(type="omfile" file="{stored}" template="parts")
        """
    )
    process = await asyncio.create_subprocess_exec(
        *("rsyslogd", "-n", "-f", str(tmp_path / "rsyslog.conf")),
        *("-i", str(tmp_path / "rsyslog.pid")),
    )
    try:
        async with asyncio.timeout(WAIT_S):
            while not port.exists() or not port.read_text().strip():  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        await create(
            node, ChannelKind.SYSLOG, address=f"tcp+tls://127.0.0.1:{port.read_text()}"
        )
        await add_users(node, "alice", "bob")
        working = await stream(node)
        await working.step()
        assert working.last_cause == ""
        async with asyncio.timeout(WAIT_S):
            while not stored.exists() or stored.read_text().count("\n") < 3:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
    finally:
        process.terminate()
        await process.wait()
    lines = stored.read_text().splitlines()
    assert lines[1].startswith("13 n1 sparecode CreateUser [meta sequenceId=")
    body = json.loads(lines[2].partition("] ")[2])
    assert body["unmapped"]["target"] == "bob"


# --- Files


@pytest.fixture
def folder(node: OneNode, tmp_path: Path) -> Path:
    """Return the folder in which this node writes files."""
    path = tmp_path / "events"
    path.mkdir()
    node.delivery._folder = node.channels._folder = path
    return path


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(each) for each in path.read_text().splitlines()]


async def file_stream(node: OneNode) -> StreamLane:
    """Return the stream of a replica: every node writes a file of its own."""
    working = await lane(node)
    node.replicator.leads = False
    assert isinstance(working, StreamLane)
    return working


async def test_every_node_writes_every_event_to_its_file(
    node: OneNode, folder: Path
) -> None:
    """(N2) Also a replica; a restart goes on after the last line."""
    before = newest(node)
    await create(node, ChannelKind.FILE)
    await add_users(node, "alice")
    node.replicator.leads = False
    await node.replicator.read_barrier(timeout_s=60)
    working = await file_stream(node)
    await working.step()
    path = folder / "siem.jsonl"
    assert path.stat().st_mode & 0o777 == guarded_files.MODE
    assert [each["target"] for each in lines(path)] == ["channel siem", "alice"]
    assert lines(path)[0]["sequence"] == before + 1
    await node.delivery._end("siem")
    # A crash has cut the last line.
    path.write_text(path.read_text() + '{"id":"torn')
    await add_users(node, "bob")
    again = await file_stream(node)
    await again.step()
    assert [each["sequence"] for each in lines(path)] == list(
        range(before + 1, newest(node) + 1)
    )
    await node.delivery._end("siem")


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "zeros": lambda line: bytes(len(line)),
    "cut in its middle": lambda line: line[: len(line) // 2],
    "another number": lambda line: line.replace(b'"sequence":', b'"sequence":9'),
    "another id": lambda line: line.replace(b'"id":"', b'"id":"0'),
    "another cluster": lambda line: line.replace(b'"cluster":"', b'"cluster":"0'),
    "no object": lambda _: b"[]",
    "a long line": lambda _: b"x" * 4000,
}


@pytest.mark.parametrize("lost", [1, 3, 20])
@pytest.mark.parametrize("damage", DAMAGES)
async def test_a_damaged_end_of_a_file_is_written_again_and_told(
    node: OneNode,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    lost: int,
    damage: str,
) -> None:
    """(N2) No event is left out, and only those of damaged lines are written again."""
    monkeypatch.setattr(event_file, "FILE_BYTES_MAX", 2500)
    monkeypatch.setattr(event_file, "_BLOCK", 1000)
    before = newest(node)
    await create(node, ChannelKind.FILE)
    await add_users(node, *(f"user{number}" for number in range(24)))
    await (await file_stream(node)).step()
    await node.delivery._end("siem")
    path = folder / "siem.jsonl"
    files = [path, *(path.with_name(f"siem.jsonl.{n}") for n in range(1, 9))]
    left = lost
    for file in filter(Path.exists, files):
        content = file.read_bytes().splitlines()
        kept = max(len(content) - left, 0)
        left -= len(content) - kept
        changed = content[:kept] + [DAMAGES[damage](each) for each in content[kept:]]
        file.write_bytes(b"".join(each + b"\n" for each in changed))
    assert left == 0
    monkeypatch.setattr(event_file, "FILE_BYTES_MAX", 10**6)
    await add_users(node, "late")
    await (await file_stream(node)).step()
    await node.delivery._end("siem")
    written = [
        event_file._named_event(line)
        for file in reversed([each for each in files if each.exists()])
        for line in file.read_bytes().splitlines()
    ]
    whole = [each[1] for each in written if each is not None]
    assert whole == [*range(before + 1, newest(node) + 1)]
    assert len(written) - len(whole) == lost
    (told,) = [each for each in caplog.records if each.msg == "event_file_damaged"]
    assert told.__dict__["lines"] == lost


async def test_a_file_of_another_cluster_is_not_damaged(
    node: OneNode, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """(N2) After a restore, the file goes on with the events of the new cluster."""
    await create(node, ChannelKind.FILE)
    path = folder / "siem.jsonl"
    old = b'{"id":"old-7","cluster":"old","sequence":7}\n'
    path.write_bytes(old)
    await (await file_stream(node)).step()
    await node.delivery._end("siem")
    assert path.read_bytes().startswith(old)
    assert [each["target"] for each in lines(path)[1:]] == ["channel siem"]
    assert "event_file_damaged" not in caplog.text


async def test_files_are_rotated_and_go_on_behind_a_rotation(
    node: OneNode, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """(N2) The newest event may be in the file that was rotated last."""
    monkeypatch.setattr(event_file, "FILE_BYTES_MAX", 1000)
    await create(node, ChannelKind.FILE)
    await add_users(node, *(f"user{number}" for number in range(8)))
    await (await file_stream(node)).step()
    await node.delivery._end("siem")
    path = folder / "siem.jsonl"
    rotated = path.with_name("siem.jsonl.1")
    assert [each["target"] for each in lines(path)] == ["user7"]
    assert [each["target"] for each in lines(rotated)][-1] == "user6"
    path.write_text("")  # As a crash right after a rotation leaves it.
    await add_users(node, "late")
    await (await file_stream(node)).step()
    await node.delivery._end("siem")
    assert [each["target"] for each in lines(folder / "siem.jsonl")] == [
        "user7",
        "late",
    ]


async def test_a_full_disk_pauses_a_file_and_cuts_no_line(
    node: OneNode, folder: Path
) -> None:
    """(N2) `/dev/full` refuses every byte."""
    full = os.open
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(event_file, "open_own", lambda _, flags: full("/dev/full", flags))
        await create(node, ChannelKind.FILE)
        working = await file_stream(node)
        assert not await working.work()
    assert "No space left on device" in working.last_cause
    node.clock.pass_s(600)
    await working.step()
    assert len(lines(folder / "siem.jsonl")) == 1
    await node.delivery._end("siem")


async def test_a_disk_that_fills_up_repeats_no_event(
    node: OneNode, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """(N2) What was written before the failure is not written again."""
    await create(node, ChannelKind.FILE)
    await add_users(node, "alice", "bob", "carol")
    emit, written = event_file._Handler.emit, 0

    def fill_up(handler: event_file._Handler, record: logging.LogRecord) -> None:
        nonlocal written
        written += 1
        if written == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        emit(handler, record)

    monkeypatch.setattr(event_file._Handler, "emit", fill_up)
    working = await file_stream(node)
    assert not await working.work()
    assert len(lines(folder / "siem.jsonl")) == 2
    node.clock.pass_s(600)
    await working.step()
    await node.delivery._end("siem")
    targets = [each["target"] for each in lines(folder / "siem.jsonl")]
    assert targets == ["channel siem", "alice", "bob", "carol"]


async def test_a_file_is_synced_before_the_next_one_begins(
    node: OneNode, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """(N2) After a power cut, the end of the newest file stands for the earlier ones."""
    synced: list[int] = []
    sync = os.fsync
    monkeypatch.setattr(event_file, "FILE_BYTES_MAX", 1000)
    monkeypatch.setattr(
        event_file.os,
        "fsync",
        lambda number: (synced.append(os.fstat(number).st_ino), sync(number)),
    )
    await create(node, ChannelKind.FILE)
    await add_users(node, *(f"user{number}" for number in range(8)))
    await (await file_stream(node)).step()
    await node.delivery._end("siem")
    with os.scandir(folder) as entries:
        earlier = {each.inode() for each in entries if each.name != "siem.jsonl"}
    assert earlier
    assert earlier <= set(synced)


async def test_a_node_writes_into_no_file_but_its_own(
    node: OneNode, folder: Path, tmp_path: Path
) -> None:
    """(N4) Who may write into the folder could lead its lines, and its cuts, elsewhere."""
    await create(node, ChannelKind.FILE)
    working = await file_stream(node)
    name, other = folder / "siem.jsonl", tmp_path / "other"
    other.write_text("a line\nand a part")
    os.mkfifo(tmp_path / "pipe")
    for lay, words in (
        (lambda: name.symlink_to(other), "symbolic links"),
        (lambda: name.hardlink_to(other), "another name"),
        (lambda: name.hardlink_to(tmp_path / "pipe"), "regular file"),
    ):
        lay()
        for _ in range(3):
            assert not await working.work()
            node.clock.pass_s(600)
        assert words in working.last_cause
        await node.login()
        call = node.admin("NoticeService/TestChannel")
        assert not (await node.channels.test(call, name="siem")).delivered
        name.unlink()
    assert other.read_text() == "a line\nand a part"
    await asyncio.to_thread(folder.chmod, 0o777)
    await working.work()
    assert "every user can write" in working.last_cause
    await asyncio.to_thread(folder.chmod, 0o755)
    node.clock.pass_s(600)
    await working.step()
    assert len(lines(name)) >= 1
    await node.delivery._end("siem")


async def test_a_node_writes_into_no_file_of_another_user(
    node: OneNode, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """(N4) Nor into a folder of one: they could read, change or replace what is there."""
    (folder / "siem.jsonl").touch()
    await create(node, ChannelKind.FILE)
    working = await file_stream(node)
    me = os.geteuid()
    monkeypatch.setattr(guarded_files.os, "geteuid", lambda: me + 1)
    await working.work()
    assert "another user" in working.last_cause
    assert lines(folder / "siem.jsonl") == []


@pytest.mark.parametrize("name", ["../siem", "siem/x", ".siem", "a.b", ""])
async def test_a_node_writes_no_file_that_another_member_names(
    folder: Path, name: str
) -> None:
    """(N4) The name is checked where the file is written, too."""
    with pytest.raises(ValueError, match="name"):
        event_file.EventFile(name, folder, "cluster")


async def test_a_test_of_a_file_opens_it(node: OneNode, folder: Path) -> None:
    """(N2) Each node answers for itself, and a test is no event."""
    await create(node, ChannelKind.FILE)
    call = node.admin("NoticeService/TestChannel")
    tested = await node.channels.test(call, name="siem")
    assert tested.delivered
    assert str(folder / "siem.jsonl") in tested.sent
    assert (folder / "siem.jsonl").read_text() == ""
    node.channels._folder = None
    refused = await node.channels.test(call, name="siem")
    assert not refused.delivered
    assert "event_folder" in refused.cause


@pytest.mark.parametrize(
    "settings",
    [
        {"name": "../siem"},
        {"name": "a b"},
        {"name": ".hidden"},
        {"name": "siem/x"},
        {"address": "/etc/cron.d"},
        {"secret": "whsec_c2VjcmV0"},
        {"classes": [EventClass.TOKENS]},
    ],
)
async def test_a_replicated_setting_names_no_path(
    node: OneNode, settings: dict[str, object]
) -> None:
    """(N4) An administrator must not write where the operator has not allowed it."""
    with pytest.raises(InvalidFieldError):
        await create(node, ChannelKind.FILE, **settings)


@pytest.mark.parametrize(
    "address",
    ["https://siem.example/", "tcp://siem.example", "tcp+tls://siem.example/path", ""],
)
async def test_unusable_receivers_of_syslog_are_refused(
    node: OneNode, address: str
) -> None:
    """(N4) Never without TLS."""
    with pytest.raises(InvalidFieldError):
        await create(node, ChannelKind.SYSLOG, address=address)


@pytest.mark.parametrize("why", ["removed", "lost"])
@pytest.mark.parametrize("kind", [ChannelKind.SYSLOG, ChannelKind.FILE])
async def test_events_that_no_member_has_are_left_out_and_told_once(
    node: OneNode,
    siem: Collector,
    folder: Path,
    caplog: pytest.LogCaptureFixture,
    kind: ChannelKind,
    why: str,
) -> None:
    """(N2, U4) A receiver that is down for years holds up no retention."""
    is_file = kind is ChannelKind.FILE
    await create(node, kind, **({} if is_file else {"address": siem.url}))
    first = newest(node)
    working = await stream(node)
    await working.step()
    await add_users(node, *(f"user{number}" for number in range(6)))
    await node.replicator.read_barrier(timeout_s=60)
    seal_first(node, first + 4)
    await siem.stop()
    with caplog.at_level(logging.WARNING):
        if why == "removed":
            node.local_db.execute("INSERT INTO removed_segments VALUES (1, 0, '[]')")
        else:
            segments.declare_lost(node.local_db, [1], 0, "its disk was destroyed")
        for _ in range(3):
            await working.step()
            node.clock.pass_s(600)
        await siem.start()
        async with asyncio.timeout(WAIT_S):
            while working._position < newest(node):
                node.clock.pass_s(600)
                await working.step()
        assert "left out" in working.last_cause
        await node.login()
        await add_users(node, "late")
        await node.replicator.read_barrier(timeout_s=60)
        await working.step()
    told = [each for each in caplog.records if each.msg == "stream_lacks_events"]
    assert [(each.channel, each.first, each.last) for each in told] == [
        ("siem", first + 1, first + 4)
    ]
    assert f"events {first + 1} to {first + 4} are left out" in working.last_cause
    sent = (
        [each["sequence"] for each in lines(folder / "siem.jsonl")]
        if is_file
        else [each["metadata"]["sequence"] for each in await siem.until(5)]
    )
    assert sent == [first, *range(first + 5, newest(node) + 1)]
    # An interruption after it is still logged.
    assert ("stream_interrupted" in caplog.text) == (not is_file)
    caplog.clear()
    working._interrupted("the disk is full")
    assert "stream_interrupted" in caplog.text


def seal_first(node: OneNode, last: int) -> None:
    """Let a segment have the first events, which this node then lacks."""
    node.local_db.execute(
        "INSERT INTO audit_segments VALUES (1, 1, ?, 0, 0, x'00', x'00')", (last,)
    )
    node.local_db.execute("DELETE FROM audit_events WHERE sequence <= ?", (last,))


# --- The form of messages


def event(**fields: object) -> AuditEvent:
    values: dict[str, object] = {
        "sequence": 7,
        "at_ms": 1_700_000_000_123,
        "actor": "administrator:ann",
        "node": "n1",
        "action": "CreateUser",
        "target": "alice",
        "outcome": "applied",
        "reason": "",
        "detail": 'a "quoted" ] detail\nof two lines: \u00e9',
    }
    return AuditEvent(**{**values, **fields})


async def test_a_message_is_ascii_on_one_line() -> None:
    """(N3) Typed text cannot begin a second message."""
    message = syslog_message(event(), cluster_id="c", node_id="n1")
    assert message.isascii()
    assert b"\n" not in message
    parts = RFC_5424.fullmatch(message.decode())
    assert parts is not None
    assert parts.groups()[:6] == (
        "109",
        "2023-11-14T22:13:20.123Z",
        "n1",
        "sparecode",
        "c",
        "CreateUser",
    )
    assert json.loads(parts[8])["unmapped"]["detail"] == event().detail


@pytest.mark.parametrize("length", [100, 4_000, 100_000])
async def test_a_long_event_is_cut_to_what_receivers_take(length: int) -> None:
    """(N2) RFC 5425 asks them for 8192 bytes; its JSON is whole, and says that it is cut."""
    long = event(
        detail="\u00e9\U0001f600" * length, target="t" * length, actor="a" * length
    )
    message = syslog_message(long, cluster_id="c", node_id="n1")
    assert len(message) <= syslog.MESSAGE_BYTES_MAX
    parts = RFC_5424.fullmatch(message.decode())
    assert parts is not None
    body = json.loads(parts[8])
    assert body["metadata"]["uid"] == "c-7"
    unmapped = body["unmapped"]
    assert long.detail.startswith(unmapped["detail"])
    assert unmapped.get("cut", False) == (length > 100)
    assert unmapped["detail"]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, (3004, 1, 1, "alice")),
        ({"action": "RemoveMember", "target": "node n3"}, (3004, 4, 1, "node n3")),
        ({"action": "SET_LOW", "outcome": "noted"}, (3004, 99, 99, "alice")),
        ({"action": "Authenticate", "outcome": "refused"}, (3002, 1, 2, "alice")),
        ({"action": "CloseSession"}, (3002, 2, 1, "alice")),
    ],
)
async def test_events_have_their_class_in_ocsf(
    fields: dict[str, object], expected: tuple[object, ...]
) -> None:
    """(N2) With what the schema requires of both classes."""
    body = ocsf_event(event(**fields), "c")
    subject = body.get("user") or body.get("entity")
    assert isinstance(subject, dict)
    assert (
        body["class_uid"],
        body["activity_id"],
        body["status_id"],
        subject["name"],
    ) == expected
    assert body["type_uid"] == body["class_uid"] * 100 + body["activity_id"]
    for required in ("category_uid", "metadata", "severity_id", "time", "actor"):
        assert body[required]


async def test_a_cut_handshake_closes_its_connection() -> None:
    """(N4) Of webhooks, too: httpcore closes it only after errors."""
    closed = []

    class Hanging(httpcore.AsyncNetworkStream):
        async def start_tls(self, *_: object) -> httpcore.AsyncNetworkStream:
            await asyncio.Event().wait()
            raise AssertionError

        async def aclose(self) -> None:
            closed.append(True)

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await addresses.ClosingStream(Hanging()).start_tls(
                ssl.create_default_context()
            )
    assert closed == [True]
