# SPDX-License-Identifier: Apache-2.0
"""FreeRADIUS as a proxy to the RADIUS door: EAP-TTLS with PAP by `eapol_test`, and PAP."""

import asyncio
import shutil
from pathlib import Path

import pytest
from pyrad.packet import AccessAccept, AccessReject

from tests.radius.door import TIMEOUT_S, connected, decoded, request
from tests.radius.freeradius import HOST, SECRET, freeradius
from tests.services.one_node import PIN

pytestmark = [
    pytest.mark.asyncio,
    pytest.mark.skipif(
        not (shutil.which("eapol_test") and shutil.which("freeradius")),
        reason="missing: make system-packages (eapoltest, freeradius)",
    ),
]


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
        *("-s", SECRET, "-t", "60", "-r", "0"),
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
