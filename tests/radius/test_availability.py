# SPDX-License-Identifier: Apache-2.0
"""When a node is silent, and when not: load, rates, stops, restores, addresses (D4)."""

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
from pyrad.packet import AccessAccept, AccessReject, StatusServer

from sparecode_node.domain.ids import AgentIdentity
from sparecode_node.radius import dialog, packets
from sparecode_node.replication.errors import RemovedError
from sparecode_node.services.access.security_log import PACKET_DROPPED
from sparecode_node.services.cluster.user_moves import MoveKey
from sparecode_node.services.errors import RateError
from sparecode_node.services.load.rates import BURST_S
from sparecode_node.services.secrets.kdf import Lane
from tests.http.door import IDENTITY as HTTP_AGENT
from tests.http.door import open_door as open_http_door
from tests.radius.door import (
    Client,
    Door,
    answered,
    connected,
    decoded,
    failures,
    open_door,
    request,
    update,
)
from tests.services.one_node import PIN, UNLIMITED, one_node

pytestmark = pytest.mark.asyncio

EVERYWHERE = "0.0.0.0"  # noqa: S104 - for a moment.


@contextmanager
def held(door: Door) -> Iterator[tuple[asyncio.Event, asyncio.Event]]:
    """Yield two events: a decision has begun, which the node sets, and it may end."""
    begun, going, propose = (
        asyncio.Event(),
        asyncio.Event(),
        door.node.replicator.propose,
    )

    async def propose_later(*arguments: object, **named: object) -> object:
        begun.set()
        await going.wait()
        return await propose(*arguments, **named)

    door.node.replicator.propose = propose_later
    try:
        yield begun, going
    finally:
        door.node.replicator.propose = propose


# --- Rates


async def hammered(door: Door, usernames: list[str], station: bytes = b"") -> list[int]:
    """Send a wrong passcode for each name; return the codes of the replies."""
    attributes = [(packets.CALLING_STATION_ID, station)] if station else []
    return [
        await answered(
            door, request(door.secret, name, "1" * 10, attributes=attributes)
        )
        for name in usernames
    ]


async def test_hammering_one_name_leaves_the_node_in_service(tmp_path):
    """
    (L7, A6) Silence would make the NAS take the node for dead, and keep everyone out.

    A rejection charges no one, and looks the same for a name that does not exist.
    """
    rates = replace(UNLIMITED, user=1)
    async with one_node(tmp_path, rates) as node, open_door(node) as door:
        await node.add_user()
        await door.register()
        for name in ("alice", "no-such-user"):
            codes = await hammered(door, [name] * (BURST_S + 2))
            assert codes == [AccessReject] * (BURST_S + 2)
            sent = request(door.secret, name, "1" * 10)
            reply = decoded(door.secret, sent, await door.send(sent))
            assert reply[packets.REPLY_MESSAGE] == [dialog.TOO_FAST.encode()]
        assert door.counted("rate_limited") == 6
        assert door.counted("rejected") == 2 * BURST_S
        assert failures(door) <= BURST_S


async def test_users_who_have_moved_are_rejected(tmp_path):
    """
    (A6) Strangers who try such names must not make the NAS take the node for dead.

    While they are on the way, another try may succeed, so the node is silent.
    """
    async with one_node(tmp_path) as node, open_door(node) as door:
        await door.register()
        ticket = await node.user_moves.prepare(
            node.admin("MoveService/PrepareMove"),
            first_slot=0,
            last_slot=4095,
            source=MoveKey(cluster_id="other", key_id=1, public_key=bytes(32)),
        )
        assert await door.silent(request(door.secret, "alice", "1" * 10))
        await node.user_moves.cancel(
            node.admin("MoveService/CancelMove"), move_id=ticket.move_id
        )
        sent = request(door.secret, "alice", "1" * 10)
        assert await answered(door, sent) == AccessReject


