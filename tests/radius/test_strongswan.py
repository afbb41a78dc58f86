# SPDX-License-Identifier: Apache-2.0
"""A strongSwan gateway with the files of examples/strongswan, and strongSwan's client."""

import asyncio
import contextlib
import datetime as dt
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from sparecode_node.membership.certificates import write_certificates
from tests.radius.door import Door, open_door
from tests.services.one_node import PIN, one_node

EXAMPLE = Path(__file__).parents[2] / "examples/strongswan"
CHARON = Path("/usr/lib/ipsec/charon")
PLUGINS = Path("/usr/lib/ipsec/plugins")
NAME = "vpn.example.net"
GATEWAY, CLIENT = "192.0.2.1", "192.0.2.2"
PATIENCE_S = 60
# The tunnel is made by the process itself, because not every kernel has ESP.
DAEMON = """
charon {{
    load_modular = no
    load = random nonce openssl pem pkcs1 pkcs8 x509 pubkey constraints \
kernel-libipsec kernel-netlink socket-default vici eap-identity eap-gtc {more}
    filelog {{
        stderr {{
            default = 1
        }}
    }}
    plugins {{
        vici {{
            socket = unix://{folder}/vici
        }}
        {plugins}
    }}
}}
swanctl {{
    load = pem pkcs1 pkcs8 x509 openssl
}}
"""
PERSON = f"""
connections {{
    office {{
        version = 2
        remote_addrs = {GATEWAY}
        vips = 0.0.0.0
        local {{
            auth = eap-gtc
            eap_id = USERNAME
        }}
        remote {{
            auth = pubkey
            id = {NAME}
        }}
        children {{
            office {{
                remote_ts = 10.0.0.0/8
            }}
        }}
    }}
}}
secrets {{
    eap-person {{
        id = USERNAME
        secret = PASSCODE
    }}
}}
"""


def missing() -> str:
    """Return why strongSwan cannot run here; empty: it can."""
    plugins = ("eap-gtc", "eap-radius", "kernel-libipsec", "vici", "openssl")
    if not (
        CHARON.exists()
        and shutil.which("swanctl")
        and all((PLUGINS / f"libstrongswan-{each}.so").exists() for each in plugins)
    ):
        return (
            "make system-packages (strongswan-charon, strongswan-swanctl, "
            "libcharon-extra-plugins, libstrongswan-standard-plugins)"
        )
    if os.geteuid() != 0 or shutil.which("ip") is None:
        return "only root has network namespaces (iproute2)"
    try:
        with Path("/dev/net/tun").open("r+b", buffering=0):
            return ""
    except OSError as error:
        return f"strongSwan's tunnel needs /dev/net/tun: {error.strerror}"


pytestmark = [
    pytest.mark.asyncio,
    pytest.mark.skipif(bool(missing()), reason=missing()),
]


