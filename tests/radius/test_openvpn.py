# SPDX-License-Identifier: Apache-2.0
"""A real OpenVPN server with the configurations of docs/radius.md, and its client."""

import shutil
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.radius.door import Door
from tests.radius.freeradius import SECRET, freeradius
from tests.radius.openvpn import HOST, connects, documented, missing, running
from tests.radius.pam import CLOSED_PORT, CONF, MODULES, write_servers
from tests.services.one_node import PIN

SERVICE = "sparecode-openvpn"
PLUGIN = Path("/usr/lib/openvpn/radiusplugin.so")
FOUR_DIGITS = range(5000, 10000)
"""The plug-in takes no longer ports."""

pytestmark = [
    pytest.mark.asyncio,
    pytest.mark.skipif(bool(missing()), reason=missing()),
]
by_pam = pytest.mark.skipif(
    not MODULES, reason="missing: make system-packages (libpam-radius-auth)"
)


@pytest_asyncio.fixture
async def server(door: Door, tmp_path: Path) -> AsyncIterator[int]:
    """Run OpenVPN with PAM's files of its own; yield its port."""
    servers = write_servers(
        tmp_path / "servers", [(CLOSED_PORT, 1), (door.port, 20)], door.secret
    )
    written, lines = documented("OpenVPN")
    _, _, pam = written.partition(f"# /etc/pam.d/{SERVICE}\n")
    (tmp_path / "pam.d").mkdir()
    assert CONF in pam
    (tmp_path / "pam.d" / SERVICE).write_text(pam.replace(CONF, str(servers)))
    async with running(tmp_path, lines, "mount --bind pam.d /etc/pam.d") as port:
        yield port


@pytest.mark.long
@by_pam
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


@by_pam
async def test_openvpn_fails_closed(door: Door, server: int, tmp_path: Path) -> None:
    """(D4) No node answers, so no one gets in."""
    issued = await door.node.issue()
    door.listener.leave()
    write_servers(tmp_path / "servers", [(door.port, 1)], door.secret)
    assert not await connects(tmp_path, server, "alice", PIN + issued.codes[0].code)


def four_digits() -> int:
    """Return a UDP port of four digits that nothing listens on."""
    for port in FOUR_DIGITS:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return port
    raise OSError("no port of four digits is free")


@pytest.mark.skipif(
    not (PLUGIN.exists() and shutil.which("freeradius")),
    reason="missing: make system-packages (freeradius, openvpn-auth-radius)",
)
async def test_the_radius_plugin_admits_a_passcode_once(
    door: Door, tmp_path: Path
) -> None:
    """(D1) It needs an answer to its accounting, which FreeRADIUS gives."""
    issued = await door.node.issue()
    passcode = PIN + issued.codes[0].code
    port = four_digits()
    settings, lines = documented("OpenVPN with openvpn-auth-radius")
    for text, here in (
        ("authport=1812", f"authport={port}"),
        ("acctport=1813", f"acctport={port + 1}"),
        ("sharedsecret=SECRET", f"sharedsecret={SECRET}"),
        ("/etc/openvpn/server.conf", str(tmp_path / "server.conf")),
    ):
        assert text in settings
        settings = settings.replace(text, here)
    (tmp_path / "radiusplugin.cnf").write_text(settings)
    lines = lines.replace("/etc/openvpn/", f"{tmp_path}/")
    async with (
        freeradius(door, tmp_path / "freeradius", eap=False, ports=(port, port + 1)),
        running(tmp_path, lines) as server,
    ):
        assert not await connects(tmp_path, server, "alice", PIN + "000000")
        assert not await connects(tmp_path, server, "nobody", passcode)
        assert await connects(tmp_path, server, "alice", passcode)
        assert not await connects(tmp_path, server, "alice", passcode)
    assert door.counted("accepted") == 1
    assert door.counted("rejected") == 3