async def test_one_name_has_one_rate_through_every_door(tmp_path):
    """(L7) Else each door would add its own guesses. The use case is what gRPC calls."""
    async with (
        one_node(tmp_path, replace(UNLIMITED, user=1)) as node,
        open_door(node) as door,
        open_http_door(node, tmp_path / "http") as http,
    ):
        await node.add_user()
        await node.register_agent()
        await node.register_agent(AgentIdentity(HTTP_AGENT))
        await door.register()
        for _ in range(4):
            await node.authenticate("1" * 10)
        assert await hammered(door, ["alice"] * 3) == [AccessReject] * 3
        for _ in range(BURST_S - 7):
            assert (await http.authenticate("1" * 10)).status_code == 200
        with pytest.raises(RateError):
            await node.authenticate("1" * 10)
        assert not door.counted("rate_limited")
        await hammered(door, ["alice"])
        assert door.counted("rate_limited") == 1
        assert (await http.authenticate("1" * 10)).status_code == 429


async def test_hammering_from_one_station_leaves_the_node_in_service(tmp_path):
    rates = replace(UNLIMITED, client_address=1)
    async with one_node(tmp_path, rates) as node, open_door(node) as door:
        await door.register()
        names = [f"user-{number}" for number in range(BURST_S + 1)]
        codes = await hammered(door, names, b"198.51.100.9")
        assert codes == [AccessReject] * len(names)
        assert door.counted("rate_limited") == 1
        assert await hammered(door, ["another"], b"198.51.100.10") == [AccessReject]
        assert door.counted("rate_limited") == 1


async def test_a_client_beyond_its_own_rate_gets_no_answer(tmp_path):
    async with (
        one_node(tmp_path, replace(UNLIMITED, agent=1)) as node,
        open_door(node) as door,
    ):
        await door.register()
        await hammered(door, ["a-user"] * BURST_S)
        assert await door.silent(request(door.secret, password="1" * 10))
        assert door.counted("rate_limited") == 1


# --- Status-Server


async def test_status_server_is_silent_when_a_request_would_be(door, monkeypatch):
    """(D4) Silence is the health check: a NAS must not come back to such a node."""
    status = request(door.secret, code=StatusServer)
    assert await answered(door, status) == AccessAccept

    others = {asyncio.create_task(asyncio.sleep(60)) for _ in range(3)}
    with monkeypatch.context() as patch:
        patch.setattr("sparecode_node.radius.exchange.IN_PROGRESS_MAX", 4)
        door.listener.exchange._tasks |= others
        assert await door.silent(status)
        door.listener.exchange._tasks -= others
    for each in others:
        each.cancel()
    assert door.counted("overloaded") == 1

    lane = door.node.kdf._lanes[Lane.AUTHENTICATING]
    with monkeypatch.context() as patch:
        patch.setattr(lane, "taken", lane.bound)
        assert await door.silent(status)
    assert door.counted("overloaded") == 2

    def removed() -> None:
        raise RemovedError(door.node.replicator.node_id)

    with monkeypatch.context() as patch:
        patch.setattr(door.listener.exchange, "_check_open", removed)
        assert await door.silent(status)

    door.node.local_db.execute("INSERT INTO meta (name, value) VALUES ('not_open', 1)")
    door.node.local_db.commit()
    await door.listener.refresh()
    assert await door.silent(status)
    assert door.counted("unavailable") == 2


# --- Requests in progress


async def test_one_client_leaves_room_for_others_and_for_answers(door, monkeypatch):
    """(D4, L8) Its new requests get three quarters of its room (RFC 5080, 2.2.3)."""
    monkeypatch.setattr("sparecode_node.radius.exchange.IN_PROGRESS_OF_CLIENT_MAX", 4)
    secret = door.secret
    other_secret = await door.register("other", networks=["127.0.0.2/32"])
    loop = asyncio.get_running_loop()
    _, other = await loop.create_datagram_endpoint(
        Client, local_addr=("127.0.0.2", 0), remote_addr=("127.0.0.1", door.port)
    )
    client = await connected(door.port)
    state = [(packets.STATE, dialog.PROMPT_STATE + b"x")]

    async def in_progress(count: int) -> None:
        async with asyncio.timeout(20):
            while len(door.listener.exchange._tasks) != count:  # noqa: ASYNC110 - no event.
                await asyncio.sleep(0.01)

    with held(door) as (_, going):
        for number in range(3):
            client.transport.sendto(
                request(secret, password="1" * 10, identifier=number)
            )
        await in_progress(3)
        assert await door.silent(request(secret, password="1" * 10, identifier=3))
        assert door.counted("overloaded") == 1
        client.transport.sendto(
            request(secret, password="1" * 10, identifier=4, attributes=state)
        )
        await in_progress(4)
        other.transport.sendto(request(other_secret, "bob", "1" * 10))
        await in_progress(5)
        going.set()
        for each, count in ((client, 4), (other, 1)):
            replies = [await each.reply(20) for _ in range(count)]
            assert [reply and reply[0] for reply in replies] == [AccessReject] * count
    for each in (client, other):
        each.transport.close()


