# SPDX-License-Identifier: Apache-2.0
"""FreeRADIUS as a proxy to the RADIUS door: EAP-TTLS with PAP by `eapol_test`, and PAP."""

import asyncio
import contextlib
import datetime as dt
import re
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from pyrad.packet import AccessAccept, AccessReject

from sparecode_node.membership.certificates import write_certificates
from tests.radius.door import TIMEOUT_S, Door, connected, decoded, request
from tests.services.one_node import PIN

pytestmark = [
    pytest.mark.asyncio,
    pytest.mark.skipif(
        not (shutil.which("eapol_test") and shutil.which("freeradius")),
        reason="missing: make system-packages (eapoltest, freeradius)",
    ),
]

HOST = "127.0.0.1"
ROOT = Path(__file__).parents[2]
SECRET = "testing-123-testing-123-testing-123"
MODULES = """
modules {
    eap {
        default_eap_type = ttls
        timer_expire = 60
        tls-config tls-common {
            private_key_file = ${confdir}/n1.key
            certificate_file = ${confdir}/n1.pem
            ca_file = ${confdir}/members-ca.pem
            tls_min_version = "1.2"
            tls_max_version = "1.3"
        }
        ttls {
            tls = tls-common
            default_eap_type = md5
            virtual_server = inner-tunnel
        }
    }
}
"""


def documented(title: str) -> str:
    """Return the configuration below a heading of docs/radius.md."""
    page = (ROOT / "docs/radius.md").read_text()
    found = re.search(
        rf"^### {title}\n.*?^```\n(.*?)^```", page, re.MULTILINE | re.DOTALL
    )
    assert found is not None
    return found[1]


def configuration(folder: Path, door: Door, port: int, *, eap: bool) -> str:
    """Return a whole radiusd.conf around the one of the documentation."""
    proxy, _, sites = documented("FreeRADIUS as a proxy").partition("# In ")
    proxy = (
        proxy.replace("10.1.0.1", HOST)
        .replace("10.1.0.2", HOST)
        .replace("port = 1812", f"port = {door.port}", 1)
        .replace("SECRET", door.secret)
    )
    # One door is enough: the second server has the port of nothing.
    inner = sites[sites.index("\n") :]
    return f"""
    name = freeradius
    confdir = {folder}
    logdir = {folder}
    run_dir = {folder}
    libdir = /usr/lib/freeradius
    max_request_time = 30
    log {{
        destination = stdout
    }}
    client eapol {{
        ipaddr = {HOST}
        secret = {SECRET}
        require_message_authenticator = yes
    }}
    {MODULES}
    {proxy}
    server default {{
        listen {{
            type = auth
            ipaddr = {HOST}
            port = {port}
        }}
        authorize {{
            {"eap" if eap else inner}
        }}
        authenticate {{
            eap
        }}
        post-proxy {{
            eap
        }}
    }}
    server inner-tunnel {{
        authorize {{
            {inner}
        }}
    }}
    """


@contextlib.asynccontextmanager
async def freeradius(
    door: Door, folder: Path, *, eap: bool = True
) -> AsyncIterator[int]:
    """Run FreeRADIUS in front of a door, for EAP or for PAP; yield its port."""
    folder.mkdir()  # noqa: ASYNC240 - quick.
    write_certificates(
        folder, members=["n1"], agents=[], hosts=[HOST], now=dt.datetime.now(dt.UTC)
    )
    probe = await connected(9)
    port = probe.transport.get_extra_info("sockname")[1]
    probe.transport.close()
    (folder / "radiusd.conf").write_text(configuration(folder, door, port, eap=eap))
    process = await asyncio.create_subprocess_exec(
        *("freeradius", "-f", "-l", "stdout", "-d", str(folder)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        assert process.stdout is not None
        printed = b""
        async with asyncio.timeout(TIMEOUT_S):
            while b"Ready to process requests" not in printed:
                line = await process.stdout.readline()
                assert line, printed.decode()
                printed += line
        reading = asyncio.create_task(process.stdout.read())
        yield port
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()
        with contextlib.suppress(UnboundLocalError):
            await reading


async def eapol_test(port: int, folder: Path, password: str) -> str:
    """Sign Alice in by EAP-TTLS with PAP, and return what is printed."""
    settings = folder / "eapol.conf"
    settings.write_text(
        f"""
        network={{
            key_mgmt=WPA-EAP
            eap=TTLS
            identity="alice"
            anonymous_identity="anonymous"
            password="{password}"
            ca_cert="{folder}/members-ca.pem"
            phase2="auth=PAP"
        }}
        """
    )
    process = await asyncio.create_subprocess_exec(
        *("eapol_test", "-c", str(settings), "-a", HOST, "-p", str(port)),
        *("-s", SECRET, "-t", "20", "-r", "0"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    printed, _ = await process.communicate()
    return printed.decode(errors="replace")


async def test_a_passcode_signs_in_over_eap_ttls_once(door, tmp_path):
    """(A3, D1) FreeRADIUS ends the tunnel; the passcode is PAP to the door."""
    issued = await door.node.issue()
    passcode = PIN + issued.codes[0].code
    async with freeradius(door, tmp_path / "freeradius") as port:
        first = await eapol_test(port, tmp_path / "freeradius", passcode)
        assert first.rstrip().endswith("SUCCESS"), first[-3000:]
        again = await eapol_test(port, tmp_path / "freeradius", passcode)
        assert again.rstrip().endswith("FAILURE"), again[-3000:]
    assert door.counted("accepted") == 1
    assert door.counted("rejected") == 1


async def test_a_passcode_signs_in_by_pap_once(door, tmp_path):
    """(D1) FreeRADIUS passes it on, with a Proxy-State of its own."""
    issued = await door.node.issue()
    passcode = PIN + issued.codes[0].code
    async with freeradius(door, tmp_path / "freeradius", eap=False) as port:
        codes = []
        for identifier, password in enumerate(
            (PIN + "000000", passcode, passcode), start=1
        ):
            sent = request(SECRET, password=password, identifier=identifier)
            client = await connected(port)
            client.transport.sendto(sent)
            reply = await client.reply(TIMEOUT_S)
            client.transport.close()
            assert reply is not None
            codes.append(decoded(SECRET, sent, reply).code)
    assert codes == [AccessReject, AccessAccept, AccessReject]
