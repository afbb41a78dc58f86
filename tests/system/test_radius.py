# SPDX-License-Identifier: Apache-2.0
"""RADIUS on a cluster of three: each request counts once, whichever node gets it."""

import asyncio
import itertools
from collections.abc import Iterator, Sequence

import httpx
import pytest
from local_cluster.cluster import HOST, LocalCluster
from local_cluster.setup import set_up
from prometheus_client.parser import text_string_to_metric_families
from pyrad.packet import AccessAccept, AccessReject, StatusServer

from sparecode_client import Decision, RadiusSettings
from tests.radius.door import connected, decoded, request
from tests.radius.radclient import NEEDS_RADCLIENT, SIGNED, login, radclient
from tests.system.estate import PIN, Estate, Holder

USERS = 8
TRIES = 12
GIVE_UP_S = 120.0


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """Start three nodes that serve RADIUS."""
    cluster = set_up(tmp_path_factory.mktemp("cluster"), testing=True, doors=True)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.kill()


class Nas:
    """A client that sends each packet to nodes in turn until one answers."""

    def __init__(self, secret: str, ports: list[int]) -> None:
        self.secret = secret
        self.ports = ports

    async def reply(self, sent: bytes, node: int) -> bytes | None:
        """Send a packet once; return the answer of a second, or None."""
        socket = await connected(self.ports[node])
        try:
            socket.transport.sendto(sent)
            return await socket.reply(1.0)
        finally:
            socket.transport.close()

    async def code(self, sent: bytes, nodes: Sequence[int]) -> int:
        """Return the code of the first answer to a packet, over sockets of its own."""
        sockets = [await connected(self.ports[node]) for node in nodes]
        try:
            async with asyncio.timeout(GIVE_UP_S):
                for client in itertools.cycle(sockets):
                    client.transport.sendto(sent)
                    reply = await client.reply(1.0)
                    if reply is not None:
                        return decoded(self.secret, sent, reply).code
        finally:
            for client in sockets:
                client.transport.close()
        raise AssertionError("there is no node to ask")


async def nas(estate: Estate, name: str) -> Nas:
    """Register a client on this machine, and wait until every node knows it."""
    ports = [node.ports.radius for node in estate.cluster.nodes]
    new = await estate.admin.register_radius_client(
        name, RadiusSettings(networks=(HOST,))
    )
    registered = Nas(new.secret, ports)
    for node in range(len(ports)):
        await registered.code(request(new.secret, code=StatusServer), [node])
    return registered


@pytest.mark.asyncio
@pytest.mark.timeout(300)
async def test_each_request_counts_once_though_the_primary_dies(
    cluster: LocalCluster,
) -> None:
    """
    (D3, D4, Q2) Packets that come again, on other nodes, while the primary is killed.

    Each gets the decision of its first copy: accepted. Another packet with the same
    code is rejected. Twelve packets with one code at once: one is accepted.
    """
    async with Estate(cluster) as estate:
        client = await nas(estate, "gate")
        people = [await estate.holder(f"user-{n}", codes=2) for n in range(USERS)]
        await race(estate, client, people[0])

        sent = [
            request(client.secret, each.username, PIN + each.codes[1], identifier=n)
            for n, each in enumerate(people)
        ]
        alive = await until_killed(cluster, estate, client, sent)

        for n, packet in enumerate(sent):
            for node in alive:
                assert await client.code(packet, [node]) == AccessAccept
            again = request(client.secret, people[n].username, PIN + people[n].codes[1])
            assert await client.code(again, alive) == AccessReject
        await estate.admin.remove_agent("gate")


