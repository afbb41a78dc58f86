# SPDX-License-Identifier: Apache-2.0
"""
A RadSec agent asks under the name in its certificate, and keeps out no other (D1, A4).

The attacks: the packet or the challenge of one agent on the connection of another; a
certificate for another agent that an agent has signed itself, or that names a client of
RADIUS; the packets of a RadSec agent over UDP; an old TLS version, or none; and
connections that never finish their handshake.
"""

import asyncio
import contextlib
import datetime as dt
import ssl
import warnings
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from cryptography import x509
from pyrad.packet import AccessAccept, AccessChallenge, AccessReject, StatusServer

from sparecode_node.membership.certificates import Authority
from sparecode_node.radius import packets, radsec
from sparecode_node.replication.links.limits import Connections
from sparecode_node.services.access.security_log import HANDSHAKE_FAILED
from tests.radius.door import TIMEOUT_S, decoded, open_door, request
from tests.radius.test_radsec import WRONG, code_of, register_mail
from tests.radius.tls import (
    HOST,
    IDENTITY,
    RADSEC,
    Connection,
    TlsDoor,
    open_tls_door,
    trusting,
)
from tests.replication.cluster import until
from tests.services.one_node import PIN, SERIAL, AgentIdentity, one_node

pytestmark = pytest.mark.asyncio

PLACES = 8
STATUS = request(RADSEC, code=StatusServer)


