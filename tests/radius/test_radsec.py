# SPDX-License-Identifier: Apache-2.0
"""RADIUS over TLS: agents with certificates, several requests a connection (D1, A4)."""

import asyncio
import shutil
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from local_cluster.cluster import free_ports
from pyrad.packet import (
    AccessAccept,
    AccessChallenge,
    AccessReject,
    AccountingRequest,
    AuthPacket,
    StatusServer,
)

from sparecode_node.radius import packets, radsec
from sparecode_node.services.access.security_log import (
    CALL_REFUSED,
    HANDSHAKE_FAILED,
)
from tests.radius.door import (
    TIMEOUT_S,
    connected,
    decoded,
    open_door,
    request,
)
from tests.radius.tls import (
    AGENT,
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

WRONG = "1" * 10
ATTRIBUTES = {
    packets.FILTER_ID: [b"staff"],
    packets.CLASS: [b"vpn-users"],
    packets.SESSION_TIMEOUT: [(3600).to_bytes(4)],
}
GUACAMOLE = Path(__file__).parents[2] / "examples/guacamole/radsecproxy.conf"


@pytest_asyncio.fixture
async def tls_door(tmp_path: Path) -> AsyncIterator[TlsDoor]:
    """Open a door of which the agent `vpn` is registered with its certificate."""
    async with (
        one_node(tmp_path) as node,
        open_door(node) as door,
        open_tls_door(door, tmp_path / "tls") as opened,
    ):
        await node.add_user()
        await node.register_agent(AgentIdentity(IDENTITY))
        yield opened


async def code_of(connection: Connection, sent: bytes) -> int:
    """Send a request, and return the code of its answer, which must be signed."""
    reply = await connection.ask(sent)
    assert reply, "the connection has ended"
    return decoded(RADSEC, sent, reply).code


async def test_a_code_is_accepted_once_by_any_door(tls_door):
    """(D1) The certificate names the agent; no Message-Authenticator is needed."""
    issued = await tls_door.door.node.issue()
    connection = await tls_door.connect()
    passcode = PIN + issued.codes[0].code
    first = request(RADSEC, password=passcode, signed=False)
    assert await code_of(connection, first) == AccessAccept
    assert await code_of(connection, first) == AccessAccept  # A copy of it.
    again = request(RADSEC, password=passcode)
    assert await code_of(connection, again) == AccessReject
    (detail,) = tls_door.door.node.primary_db.execute(
        "SELECT detail FROM audit_events WHERE action = 'Authenticate' "
        "AND outcome = 'accepted'"
    ).fetchone()
    assert "RadSec from 127.0.0.1" in detail
    assert tls_door.door.counted("accepted", IDENTITY) == 2
    await connection.close()


async def test_an_acceptance_has_the_attributes_of_the_agent(tls_door):
    """(D1) On a connection that is open already. A rejection has none."""
    node = tls_door.door.node
    issued = await node.issue()
    connection = await tls_door.connect()
    status = request(RADSEC, code=StatusServer)
    assert await code_of(connection, status) == AccessAccept
    await give_attributes(tls_door)
    sent = request(RADSEC, password=PIN + issued.codes[0].code)
    reply = decoded(RADSEC, sent, await connection.ask(sent))
    assert {kind: reply[kind] for kind in ATTRIBUTES} == ATTRIBUTES
    sent = request(RADSEC, password=WRONG)
    reply = decoded(RADSEC, sent, await connection.ask(sent))
    assert reply.code == AccessReject
    assert set(reply) == {packets.MESSAGE_AUTHENTICATOR}
    await register_mail(tls_door)
    other = await tls_door.connect("mail")
    sent = request(RADSEC, code=StatusServer)
    reply = decoded(RADSEC, sent, await other.ask(sent))
    assert set(reply) == {packets.MESSAGE_AUTHENTICATOR}
    for each in (connection, other):
        await each.close()


async def give_attributes(tls_door: TlsDoor) -> None:
    """Give the agent `vpn` attributes."""
    node = tls_door.door.node
    await node.agents.update(
        node.admin("AgentService/UpdateAgent"),
        name=IDENTITY,
        filter_id="staff",
        class_attribute="vpn-users",
        session_timeout_s=3600,
    )


async def test_requests_of_one_connection_are_answered_together(tls_door):
    """(RFC 6614) Many are outstanding, and each answer fits its request."""
    connection = await tls_door.connect()
    sent = {
        number: request(RADSEC, f"user-{number}", WRONG, identifier=number)
        for number in range(24)
    }
    connection.writer.write(b"".join(sent.values()))
    while sent:
        reply = await connection.reply()
        assert decoded(RADSEC, sent.pop(reply[1]), reply).code == AccessReject
    await connection.close()


async def test_packets_may_arrive_in_pieces(tls_door):
    connection = await tls_door.connect()
    sent = request(RADSEC, password=WRONG)
    for octet in sent[:-1]:
        connection.writer.write(bytes([octet]))
        await connection.writer.drain()
    assert await code_of_rest(connection, sent) == AccessReject
    await connection.close()


async def code_of_rest(connection: Connection, sent: bytes) -> int:
    """Send the last octet of a request, and return the code of its answer."""
    connection.writer.write(sent[-1:])
    return decoded(RADSEC, sent, await connection.reply()).code


async def test_a_user_chooses_a_pin_over_two_connections(tls_door):
    """(K2, K3) No Message-Authenticator is needed for it, either."""
    node = tls_door.door.node
    await node.tokens.clear_pin(node.admin("TokenService/ClearPin"), serial=SERIAL)
    state: list[tuple[int, bytes]] = []
    for password in (node.tokencode(), "82649173", "82649173"):
        connection = await tls_door.connect()
        sent = request(RADSEC, password=password, signed=False, attributes=state)
        reply = decoded(RADSEC, sent, await connection.ask(sent))
        assert reply.code == AccessChallenge
        state = [(packets.STATE, b"".join(reply[packets.STATE]))]
        await connection.close()
    node.clock.pass_s(30)
    connection = await tls_door.connect()
    sent = request(RADSEC, password=node.tokencode(), signed=False, attributes=state)
    assert await code_of(connection, sent) == AccessAccept
    await connection.close()


async def test_a_denied_certificate_ends_the_connection(tls_door):
    """(A4) In the middle, and before the first request of a new one."""
    await register_mail(tls_door)
    connection = await tls_door.connect()
    other = await tls_door.connect("mail")
    status = request(RADSEC, code=StatusServer)
    assert await code_of(connection, status) == AccessAccept
    await tls_door.deny()
    assert await connection.reply() == b""
    again = await tls_door.connect()
    assert await again.ask(request(RADSEC, password=WRONG)) == b""
    assert await code_of(other, status) == AccessAccept
    for each in (connection, again, other):
        await each.close()


async def test_a_request_with_a_denied_certificate_ends_the_connection(
    tls_door, monkeypatch
):
    """(A4) Without waiting for the next look at the list."""
    monkeypatch.setattr(radsec, "REFRESH_S", TIMEOUT_S)
    tls_door.listener.check = settled  # Only requests look at it now.
    connection = await tls_door.connect()
    status = request(RADSEC, code=StatusServer)
    assert await code_of(connection, status) == AccessAccept
    await tls_door.deny()
    assert await connection.ask(request(RADSEC, password=WRONG)) == b""
    assert tls_door.door.counted("denied", IDENTITY) == 1
    await connection.close()


async def test_an_agent_that_is_not_registered_has_no_connection(tls_door):
    """(A4) No request is read, and it ends; also once the agent is removed."""
    node = tls_door.door.node
    issued = await node.issue()
    connection = await tls_door.connect("mail")
    sent = request(RADSEC, password=PIN + issued.codes[0].code)
    assert await connection.ask(sent) == b""
    await connection.close()
    assert node.refusals.log.counts[CALL_REFUSED] == 1
    assert not node.reasons()

    await register_mail(tls_door)
    connection = await tls_door.connect("mail")
    status = request(RADSEC, code=StatusServer)
    assert await code_of(connection, status) == AccessAccept
    await node.agents.remove(
        node.admin("AgentService/RemoveAgent"), name=identity_of("mail")
    )
    assert await connection.reply() == b""
    await connection.close()


async def test_an_agent_whose_registration_comes_late_keeps_its_connection(tls_door):
    """A node may be asked before it has applied what others have."""
    connection = await tls_door.connect("mail")
    async with asyncio.timeout(TIMEOUT_S):
        while not any(  # noqa: ASYNC110 - it tells no one.
            each.unknown_checks for each in tls_door.listener._connections
        ):
            await asyncio.sleep(0)
    await register_mail(tls_door)
    status = request(RADSEC, code=StatusServer)
    assert await code_of(connection, status) == AccessAccept
    await connection.close()


async def test_one_certificate_does_not_take_every_connection(tls_door):
    """Another agent still gets one, and so does the first when it has closed one."""
    await register_mail(tls_door)
    status = request(RADSEC, code=StatusServer)
    many = [await tls_door.connect() for _ in range(radsec.OF_AGENT_MAX)]
    for each in many:
        assert await code_of(each, status) == AccessAccept
    one_more = await tls_door.connect()
    assert await one_more.ask(status) == b""
    other = await tls_door.connect("mail")
    assert await code_of(other, status) == AccessAccept
    first = next(
        each
        for each in tls_door.listener._connections
        if each.identity == identity_of(AGENT)
    )
    first.close()
    await asyncio.wait_for(first.ended.wait(), TIMEOUT_S)
    again = await tls_door.connect()
    assert await code_of(again, status) == AccessAccept
    for each in (*many, one_more, other, again):
        await each.close()


async def register_mail(tls_door: TlsDoor) -> None:
    """Register the agent `mail`, too."""
    await tls_door.door.node.register_agent(identity_of("mail"))


def identity_of(agent: str) -> AgentIdentity:
    """Return the identity in the certificate of an agent."""
    return AgentIdentity(f"sparecode://agent/{agent}")


async def test_callers_without_a_certificate_get_no_connection(tls_door):
    for context in (
        trusting(tls_door.folder, ""),
        trusting(tls_door.folder, "n1"),  # Of the members' authority.
    ):
        try:
            reader, writer = await asyncio.open_connection(
                HOST, tls_door.listener.port, ssl=context, server_hostname=HOST
            )
            connection = Connection(reader, writer)
            assert await connection.ask(request(RADSEC, password=WRONG)) == b""
            await connection.close()
        except OSError:
            continue
    assert tls_door.door.node.refusals.log.counts[HANDSHAKE_FAILED] == 2


@pytest.mark.parametrize("length", [0, 19, 4097, 65535])
async def test_a_packet_without_an_end_ends_the_connection(tls_door, length):
    """Where the next packet begins is unknown."""
    connection = await tls_door.connect()
    head = bytes([1, 7]) + length.to_bytes(2)
    assert await connection.ask(head + bytes(100)) == b""
    assert tls_door.door.counted("malformed", IDENTITY) == 1
    await connection.close()


async def test_other_packets_are_dropped_and_the_connection_goes_on(tls_door):
    """(D2) Of another code, of another secret, and with broken attributes."""
    connection = await tls_door.connect()
    broken = bytearray(request(RADSEC, password=WRONG))
    broken[21] = 1  # The length of its first attribute.
    for sent, verdict in (
        (request("testing", password=WRONG), "wrong_secret"),
        (request(RADSEC, code=AccountingRequest), "other_code"),
        (request(RADSEC, code=StatusServer, signed=False), "no_message_authenticator"),
        (bytes(broken), "malformed"),
    ):
        connection.writer.write(sent)
        status = request(RADSEC, code=StatusServer)
        assert await code_of(connection, status) == AccessAccept
        assert tls_door.door.counted(verdict, IDENTITY) == 1, verdict
    await connection.close()


async def test_a_client_that_does_not_read_is_not_served_without_end(
    tls_door, monkeypatch
):
    """Its requests wait in its own buffers, so they take no memory here."""
    monkeypatch.setattr(radsec, "OUTSTANDING_MAX", 4)
    connection = await tls_door.connect()
    await code_of(connection, request(RADSEC, code=StatusServer))
    (served,) = tls_door.listener._connections
    sent = [
        request(RADSEC, f"user-{number}", WRONG, identifier=number)
        for number in range(32)
    ]
    most = 0
    original = served._receive

    def receive(packet: bytes) -> None:
        nonlocal most
        original(packet)
        most = max(most, len(served._outstanding))

    monkeypatch.setattr(served, "_receive", receive)
    connection.writer.write(b"".join(sent))
    for _ in sent:
        assert await connection.reply()
    assert most == 4
    await connection.close()


async def settled(connection: radsec.Connection) -> None:
    """Let a connection begin without a look at the list of denied certificates."""
    connection.go_on(
        radsec.AgentStanding(
            name=IDENTITY,
            is_denied=False,
            is_available=True,
            is_open=True,
        )
    )


# --- radsecproxy, which knows nothing of this project


@pytest.mark.skipif(
    shutil.which("radsecproxy") is None,
    reason="radsecproxy is missing: make system-packages (radsecproxy)",
)
async def test_radsecproxy_brings_requests_of_udp_clients(tls_door, tmp_path):
    """(A4) Until its certificate is denied in the middle. They get its attributes."""
    node = tls_door.door.node
    await give_attributes(tls_door)
    issued = await node.issue()
    [port] = free_ports(1)
    settings = tmp_path / "radsecproxy.conf"
    settings.write_text(
        f"""
        ListenUDP {HOST}:{port}
        LogLevel 2
        tls default {{
            CACertificateFile {tls_door.folder}/members-ca.pem
            CertificateFile {tls_door.folder}/vpn.pem
            CertificateKeyFile {tls_door.folder}/vpn.key
        }}
        client nas {{
            host {HOST}
            type udp
            secret testing
            RequireMessageAuthenticator on
        }}
        server node {{
            host {HOST}
            port {tls_door.listener.port}
            type tls
            secret radsec
            StatusServer on
        }}
        realm * {{
            server node
        }}
        """
    )
    process = await asyncio.create_subprocess_exec(
        *("radsecproxy", "-f", "-c", str(settings)),
        stdout=sys.stderr,
        stderr=sys.stderr,
    )
    client = await connected(port, HOST)
    try:
        passcode = PIN + issued.codes[0].code
        sent = request("testing", password=passcode)
        accepted = await answer_of(tls_door, port, sent)
        assert accepted.code == AccessAccept
        assert {kind: accepted[kind] for kind in ATTRIBUTES} == ATTRIBUTES
        wrong = [
            request("testing", f"user-{number}", WRONG, identifier=number)
            for number in range(20)
        ]
        for each in wrong:
            client.transport.sendto(each)
        for _ in wrong:
            reply = await client.reply(TIMEOUT_S)
            assert reply is not None
            assert reply[0] == AccessReject
            rejected = decoded("testing", wrong[reply[1]], reply)
            assert not ATTRIBUTES.keys() & set(rejected)
        (served,) = tls_door.listener._connections
        await tls_door.deny()  # The connection may end before this returns.
        await asyncio.wait_for(served.ended.wait(), TIMEOUT_S)
        passcode = PIN + issued.codes[1].code
        client.transport.sendto(request("testing", password=passcode))
        assert await client.reply(1.0) is None
    finally:
        client.transport.close()
        process.terminate()
        await process.wait()


@pytest.mark.skipif(
    shutil.which("radsecproxy") is None,
    reason="radsecproxy is missing: make system-packages (radsecproxy)",
)
async def test_the_example_for_guacamole_brings_its_requests(tls_door, tmp_path):
    """Unsigned ones: Guacamole has no setting for it. The other node does not run."""
    text = GUACAMOLE.read_text()
    [port] = free_ports(1)
    for written, here in (
        (":1812", f":{port}"),
        ("n1.example.net", f"{HOST}\n    port {tls_door.listener.port}"),
        ("n2.example.net", f"{HOST}\n    port 1"),
        ("/etc/sparecode/guacamole", str(tls_door.folder / "vpn")),
        ("/etc/sparecode", str(tls_door.folder)),
        ("SECRET", "testing"),
    ):
        assert written in text, written
        text = text.replace(written, here)
    settings = tmp_path / "radsecproxy.conf"
    settings.write_text(text)
    process = await asyncio.create_subprocess_exec(
        *("radsecproxy", "-f", "-c", str(settings)),
        stdout=sys.stderr,
        stderr=sys.stderr,
    )
    try:
        passcode = PIN + (await tls_door.door.node.issue()).codes[0].code
        sent = request("testing", password=passcode, signed=False)
        assert (await answer_of(tls_door, port, sent)).code == AccessAccept
    finally:
        process.terminate()
        await process.wait()


async def answer_of(tls_door: TlsDoor, port: int, sent: bytes) -> AuthPacket:
    """
    Send a packet until the proxy, which has just started, answers it.

    Wait for its connection first: it would ignore all copies of a packet that it has
    given to another server meanwhile. The socket is closed in the end: the proxy answers
    each copy, and the second answer would arrive between those of later packets.
    """
    client = await connected(port, HOST)
    try:
        async with asyncio.timeout(TIMEOUT_S):
            await until(lambda: bool(tls_door.listener._connections))
            while True:
                client.transport.sendto(sent)
                reply = await client.reply(0.5)
                if reply is not None:
                    return decoded("testing", sent, reply)
    finally:
        client.transport.close()
