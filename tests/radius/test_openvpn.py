# SPDX-License-Identifier: Apache-2.0
"""A real OpenVPN server with the configuration of docs/radius.md, and its client."""

import asyncio
import contextlib
import datetime as dt
import os
import re
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from sparecode_node.membership.certificates import write_certificates
from tests.radius.door import Door
from tests.radius.pam import CLOSED_PORT, CONF, MODULES, write_servers
from tests.services.one_node import PIN

HOST = "127.0.0.1"
ROOT = Path(__file__).parents[2]
SERVICE = "sparecode-openvpn"
CONNECTED = "Initialization Sequence Completed"
REFUSED = "AUTH_FAILED"
PATIENCE_S = 60
SERVER = """
mode server
tls-server
local {host}
port {port}
proto udp
dev tun
ifconfig-noexec
ca members-ca.pem
cert n1.pem
key n1.key
dh none
verify-client-cert none
username-as-common-name
"""
CLIENT = """
client
remote {host} {port} udp
nobind
dev null
ifconfig-noexec
route-noexec
ca members-ca.pem
remote-cert-tls server
auth-user-pass typed
auth-nocache
"""


def missing() -> str:
    """Return why OpenVPN cannot run here; empty: it can."""
    if not MODULES or shutil.which("openvpn") is None:
        return "make system-packages (libpam-radius-auth, openvpn)"
    if os.geteuid() != 0:
        return "only root has a mount namespace"
    try:
        with Path("/dev/net/tun").open("r+b", buffering=0):
            return ""
    except OSError as error:
        return f"OpenVPN's server needs /dev/net/tun: {error.strerror}"


pytestmark = [
    pytest.mark.asyncio,
    pytest.mark.skipif(bool(missing()), reason=missing()),
]


def documented() -> tuple[str, str]:
    """Return the service of PAM and the server's lines that the page has."""
    page = (ROOT / "docs/radius.md").read_text()
    found = re.search(
        r"^### OpenVPN\n.*?^# /etc/pam.d/sparecode-openvpn\n(.*?)\n\n# In .*?\n(.*?)^```",
        page,
        re.MULTILINE | re.DOTALL,
    )
    assert found is not None
    return found[1], found[2]


def free_port() -> int:
    """Return a UDP port that nothing listens on."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


@pytest_asyncio.fixture
async def server(door: Door, tmp_path: Path) -> AsyncIterator[int]:
    """Run OpenVPN with PAM's files of its own; yield its port."""
    write_certificates(
        tmp_path, members=["n1"], agents=[], hosts=[HOST], now=dt.datetime.now(dt.UTC)
    )
    servers = write_servers(
        tmp_path / "servers", [(CLOSED_PORT, 1), (door.port, 20)], door.secret
    )
    pam, lines = documented()
    (tmp_path / "pam.d").mkdir()
    assert CONF in pam
    (tmp_path / "pam.d" / SERVICE).write_text(pam.replace(CONF, str(servers)) + "\n")
    port = free_port()
    (tmp_path / "server.conf").write_text(SERVER.format(host=HOST, port=port) + lines)
    process = await asyncio.create_subprocess_exec(
        *("unshare", "-m", "sh", "-c"),
        "mount --bind pam.d /etc/pam.d && exec openvpn server.conf",
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        await printed(process, CONNECTED)
        yield port
    finally:
        process.terminate()
        await process.communicate()


async def printed(process: asyncio.subprocess.Process, *words: str) -> str:
    """Return the first line with one of these words. Fails if there is none."""
    assert process.stdout is not None
    lines = []
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(PATIENCE_S):
            while line := (await process.stdout.readline()).decode():
                if any(word in line for word in words):
                    return line
                lines.append(line)
    pytest.fail("".join(lines))


async def connects(folder: Path, port: int, username: str, password: str) -> bool:
    """Return whether a client gets through."""
    (folder / "typed").write_text(f"{username}\n{password}\n")
    (folder / "typed").chmod(0o600)
    (folder / "client.conf").write_text(CLIENT.format(host=HOST, port=port))
    process = await asyncio.create_subprocess_exec(
        *("openvpn", "client.conf"),
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        return CONNECTED in await printed(process, CONNECTED, REFUSED)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.communicate()


async def test_openvpn_admits_a_passcode_once(
    door: Door, server: int, tmp_path: Path
) -> None:
    """(D1, D3) Its first node is down; a wrong, an unknown and a spent one are refused."""
    issued = await door.node.issue()
    passcode = PIN + issued.codes[0].code
    assert not await connects(tmp_path, server, "alice", PIN + "000000")
    assert not await connects(tmp_path, server, "nobody", passcode)
    assert await connects(tmp_path, server, "alice", passcode)
    assert not await connects(tmp_path, server, "alice", passcode)
    assert door.counted("accepted") == 1


async def test_openvpn_fails_closed(door: Door, server: int, tmp_path: Path) -> None:
    """(D4) No node answers, so no one gets in."""
    issued = await door.node.issue()
    door.listener.leave()
    write_servers(tmp_path / "servers", [(door.port, 1)], door.secret)
    assert not await connects(tmp_path, server, "alice", PIN + issued.codes[0].code)