@pytest_asyncio.fixture
async def tls_door(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[TlsDoor]:
    """Open a door with eight places, of which `vpn` and `mail` are agents."""
    monkeypatch.setattr(radsec, "RADSEC_AGENTS", Connections(most=PLACES, share=64))
    monkeypatch.setattr(radsec, "HANDSHAKE_S", 1.0)
    monkeypatch.setattr(radsec, "REFRESH_S", 0.05)
    async with (
        one_node(tmp_path) as node,
        open_door(node) as door,
        open_tls_door(door, tmp_path / "tls") as opened,
    ):
        await node.add_user()
        await node.register_agent(AgentIdentity(IDENTITY))
        await register_mail(opened)
        yield opened


async def test_a_copied_packet_is_a_request_of_the_agent_that_sends_it(
    tls_door: TlsDoor,
) -> None:
    """(D3) All agents have one secret, so the octets are good on every connection."""
    issued = await tls_door.door.node.issue()
    vpn, mail = await tls_door.connect(), await tls_door.connect("mail")
    sent = request(RADSEC, password=PIN + issued.codes[0].code)
    assert await code_of(vpn, sent) == AccessAccept
    assert await code_of(mail, sent) == AccessReject
    assert await code_of(vpn, sent) == AccessAccept  # Its own copy.
    for each in (vpn, mail):
        await each.close()


async def test_the_challenge_of_another_agent_is_not_answered(
    tls_door: TlsDoor,
) -> None:
    """(K2) The thief has the State, and the user's next tokencode."""
    node = tls_door.door.node
    await node.tokens.clear_pin(node.admin("TokenService/ClearPin"), serial=SERIAL)
    vpn, mail = await tls_door.connect(), await tls_door.connect("mail")
    sent = request(RADSEC, password=node.tokencode())
    challenge = decoded(RADSEC, sent, await vpn.ask(sent))
    assert challenge.code == AccessChallenge
    state = [(packets.STATE, b"".join(challenge[packets.STATE]))]
    answer = request(RADSEC, password="82649173", attributes=state)
    assert await code_of(mail, answer) == AccessReject
    assert await code_of(vpn, answer) == AccessChallenge
    for each in (vpn, mail):
        await each.close()


def write_pair(folder: Path, name: str, chain: bytes, key: bytes) -> None:
    """Write the files of a certificate and its key."""
    (folder / f"{name}.pem").write_bytes(chain)
    (folder / f"{name}.key").write_bytes(key)


async def refused(tls_door: TlsDoor, context: ssl.SSLContext) -> bool:
    """Return whether a caller with the right passcode gets no answer."""
    issued = await tls_door.door.node.issue()
    sent = request(RADSEC, password=PIN + issued.codes[0].code)
    try:
        async with asyncio.timeout(TIMEOUT_S):
            streams = await asyncio.open_connection(
                HOST, tls_door.listener.port, ssl=context, server_hostname=HOST
            )
    except OSError:
        return True
    connection = Connection(*streams)
    try:
        return await connection.ask(sent) == b""
    finally:
        await connection.close()


async def test_an_agent_signs_no_certificate_for_another(tls_door: TlsDoor) -> None:
    """The chain is right but for the agent's own certificate, which is no authority."""
    folder, now = tls_door.folder, dt.datetime.now(dt.UTC)
    own = (folder / "vpn.pem").read_bytes()
    thief = Authority.from_pem(own, (folder / "vpn.key").read_bytes())
    forged = thief.issue_agent("mail", now=now)
    write_pair(folder, "forged", forged.certificate + own, forged.key)
    assert await refused(tls_door, trusting(folder, "forged"))
    assert tls_door.door.node.refusals.log.counts[HANDSHAKE_FAILED] == 1
    assert not await refused(tls_door, trusting(folder, "mail"))


@pytest.mark.parametrize(
    "names",
    [
        [x509.UniformResourceIdentifier("radius:vpn")],
        [x509.UniformResourceIdentifier(f"{IDENTITY}/")],
        [x509.UniformResourceIdentifier(IDENTITY), x509.DNSName("vpn")] * 2,
        [],
    ],
    ids=["client of RADIUS", "prefix", "several names", "common name alone"],
)
async def test_another_form_of_a_name_is_no_agent(
    tls_door: TlsDoor, names: list[x509.GeneralName]
) -> None:
    """(A4) Each is signed by the agents' authority: a careless operator asked for it."""
    await tls_door.door.register("vpn")
    folder = tls_door.folder
    authority = Authority.from_pem(
        (folder / "agents-ca.pem").read_bytes(), (folder / "agents-ca.key").read_bytes()
    )
    odd = authority.issue("vpn", names, now=dt.datetime.now(dt.UTC))
    write_pair(folder, "odd", odd.certificate, odd.key)
    context = trusting(folder, "odd")
    issued = await tls_door.door.node.issue()
    sent = request(RADSEC, password=PIN + issued.codes[0].code)
    connection = Connection(
        *await asyncio.open_connection(
            HOST, tls_door.listener.port, ssl=context, server_hostname=HOST
        )
    )
    reply = await connection.ask(sent)
    assert not reply or decoded(RADSEC, sent, reply).code == AccessReject
    vpn = await tls_door.connect()
    assert await code_of(vpn, sent) == AccessAccept  # The code is not spent.
    await vpn.close()
    await connection.close()


async def test_a_radsec_agent_is_no_client_of_radius(tls_door: TlsDoor) -> None:
    """(D1, D2) Not by its well-known secret, and its address does not stand for it."""
    door = tls_door.door
    issued = await door.node.issue()
    sent = request(RADSEC, password=PIN + issued.codes[0].code)
    assert await door.silent(sent)
    assert door.counted("unknown_client", "") == 1
    await door.register("gateway")
    assert await door.silent(sent)
    assert door.counted("wrong_secret", "gateway") == 1
    # And a client of RADIUS at this address is not the agent of a connection from it.
    connection = await tls_door.connect()
    own = request(door.secret, password=PIN + issued.codes[0].code)
    connection.writer.write(own)
    assert await code_of(connection, STATUS) == AccessAccept
    assert door.counted("wrong_secret", IDENTITY) == 1
    assert await code_of(connection, sent) == AccessAccept
    assert door.counted("accepted", "gateway") == 0
    await connection.close()


async def test_the_door_speaks_no_old_tls_and_resumes_no_session(
    tls_door: TlsDoor,
) -> None:
    """A resumed session would not show the certificate again."""
    old = trusting(tls_door.folder, "vpn")
    old.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        old.minimum_version = ssl.TLSVersion.TLSv1
        old.maximum_version = ssl.TLSVersion.TLSv1_1
    assert await refused(tls_door, old)
    reader, writer = await asyncio.open_connection(HOST, tls_door.listener.port)
    writer.write(request(RADSEC, password=WRONG))  # In clear.
    await writer.drain()
    with contextlib.suppress(OSError):
        assert decodes_nothing(await reader.read())
    writer.close()
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        context = trusting(tls_door.folder, "vpn")
        context.minimum_version = context.maximum_version = version
        connection = Connection(
            *await asyncio.open_connection(
                HOST, tls_door.listener.port, ssl=context, server_hostname=HOST
            )
        )
        assert await code_of(connection, STATUS) == AccessAccept
        session = connection.writer.get_extra_info("ssl_object").session
        assert session is None or not session.has_ticket
        await connection.close()


def decodes_nothing(answer: bytes) -> bool:
    """Return whether what came back is a TLS alert, and no packet of RADIUS."""
    alert = b"\x15"
    return not answer or answer.startswith(alert)


async def test_handshakes_without_an_end_hold_up_no_agent_for_long(
    tls_door: TlsDoor,
) -> None:
    """
    They take all places, and no more.

    An open connection is served meanwhile, and a new one once the first of them ends.
    """
    served = await tls_door.connect()
    assert await code_of(served, STATUS) == AccessAccept
    (acceptor,) = tls_door.listener._acceptors
    silent = [
        await asyncio.open_connection(HOST, tls_door.listener.port)
        for _ in range(3 * PLACES)
    ]
    await until(lambda: len(acceptor._serving) == PLACES)
    sent = request(RADSEC, password=WRONG)
    assert await code_of(served, sent) == AccessReject
    assert len(acceptor._serving) <= PLACES
    another = await tls_door.connect("mail")  # It waits behind them, and is served.
    assert await code_of(another, STATUS) == AccessAccept
    assert tls_door.door.node.refusals.log.counts[HANDSHAKE_FAILED] > PLACES
    for _, writer in silent:
        writer.close()
    for each in (served, another):
        await each.close()
