# SPDX-License-Identifier: Apache-2.0
"""FreeRADIUS's client and Perl's, which know nothing of this project, at the RADIUS door."""

import asyncio
import re
from pathlib import Path

import pytest
from local_cluster.cluster import free_ports

from tests.radius.door import Door, open_door, update
from tests.radius.radclient import NEEDS_RADCLIENT, SIGNED, login
from tests.radius.radclient import radclient as run_radclient
from tests.services.one_node import PIN, SERIAL

pytestmark = [pytest.mark.asyncio, NEEDS_RADCLIENT]

PERL = Path("/usr/share/perl5/Authen/Radius.pm")
SIGN_IN = """
use Authen::Radius;
my ($node, $secret, $passcode, $signed, $wait_s) = @ARGV;
my $nas = Authen::Radius->new(
    Host => $node, Secret => $secret, TimeOut => $wait_s, Rfc3579MessageAuth => $signed
);
print $nas->check_pwd('alice', $passcode) ? 'accepted' : $nas->get_error;
"""


async def radclient(
    door: Door, attributes: str, *arguments: str, kind: str = "auth", secret: str = ""
) -> str:
    """Run radclient at a door."""
    return await run_radclient(
        door.port, secret or door.secret, attributes, *arguments, kind=kind
    )


async def test_accept_and_reject(door):
    """(D1, D2)."""
    issued = await door.node.issue()
    passcode = PIN + issued.codes[0].code
    assert "Received Access-Accept" in await radclient(door, login(passcode))
    assert "Received Access-Reject" in await radclient(door, login(passcode))


async def test_a_retransmission_to_another_node_gets_the_same_answer(door):
    """(D3) The same identifier and authenticator; another identifier is refused."""
    issued = await door.node.issue()
    vector = f"Packet-Authentication-Vector = 0x{'5a' * 16}"
    sent = login(PIN + issued.codes[0].code, vector)
    async with open_door(door.node) as other:
        other.secret = door.secret
        assert "Received Access-Accept" in await radclient(door, sent, "-i", "9")
        assert "Received Access-Accept" in await radclient(other, sent, "-i", "9")
        assert "Received Access-Reject" in await radclient(other, sent, "-i", "10")


async def test_status_server_and_silence(door):
    """(D2, D4)."""
    assert "Received Access-Accept" in await radclient(door, SIGNED, kind="status")
    door.ready[0] = False
    quick = ("-r", "1", "-t", "0.2")
    printed = await radclient(door, SIGNED, *quick, kind="status")
    assert "Received" not in printed
    wrong = await radclient(door, login("1"), *quick, secret="another")
    assert "Received" not in wrong
    assert door.counted("wrong_secret") >= 1


async def perl(door: Door, passcode: str, *, signed: bool, wait_s: float = 20) -> str:
    """Sign Alice in by Perl's client; return `accepted`, or its name of the error."""
    given = (f"127.0.0.1:{door.port}", door.secret, passcode, int(signed), wait_s)
    process = await asyncio.create_subprocess_exec(
        *("perl", "-e", SIGN_IN, *map(str, given)), stdout=asyncio.subprocess.PIPE
    )
    printed, _ = await process.communicate()
    assert process.returncode == 0
    return printed.decode()


@pytest.mark.skipif(
    not PERL.exists(),
    reason="Perl's client is missing: make system-packages (libauthen-radius-perl)",
)
async def test_a_missing_signature_is_as_the_client_is_set(door):
    """(D2) radclient signs every request; Perl's client does so only if it is told to."""
    issued = await door.node.issue()
    first, second = (PIN + each.code for each in issued.codes[:2])
    assert await perl(door, first, signed=False, wait_s=0.2) == "ETIMEOUT"
    assert door.counted("no_message_authenticator") >= 1
    assert await perl(door, first, signed=True) == "accepted"
    await update(door, allow_unsigned=True)
    assert await perl(door, second, signed=False) == "accepted"
    assert await perl(door, second, signed=False) == "ENONE"


async def test_a_new_pin_is_chosen_to_the_end(door):
    """(K3) Each answer brings the State of the question along."""
    await door.node.tokens.clear_pin(
        door.node.admin("TokenService/ClearPin"), serial=SERIAL
    )
    printed = await radclient(door, login(door.node.tokencode()))
    door.node.clock.pass_s(30)
    for entered in ("82649173", "82649173", door.node.tokencode()):
        assert "Received Access-Challenge" in printed
        (state,) = re.findall(
            r"State = (0x[0-9a-f]+)", printed.partition("Received")[2]
        )
        printed = await radclient(door, login(entered, f"State = {state}"))
    assert "Received Access-Accept" in printed


@pytest.mark.parametrize("repeats", [True, False])
async def test_a_new_identifier_from_the_same_port_is_as_the_client_is_set(
    door, repeats
):
    """(D3) As pam_radius asks the next server: one request, or another attempt."""
    await door.node.radius_clients.update(
        door.node.admin("AgentService/UpdateRadiusClient"),
        name="vpn",
        repeats_with_new_authenticator=repeats,
    )
    await door.listener.refresh()
    passcode = PIN + (await door.node.issue()).codes[0].code
    [port] = free_ports(1)
    sent = login(passcode, "NAS-Port = 7", f"Packet-Src-Port = {port}")
    assert "Received Access-Accept" in await radclient(door, sent, "-i", "1")
    again = "Accept" if repeats else "Reject"
    assert f"Received Access-{again}" in await radclient(door, sent, "-i", "2")
