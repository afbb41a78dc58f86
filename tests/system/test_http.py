# SPDX-License-Identifier: Apache-2.0
"""HTTP on a cluster of three real nodes: one node begins a sign-in, another ends it."""

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from http import HTTPStatus

import httpx
import pytest
from local_cluster.cluster import AGENT, HOST, LocalCluster, free_ports
from local_cluster.setup import set_up

from tests.http.door import client_of, trusting
from tests.system.estate import PATIENCE, PIN, Estate
from tests.system.test_next_step import NEW_PIN, add, shown, until_charged

TRIES = 30
AGAIN = (HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.GATEWAY_TIMEOUT)
"""A node without a quorum, as in an election."""


@pytest.fixture(scope="module")
def ports() -> list[int]:
    """Return a port for each node."""
    return free_ports(3)


@pytest.fixture(scope="module")
def cluster(
    tmp_path_factory: pytest.TempPathFactory, ports: list[int]
) -> Iterator[LocalCluster]:
    """Start three nodes that serve HTTP."""
    cluster = set_up(tmp_path_factory.mktemp("cluster"), testing=True)
    for node, port in zip(cluster.nodes, ports, strict=True):
        ours = cluster.certificates / node.node_id
        section = (
            f'\n[http]\nlisten = "{HOST}:{port}"\n'
            f'certificate = "{ours}.pem"\nkey = "{ours}.key"\n'
            f'[[http.plugins]]\nagent = "sparecode://agent/{AGENT}"\n'
            f'networks = ["{HOST}"]\nrepeats = true\n'
        )
        node.config.write_text(node.config.read_text() + section)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.kill()


@pytest.mark.asyncio
@pytest.mark.timeout(300)
async def test_a_sign_in_begins_on_one_node_and_ends_on_another(
    cluster: LocalCluster, ports: list[int]
) -> None:
    """(K3, L) A new PIN is chosen, and a guessed token is proven, on two nodes each."""
    context = trusting(cluster.certificates, AGENT)
    async with AsyncExitStack() as clients, Estate(cluster) as estate:
        first, second, third = [
            await clients.enter_async_context(client_of(port, context))
            for port in ports
        ]
        await add(estate, "chooser", pin="")
        challenge = await signed_in(first, "chooser", shown("chooser", 0))
        assert challenge["decision"] == "NEW_PIN_REQUIRED"
        answer = {
            "challenge": challenge["challenge"],
            "tokencode": shown("chooser", 1),
            "new_pin": NEW_PIN,
        }
        chosen = await decided(second, "/v1/continue", answer)
        assert chosen["decision"] == "ACCEPTED"
        again = await decided(third, "/v1/continue", answer)
        assert again["decision"] == "REFUSED"

        await add(estate, "guessed", pin=PIN)
        for _ in range(3):
            await until_charged(estate, "guessed", "1111" + shown("guessed", 0))
        challenge = await until_decided(third, "guessed", PIN + shown("guessed", 0))
        assert challenge["decision"] == "NEXT_TOKENCODE_REQUIRED"
        answer = {
            "challenge": challenge["challenge"],
            "tokencode": shown("guessed", 1),
        }
        proven = await decided(first, "/v1/continue", answer)
        assert proven["decision"] == "ACCEPTED"


@pytest.mark.asyncio
@pytest.mark.timeout(300)
async def test_a_code_works_once_over_http_and_grpc(
    cluster: LocalCluster, ports: list[int]
) -> None:
    """(A, Q2) Thirty tries over three nodes: one is accepted. A retry is no try."""
    context = trusting(cluster.certificates, AGENT)
    async with AsyncExitStack() as clients, Estate(cluster) as estate:
        doors = [
            await clients.enter_async_context(client_of(port, context))
            for port in ports
        ]
        holder = await estate.holder("racer", codes=2)
        passcode = PIN + holder.codes[0]
        *answers, by_grpc = await asyncio.gather(
            *(signed_in(doors[n % 3], "racer", passcode) for n in range(TRIES)),
            estate.any_agent.authenticate("racer", passcode),
        )
        decisions = [each["decision"] for each in answers]
        assert decisions.count("ACCEPTED") + by_grpc.accepted == 1

        key = str(uuid.uuid4())
        retries = [
            await signed_in(each, "racer", PIN + holder.codes[1], request_id=key)
            for each in doors
        ]
        assert {each["decision"] for each in retries} == {"ACCEPTED"}
        assert len({each["authentication_id"] for each in retries}) == 1


@pytest.mark.asyncio
@pytest.mark.timeout(300)
async def test_a_plug_in_repeats_its_call_at_another_node(
    cluster: LocalCluster, ports: list[int]
) -> None:
    """
    (D3) It shows neither a certificate nor a key, and its HTTP library tries again.

    The nodes make equal ids of equal calls. The other paths need a certificate.
    """
    context = trusting(cluster.certificates)
    async with AsyncExitStack() as clients, Estate(cluster) as estate:
        doors = [
            await clients.enter_async_context(client_of(port, context))
            for port in ports
        ]
        holder = await estate.holder("visitor", codes=1)
        passcode = PIN + holder.codes[0]

        async def verdict(door: httpx.AsyncClient, realm: str) -> str:
            answer = await answered(
                lambda: door.post(
                    "/validate/check",
                    data={"user": "visitor", "pass": passcode, "realm": realm},
                )
            )
            return str(answer.json()["result"]["authentication"])

        at_once = await asyncio.gather(*(verdict(each, "office") for each in doors))
        later = [await verdict(each, "office") for each in doors]
        assert {*at_once, *later} == {"ACCEPT"}
        assert [await verdict(each, "other") for each in doors] == ["REJECT"] * 3
        refused = await doors[0].post(
            "/v1/authenticate", json={"username": "visitor", "passcode": passcode}
        )
        assert refused.status_code == 401


async def signed_in(
    client: httpx.AsyncClient, username: str, passcode: str, **values: str
) -> dict[str, str]:
    """Return the answer to a passcode."""
    body = {"username": username, "passcode": passcode, **values}
    return await decided(client, "/v1/authenticate", body)


async def decided(
    client: httpx.AsyncClient, path: str, body: dict[str, str]
) -> dict[str, str]:
    """Return the answer to a request."""
    body = {"request_id": str(uuid.uuid4()), **body}
    response = await answered(lambda: client.post(path, json=body))
    return dict(response.json())


async def answered(
    send: Callable[[], Awaitable[httpx.Response]],
) -> httpx.Response:
    """Send the same request again as long as the node cannot decide."""
    async with asyncio.timeout(PATIENCE.total_seconds()):
        while (response := await send()).status_code in AGAIN:  # noqa: ASYNC110
            await asyncio.sleep(float(response.headers.get("Retry-After", 0.1)))
    assert response.status_code == HTTPStatus.OK, response.text
    return response


async def until_decided(
    client: httpx.AsyncClient, username: str, passcode: str
) -> dict[str, str]:
    """Retry a right passcode until the wait after the last failure is over."""
    async with asyncio.timeout(60):
        while True:
            answer = await signed_in(client, username, passcode)
            if answer["decision"] != "REFUSED":
                return answer