@NEEDS_RADCLIENT
@pytest.mark.asyncio
@pytest.mark.timeout(300)
async def test_radclient_gets_one_answer_of_all_nodes_and_none_without_a_quorum(
    cluster: LocalCluster,
) -> None:
    """(D3, D4) The same octets to each node, and Status-Server with and without a quorum."""
    cluster.start()  # Those that an earlier test has killed.
    async with Estate(cluster) as estate:
        client = await nas(estate, "radclient")
        holder = await estate.holder("rita", codes=1)
        vector = f"Packet-Authentication-Vector = 0x{'5a' * 16}"
        sent = login(PIN + holder.codes[0], vector, username=holder.username)

        async def ask(
            node: int, asked: str, *arguments: str, kind: str = "auth"
        ) -> str:
            port = client.ports[node]
            printed = await radclient(port, client.secret, asked, *arguments, kind=kind)
            return printed.partition("Received ")[2].partition(" ")[0]

        last, *others = range(len(cluster.nodes))
        for node in (last, *others):
            assert await ask(node, sent, "-i", "9") == "Access-Accept"
            assert await ask(node, SIGNED, kind="status") == "Access-Accept"
        assert await ask(last, sent, "-i", "10") == "Access-Reject"

        for node in others:
            cluster.nodes[node].kill()
        # It may take a moment until this node misses the others.
        async with asyncio.timeout(GIVE_UP_S):
            while await ask(last, SIGNED, "-r", "1", "-t", "1", kind="status"):
                pass
        assert not await ask(last, SIGNED, "-r", "1", "-t", "1", kind="status")
        assert not await ask(last, sent, "-r", "1", "-t", "1", "-i", "11")
        cluster.nodes[others[0]].start()
        status = request(client.secret, code=StatusServer)
        assert await client.code(status, [last]) == AccessAccept
        assert await ask(last, SIGNED, kind="status") == "Access-Accept"
        await estate.admin.remove_agent("radclient")


@pytest.mark.asyncio
@pytest.mark.timeout(300)
async def test_the_last_of_three_nodes_is_silent_until_another_is_back(
    cluster: LocalCluster,
) -> None:
    """(D4) So its clients ask another node, and take none for alive that cannot decide."""
    cluster.start()  # Those that an earlier test has killed.
    async with Estate(cluster) as estate:
        client = await nas(estate, "silence")
        holder = await estate.holder("quiet", codes=1)
        last, *others = range(len(cluster.nodes))
        for node in others:
            cluster.nodes[node].kill()
        status = request(client.secret, code=StatusServer)
        # It may take a moment until this node misses the others.
        async with asyncio.timeout(GIVE_UP_S):
            while await client.reply(status, last) is not None:
                pass
        sent = request(client.secret, holder.username, PIN + holder.codes[0])
        for packet in (sent, status, sent):
            assert await client.reply(packet, last) is None
        cluster.nodes[others[0]].start()
        assert await client.code(status, [last]) == AccessAccept
        assert await client.code(sent, [last]) == AccessAccept
        counted = packets_of(cluster.nodes[last].metrics_address, "silence")
        assert counted["accepted"] >= 1
        assert counted["status"] >= 1
        assert counted["unavailable"] >= 1
        again = request(client.secret, holder.username, PIN + holder.codes[0])
        assert await client.code(again, [last]) == AccessReject
        counted = packets_of(cluster.nodes[last].metrics_address, "silence")
        assert counted["rejected"] >= 1


def packets_of(metrics_address: str, agent: str) -> dict[str, float]:
    """Return what a node counts for a client, by verdict."""
    text = httpx.get(f"http://{metrics_address}/metrics", timeout=20).text
    return {
        sample.labels["verdict"]: sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "sparecode_radius_packets_total"
        if sample.labels["agent"] == agent
    }


async def race(estate: Estate, client: Nas, holder: Holder) -> None:
    """Send one code in many packets and over gRPC, to all nodes at once."""
    passcode = PIN + holder.codes[0]
    packets = [request(client.secret, holder.username, passcode) for _ in range(TRIES)]
    *answers, by_grpc = await asyncio.gather(
        *(client.code(packet, [n % 3]) for n, packet in enumerate(packets)),
        estate.any_agent.authenticate(holder.username, passcode),
    )
    accepted = answers.count(AccessAccept) + (by_grpc.decision is Decision.ACCEPTED)
    assert accepted == 1


async def until_killed(
    cluster: LocalCluster, estate: Estate, client: Nas, sent: list[bytes]
) -> list[int]:
    """Send all packets, kill the primary meanwhile, and return the nodes that are left."""
    primary = cluster.nodes.index(await estate.primary())
    alive = [n for n in range(len(cluster.nodes)) if n != primary]
    first = await connected(client.ports[primary])
    for packet in sent:
        first.transport.sendto(packet)
    await asyncio.sleep(0)
    cluster.nodes[primary].kill()
    first.transport.close()
    answers = await asyncio.gather(*(client.code(each, alive) for each in sent))
    assert set(answers) == {AccessAccept}
    return alive
