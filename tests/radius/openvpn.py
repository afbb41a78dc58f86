# SPDX-License-Identifier: Apache-2.0
"""A real OpenVPN server with a plug-in of its own, and a real client."""

import asyncio
import contextlib
import datetime as dt
import os
import re
import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from local_cluster.cluster import free_ports

from sparecode_node.membership.certificates import write_certificates

HOST = "127.0.0.1"
ROOT = Path(__file__).parents[2]
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
    if shutil.which("openvpn") is None:
        return "make system-packages (openvpn)"
    if os.geteuid() != 0:
        return "only root has a tun device and a mount namespace"
    try:
        with Path("/dev/net/tun").open("r+b", buffering=0):
            return ""
    except OSError as error:
        return f"OpenVPN's server needs /dev/net/tun: {error.strerror}"


def documented(heading: str) -> tuple[str, str]:
    """Return the two texts below a heading of docs/radius.md: a file, and lines of the server."""
    page = (ROOT / "docs/radius.md").read_text()
    found = re.search(
        rf"^### {re.escape(heading)}\n.*?^```\n(.*?)\n# In the server's configuration\n(.*?)^```",
        page,
        re.MULTILINE | re.DOTALL,
    )
    assert found is not None
    return found[1], found[2]


@contextlib.asynccontextmanager
async def running(folder: Path, lines: str, *before: str) -> AsyncIterator[int]:
    """Run a server with these lines, in a mount namespace of its own; yield its port."""
    write_certificates(
        folder, members=["n1"], agents=[], hosts=[HOST], now=dt.datetime.now(dt.UTC)
    )
    [port] = free_ports(1)
    (folder / "server.conf").write_text(SERVER.format(host=HOST, port=port) + lines)
    process = await asyncio.create_subprocess_exec(
        *("unshare", "-m", "sh", "-c"),
        " && ".join([*before, "exec openvpn server.conf"]),
        cwd=folder,
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
