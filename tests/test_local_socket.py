# SPDX-License-Identifier: Apache-2.0
"""The local socket: it serves root and the node's user, and changes are replicated."""

import asyncio
import json
import stat
from pathlib import Path

import pytest

from sparecode_node.daemon import local_socket
from sparecode_node.daemon.local_socket import LocalSocket, LocalSocketError
from tests.services.one_node import one_node

pytestmark = pytest.mark.asyncio

PASSWORD = "a temporary password"


async def test_a_reset_goes_through_the_log_and_is_recorded(tmp_path: Path) -> None:
    """(P4) With the user id of the caller."""
    deep = tmp_path / ("d" * 60) / ("e" * 60)  # Longer than an address of a socket.
    deep.mkdir(parents=True)
    async with one_node(tmp_path) as node:
        listening = LocalSocket(deep, node.resets)
        await listening.start()
        mode = (deep / local_socket.NAME).stat().st_mode
        assert stat.S_IMODE(mode) == 0o600
        (name,) = node.primary_db.execute("SELECT name FROM administrators").fetchone()
        await asyncio.to_thread(local_socket.reset_administrator, deep, name, PASSWORD)
        row = node.primary_db.execute(
            "SELECT actor, action, target, outcome, detail FROM audit_events "
            "ORDER BY sequence DESC LIMIT 1"
        ).fetchone()
        assert row[:4] == ("node:n1", "ResetAdministrator", name, "pending")
        assert row[4].startswith("by user id ")
        assert PASSWORD.encode() not in b"".join(node.replicator.entries)
        await listening.stop()
        assert not (deep / local_socket.NAME).exists()


@pytest.mark.parametrize(
    ("name", "password", "message"),
    [
        ("nobody", PASSWORD, "super administrators are"),
        ("root", "short", "password"),
        ("", PASSWORD, "administrator"),
    ],
)
async def test_refusals_are_in_words(
    tmp_path: Path, name: str, password: str, message: str
) -> None:
    async with one_node(tmp_path) as node:
        listening = LocalSocket(tmp_path, node.resets)
        await listening.start()
        with pytest.raises(LocalSocketError, match=message):
            await asyncio.to_thread(
                local_socket.reset_administrator, tmp_path, name, password
            )
        await listening.stop()


async def test_only_root_and_the_node_s_user_are_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """(P4) The kernel names the user of every caller that reaches the socket."""
    monkeypatch.setattr(local_socket, "peer_uid", lambda _: 4711)
    async with one_node(tmp_path) as node:
        listening = LocalSocket(tmp_path, node.resets)
        await listening.start()
        before = len(node.replicator.entries)
        with pytest.raises(LocalSocketError, match="only root"):
            await asyncio.to_thread(
                local_socket.reset_administrator, tmp_path, "root", PASSWORD
            )
        assert len(node.replicator.entries) == before
        await listening.stop()


async def test_junk_is_answered_and_changes_nothing(tmp_path: Path) -> None:
    async with one_node(tmp_path) as node:
        listening = LocalSocket(tmp_path, node.resets)
        await listening.start()
        before = len(node.replicator.entries)
        junk = (b"\n", b"{}\n", b"[1]\n", b"x" * 20_000 + b"\n", b'{"action": 1}\n')
        for line in junk:
            with local_socket._short_path(tmp_path) as path:
                reader, writer = await asyncio.open_unix_connection(path)
            writer.write(line)
            answer = await reader.read()
            writer.close()
            assert not answer or "error" in json.loads(answer)
        assert len(node.replicator.entries) == before
        await listening.stop()


async def test_missing_node_is_named(tmp_path: Path) -> None:
    with pytest.raises(LocalSocketError, match="start it first"):
        local_socket.reset_administrator(tmp_path, "root", PASSWORD)