@dataclass
class Daemon:
    """A strongSwan in a network namespace of its own."""

    folder: Path
    namespace: str

    @property
    def environment(self) -> dict[str, str]:
        """Where its files are."""
        return {
            **os.environ,
            "STRONGSWAN_CONF": str(self.folder / "strongswan.conf"),
            "SWANCTL_DIR": str(self.folder),
        }

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run it until the end of the block."""
        with (self.folder / "log").open("w") as log:
            process = await asyncio.create_subprocess_exec(
                *("ip", "netns", "exec", self.namespace, "unshare", "-m", "sh", "-c"),
                f"mount -t tmpfs none /run && exec {CHARON}",
                env=self.environment,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        try:
            async with asyncio.timeout(PATIENCE_S):
                while (await self.swanctl("--stats"))[0] != 0:  # noqa: ASYNC110
                    await asyncio.sleep(0.1)
            code, printed = await self.swanctl("--load-all", "--clear")
            assert code == 0, printed
            yield
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            await process.wait()

    async def swanctl(self, *arguments: str) -> tuple[int, str]:
        """Give it a command; return the exit code and what is printed."""
        process = await asyncio.create_subprocess_exec(
            *("swanctl", *arguments, "--uri", f"unix://{self.folder}/vici"),
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        printed, _ = await process.communicate()
        return process.returncode or 0, printed.decode()

    async def connects(self, username: str, passcode: str) -> bool:
        """Return whether the gateway lets a person in, who leaves again then."""
        (self.folder / "swanctl.conf").write_text(
            PERSON.replace("USERNAME", username).replace("PASSCODE", f'"{passcode}"')
        )
        code, printed = await self.swanctl("--load-all", "--clear")
        assert code == 0, printed
        code, printed = await self.swanctl("--initiate", "--child", "office")
        if code == 0:
            assert "CHILD_SA office" in printed
            await self.swanctl("--terminate", "--ike", "office")
        else:
            assert "EAP_FAILURE" in printed, printed
        return code == 0


def ip(words: str) -> None:
    """Run `ip`."""
    subprocess.run(["ip", *words.split()], check=True, capture_output=True)


@pytest.fixture
def host() -> Iterator[str]:
    """Yield an address of this machine that the gateway's namespace reaches."""
    number = os.getpid()
    gateway, client = f"sc-gw-{number}", f"sc-cl-{number}"
    net = f"198.18.{number // 64 % 256}"
    first = number % 64 * 4
    try:
        for each in (gateway, client):
            ip(f"netns add {each}")
            ip(f"-n {each} link set lo up")
        ip(f"link add sca{number} type veth peer name scb{number} netns {gateway}")
        ip(f"addr add {net}.{first + 1}/30 dev sca{number}")
        ip(f"link set sca{number} up")
        ip(f"-n {gateway} addr add {net}.{first + 2}/30 dev scb{number}")
        ip(f"-n {gateway} link set scb{number} up")
        ip(f"-n {gateway} link add scc type veth peer name scd netns {client}")
        for space, address, device in (
            (gateway, GATEWAY, "scc"),
            (client, CLIENT, "scd"),
        ):
            ip(f"-n {space} addr add {address}/24 dev {device}")
            ip(f"-n {space} link set {device} up")
        yield f"{net}.{first + 1}"
    finally:
        for each in (gateway, client):
            subprocess.run(["ip", "netns", "del", each], check=False)


@pytest_asyncio.fixture
async def door(tmp_path: Path, host: str) -> AsyncIterator[Door]:
    """Open a door at that address; Alice has a token with a PIN."""
    async with one_node(tmp_path) as node, open_door(node, [(host, 0)]) as opened:
        await node.add_user()
        net, _, last = host.rpartition(".")
        await opened.register(networks=[f"{net}.{int(last) + 1}/32"])
        yield opened


@pytest_asyncio.fixture
async def person(door: Door, host: str, tmp_path: Path) -> AsyncIterator[Daemon]:
    """Run the gateway and a client; yield the client."""
    gateway, client = tmp_path / "gateway", tmp_path / "client"
    written = tmp_path / "certificates"
    write_certificates(
        written, members=["n1"], agents=[], hosts=[NAME], now=dt.datetime.now(dt.UTC)
    )
    for source, target in (
        ("n1.pem", gateway / "x509/gateway.pem"),
        ("n1.key", gateway / "private/gateway.key"),
        ("members-ca.pem", client / "x509ca/ca.pem"),
    ):
        target.parent.mkdir(parents=True)
        shutil.copy(written / source, target)
    plugins = "".join(
        (EXAMPLE / f"{each}.conf").read_text() for each in ("eap-gtc", "eap-radius")
    )
    for text, here in (
        ("address = 10.1.0.1", f"address = {host}\nauth_port = {door.port}"),
        ("address = 10.1.0.2", f"address = {host}\nauth_port = 9"),
        ("SECRET", door.secret),
        ("retransmit_timeout = 3.0", "retransmit_timeout = 20.0"),
    ):
        assert text in plugins
        plugins = plugins.replace(text, here)
    (gateway / "swanctl.conf").write_text((EXAMPLE / "swanctl.conf").read_text())
    (client / "swanctl.conf").touch()
    (gateway / "strongswan.conf").write_text(
        DAEMON.format(folder=gateway, more="eap-radius", plugins=plugins)
    )
    (client / "strongswan.conf").write_text(
        DAEMON.format(folder=client, more="", plugins="")
    )
    number = os.getpid()
    people = Daemon(client, f"sc-cl-{number}")
    async with Daemon(gateway, f"sc-gw-{number}").running(), people.running():
        yield people


async def test_strongswan_admits_a_passcode_once(door: Door, person: Daemon) -> None:
    """(D1, D2) By IKEv2 and EAP-GTC, with signed requests. A wrong one is refused."""
    issued = await door.node.issue()
    passcode = PIN + issued.codes[0].code
    assert not await person.connects("alice", PIN + "000000")
    assert not await person.connects("nobody", passcode)
    assert await person.connects("alice", passcode)
    assert not await person.connects("alice", passcode)
    assert door.counted("accepted") == 1
    assert door.counted("rejected") == 3
