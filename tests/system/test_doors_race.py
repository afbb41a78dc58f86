# SPDX-License-Identifier: Apache-2.0
"""The promise under a race through all doors at once: a code is accepted exactly once."""

import asyncio
import itertools
import uuid
from collections.abc import Iterator
from contextlib import AsyncExitStack
from http import HTTPStatus
from pathlib import Path

import httpx
import pytest
from local_cluster.cluster import AGENT, HOST, LocalCluster, free_ports
from local_cluster.setup import set_up
from pyrad.packet import AccessAccept

from sparecode_client import Decision
from tests.http.door import client_of, trusting
from tests.long import long
from tests.radius.door import decoded, request
from tests.radius.tls import RADSEC, Connection
from tests.system.estate import PIN, Estate, Holder, each
from tests.system.test_radius import Nas, nas

CODES = [60, *long([300])]
TRIES = 30
GIVE_UP_S = 120.0
AGAIN_S = 30.0
AGAIN = (
    HTTPStatus.TOO_MANY_REQUESTS,
    HTTPStatus.SERVICE_UNAVAILABLE,
    HTTPStatus.GATEWAY_TIMEOUT,
)
NODES = 3


@pytest.fixture(scope="module")
def ports() -> list[int]:
    """Return the port of each node's RadSec; its other doors have theirs."""
    return free_ports(NODES)


@pytest.fixture(scope="module")
def cluster(
    tmp_path_factory: pytest.TempPathFactory, ports: list[int]
) -> Iterator[LocalCluster]:
    """Start three nodes that serve RADIUS over UDP and TLS, and HTTP."""
    cluster = set_up(tmp_path_factory.mktemp("cluster"), testing=True, doors=True)
    for node, port in zip(cluster.nodes, ports, strict=True):
        ours = cluster.certificates / node.node_id
        files = f'certificate = "{ours}.pem"\nkey = "{ours}.key"\n'
        node.config.write_text(
            node.config.read_text() + f'\n[radsec]\nlisten = "{HOST}:{port}"\n{files}'
        )
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.kill()


class Pipe:
    """A RadSec connection with many requests in progress."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._waiting: dict[int, asyncio.Future[bytes]] = {}
        self._numbers = itertools.cycle(range(256))
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        while reply := await self._connection.reply():
            if waiting := self._waiting.pop(reply[1], None):
                waiting.set_result(reply)

    async def code(self, username: str, passcode: str) -> int:
        """Send a passcode, and return the code of the answer."""
        number = next(each for each in self._numbers if each not in self._waiting)
        sent = request(RADSEC, username, passcode, signed=False, identifier=number)
        future = self._waiting[number] = asyncio.get_running_loop().create_future()
        async with asyncio.timeout(GIVE_UP_S):
            while not future.done():  # A node without a quorum is silent.
                self._connection.writer.write(sent)
                await asyncio.wait([future], timeout=AGAIN_S)
        return decoded(RADSEC, sent, await future).code

    async def close(self) -> None:
        """Close the connection."""
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)
        await self._connection.close()


class Doors:
    """Every door of every node."""

    def __init__(
        self,
        estate: Estate,
        client: Nas,
        pipes: list[Pipe],
        web: list[httpx.AsyncClient],
    ) -> None:
        self._estate = estate
        self._nas = client
        self._pipes = pipes
        self._web = web

    async def accepts(self, number: int, username: str, passcode: str) -> bool:
        """Try a passcode through a door of a node, chosen by *number*."""
        door, node = number % 4, number // 4 % NODES
        if door == 0:
            agent = [*self._estate.agents.values()][node]
            answer = await agent.authenticate(username, passcode)
            return answer.decision is Decision.ACCEPTED
        if door == 1:
            sent = request(self._nas.secret, username, passcode)
            return await self._nas.code(sent, [node]) == AccessAccept
        if door == 2:
            return await self._pipes[node].code(username, passcode) == AccessAccept
        return await self._accepts_by_http(node, username, passcode)

    async def _accepts_by_http(self, node: int, username: str, passcode: str) -> bool:
        """Try again as long as the node cannot decide, as the other clients here do."""
        body = {
            "username": username,
            "passcode": passcode,
            "request_id": str(uuid.uuid4()),
        }
        async with asyncio.timeout(GIVE_UP_S):
            while True:
                response = await self._web[node].post("/v1/authenticate", json=body)
                if response.status_code not in AGAIN:
                    break
                await asyncio.sleep(float(response.headers.get("Retry-After", 0.1)))
        assert response.status_code == HTTPStatus.OK, response.text
        return bool(response.json()["decision"] == "ACCEPTED")


async def pipe(folder: Path, port: int) -> Pipe:
    """Open a RadSec connection."""
    streams = await asyncio.open_connection(
        HOST, port, ssl=trusting(folder, AGENT), server_hostname=HOST
    )
    return Pipe(Connection(*streams))


@pytest.mark.asyncio
@pytest.mark.timeout(900)
@pytest.mark.parametrize("codes", CODES)
async def test_thirty_tries_of_each_code_through_all_doors_are_accepted_once(
    cluster: LocalCluster, ports: list[int], codes: int
) -> None:
    """
    (A3, A5, D1) Codes, each tried 30 times at once over all doors and nodes.

    One try of each is accepted, and the other 29 lock no one out.
    """
    context = trusting(cluster.certificates, AGENT)
    async with AsyncExitStack() as clients, Estate(cluster) as estate:
        web = [
            await clients.enter_async_context(client_of(node.ports.http, context))
            for node in cluster.nodes
        ]
        client = await nas(estate, "gate")
        holders = await each(
            [f"racer-{number:03}" for number in range(codes)],
            lambda name: estate.holder(name, codes=2),
            at_once=16,
        )
        pipes = []  # Now, because a connection may not stay idle for long.
        for port in ports:
            pipes.append(await pipe(cluster.certificates, port))
            clients.push_async_callback(pipes[-1].close)
        doors = Doors(estate, client, pipes, web)

        async def race(holder: Holder) -> tuple[int, bool]:
            passcode = PIN + holder.codes[0]
            answers = await asyncio.gather(
                *(doors.accepts(n, holder.username, passcode) for n in range(TRIES))
            )
            following = await estate.any_agent.authenticate(
                holder.username, PIN + holder.codes[1]
            )
            return sum(answers), following.accepted

        results = await each(holders, race, at_once=4)
        digest = await estate.until_equal()

    assert [accepted for accepted, _ in results] == [1] * codes
    assert all(following for _, following in results)
    assert digest