# --- Stops


async def test_a_stop_waits_for_decisions_in_progress(door):
    """(D4) A committed decision gets its answer: the next node would refuse the code."""
    issued = await door.node.issue()
    sent = request(door.secret, password=PIN + issued.codes[0].code)
    client = await connected(door.port)
    with held(door) as (begun, going):
        client.transport.sendto(sent)
        await asyncio.wait_for(begun.wait(), 20)
        stopping = asyncio.create_task(door.listener.stop(grace_s=20))
        await asyncio.sleep(0)
        new = request(door.secret, password="1" * 10)
        client.transport.sendto(new)
        going.set()
        reply = await client.reply(20)
        await stopping
    assert reply is not None
    assert decoded(door.secret, sent, reply).code == AccessAccept
    assert door.counted("unavailable") == 1
    client.transport.close()


async def test_a_stop_gives_up_after_its_grace(door):
    client = await connected(door.port)
    with held(door) as (begun, _):
        client.transport.sendto(request(door.secret, password="1" * 10))
        await asyncio.wait_for(begun.wait(), 20)
        async with asyncio.timeout(20):
            await door.listener.stop(grace_s=0.01)
    assert not door.listener.exchange._tasks
    client.transport.close()


# --- Addresses


async def test_a_node_listens_on_all_addresses_of_both_families(door):
    """A copy that comes by IPv6, or from a mapped address, is the same request."""
    await update(door, networks=["127.0.0.1/32", "::1/128"])
    async with open_door(door.node, [(EVERYWHERE, 0)]) as first:
        port = first.port
        async with open_door(door.node, [("[::]", port)]) as both:
            both.secret = door.secret
            sent = request(door.secret, password="1" * 10)
            assert await answered(both, sent, host="::1") == AccessReject


async def test_a_mapped_address_is_the_client_and_the_session_of_its_ipv4_address(door):
    """A socket of both families shows IPv4 callers as `::ffff:127.0.0.1`."""
    await update(door, repeats_with_new_authenticator=True)
    issued = await door.node.issue()
    transport = Recorder()
    for host in ("127.0.0.1", "::ffff:127.0.0.1"):
        sent = request(
            door.secret,
            password=PIN + issued.codes[0].code,
            attributes=[(packets.NAS_PORT, bytes(4))],
        )
        door.listener.received(sent, (host, 40_000), transport)
        reply = await asyncio.wait_for(transport.sent.get(), 20)
        assert decoded(door.secret, sent, reply).code == AccessAccept


class Recorder(asyncio.DatagramTransport):
    """Keeps what is sent."""

    def __init__(self) -> None:
        self.sent: asyncio.Queue[bytes] = asyncio.Queue()

    def sendto(self, data: bytes, addr: object = None) -> None:
        self.sent.put_nowait(data)

    def is_closing(self) -> bool:
        return False


# --- The log


async def test_a_client_named_unknown_is_no_stranger_in_the_log(door, caplog):
    """A line about an address of no client names no agent."""
    await door.register("unknown", networks=["192.0.2.7"])
    caplog.set_level(logging.WARNING)
    transport = Recorder()
    door.listener.received(request("x", password="1"), ("192.0.2.7", 1), transport)
    door.listener.received(request("x", password="1"), ("192.0.2.8", 1), transport)
    agents = [
        getattr(each, "agent", None)
        for each in caplog.records
        if each.message == PACKET_DROPPED
    ]
    assert agents == ["unknown", None]
