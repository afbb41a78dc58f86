# SPDX-License-Identifier: Apache-2.0
"""
Every door does the same work for every refusal (A6), so that its time tells nothing.

The work is counted and not timed: hashes, calls to the primary, commits, queries, and
the time steps that the primary searches. `make bench-doors` and `make bench-refusals`
compare the times.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from pyrad.packet import AccessReject

from sparecode_node.queries.state import ReadTransaction
from sparecode_node.radius.dialog import NO_LOCAL_USER
from tests.http import door as http_door
from tests.radius import door as radius_door
from tests.radius.tls import RADSEC, open_tls_door
from tests.security.test_unknown_users_cost_the_same import (
    ATTEMPTS,
    KINDS,
    WAIT_S,
    add_user,
    observed,
)
from tests.services.one_node import PIN, AgentIdentity, OneNode, one_node
from tests.services.test_first_step import COST, since, spent

pytestmark = pytest.mark.asyncio

Ask = Callable[[str, str], Awaitable[bool]]
NAS = "nas"
WRONG_CODE = "K7PM4XQ2"


@pytest_asyncio.fixture
async def node(tmp_path: Path) -> AsyncIterator[OneNode]:
    """Return a node with a registered agent."""
    async with one_node(tmp_path) as node:
        await node.register_agent()
        await node.register_agent(AgentIdentity(http_door.IDENTITY))
        yield node


@pytest_asyncio.fixture
async def doors(node: OneNode, tmp_path: Path) -> AsyncIterator[Mapping[str, Ask]]:
    """Open all doors; each answers whether a passcode is accepted."""
    async with (
        radius_door.open_door(node) as radius,
        open_tls_door(radius, tmp_path / "radsec") as radsec,
        http_door.open_door(node, tmp_path / "http") as http,
    ):
        radius.secret = await radius.register(NAS)
        connection = await radsec.connect()

        async def by_gRPC(username: str, passcode: str) -> bool:
            return await node.accepts(passcode, username=username)

        async def by_RADIUS(username: str, passcode: str) -> bool:
            sent = radius_door.request(radius.secret, username, passcode)
            return await radius_door.answered(radius, sent) != AccessReject

        async def by_RadSec(username: str, passcode: str) -> bool:
            sent = radius_door.request(RADSEC, username, passcode)
            reply = await connection.ask(sent)
            return radius_door.decoded(RADSEC, sent, reply).code != AccessReject

        async def by_HTTP(username: str, passcode: str) -> bool:
            answer = await http.authenticate(passcode, username)
            return bool(answer.json()["decision"] != "REFUSED")

        async def by_privacyIDEA(username: str, passcode: str) -> bool:
            answer = await http.client.post(
                "/validate/check", json={"user": username, "pass": passcode}
            )
            return bool(answer.json()["result"]["authentication"] != "REJECT")

        yield {
            each.__name__.removeprefix("by_"): each
            for each in (by_gRPC, by_RADIUS, by_RadSec, by_HTTP, by_privacyIDEA)
        }
        await connection.close()


async def people(node: OneNode) -> Mapping[str, tuple[str, str]]:
    """Return a username and a passcode for each kind of refusal."""
    codes = {}
    for number, name in enumerate(
        ("spent", "pin", "code", "locked", "disabled", "none", "sshd")
    ):
        serial = f"{number:012}"
        await node.add_user(name, serial=serial)
        codes[name] = (await node.issue(serial)).codes[0].code
    assert await node.accepts(PIN + codes["spent"], username="spent")
    for _ in range(10):
        await node.accepts(PIN + WRONG_CODE, username="locked")
        node.clock.pass_s(6)
    await node.users.update(
        node.admin("UserService/UpdateUser"), username="disabled", enabled=False
    )
    return {
        "unknown user": ("nobody", PIN + WRONG_CODE),
        "wrong PIN": ("pin", f"9999{codes['pin']}"),
        "wrong code": ("code", PIN + WRONG_CODE),
        "spent code": ("spent", PIN + codes["spent"]),
        "locked": ("locked", PIN + codes["locked"]),
        "disabled user": ("disabled", PIN + codes["disabled"]),
        "short": ("code", "1"),
        "unknown short": ("nobody", "1"),
        "sshd's text": ("sshd", NO_LOCAL_USER),
        "sshd's text of an unknown user": ("nobody", NO_LOCAL_USER),
    }


async def test_every_refusal_takes_the_same_work(
    node: OneNode, doors: Mapping[str, Ask], monkeypatch: pytest.MonkeyPatch
) -> None:
    """(A6, T4) Two hashes, one call to the primary and one commit, and equal queries."""
    queries: list[str] = []
    query = ReadTransaction.all

    async def counted(self: ReadTransaction, sql: str, **values: Any) -> Any:
        if "user" in sql:  # The listeners read other rows, once a second.
            queries.append(sql)
        return await query(self, sql, **values)

    monkeypatch.setattr(ReadTransaction, "all", counted)
    refused = await people(node)
    costs: dict[str, dict[str, tuple[tuple[int, ...], tuple[str, ...]]]] = {}
    for door, accepts in doors.items():
        for kind, (username, passcode) in refused.items():
            node.clock.pass_s(6)
            before = spent(node)
            queries.clear()
            assert not await accepts(username, passcode), (door, kind)
            costs.setdefault(door, {})[kind] = since(node, before), (*queries,)
    assert {cost for each in costs.values() for cost, _ in each.values()} == {COST}
    for door, each in costs.items():
        assert len({sql for _, sql in each.values()}) == 1, door
        assert each["locked"][1], door


async def test_every_attempt_searches_as_much_through_every_door(
    node: OneNode, doors: Mapping[str, Ask], monkeypatch: pytest.MonkeyPatch
) -> None:
    """(A6, K1) Attempts 1 to 6, with no, one and three SecurID tokens, and by nobody."""
    known = [(door, kind) for door in doors for kind in KINDS if kind != "unknown"]
    for number, (door, kind) in enumerate(known):
        await add_user(node, f"{kind}-{door}", KINDS[kind], number)
    searched, _ = observed(monkeypatch)
    steps: dict[tuple[str, int], list[list[int]]] = {}
    for attempt in range(1, ATTEMPTS + 1):
        for door, accepts in doors.items():
            for kind in KINDS:
                before = len(searched)
                assert not await accepts(f"{kind}-{door}", f"{PIN}{attempt}43917")
                steps.setdefault((door, attempt), []).append(searched[before:])
        node.clock.pass_s(WAIT_S)
    for door, kind in known:  # The sixth attempt has met a lock.
        user = await node.users.get(node.admin("UserService/GetUser"), f"{kind}-{door}")
        assert user.value.token_failures == ATTEMPTS - 1, (door, kind)
    size = searched[0]
    assert size > 300
    assert steps == {
        (door, attempt): [[size]] * len(KINDS)
        for door in doors
        for attempt in range(1, ATTEMPTS + 1)
    }


async def test_an_agent_that_is_disabled_costs_no_less(
    node: OneNode, doors: Mapping[str, Ask]
) -> None:
    """(A4, A6) Its own operator learns nothing about users either."""
    await node.add_user()
    for identity in (NAS, http_door.IDENTITY, "spiffe://example/vpn"):
        name = identity
        await node.agents.update(
            node.admin("AgentService/UpdateAgent"), name=name, enabled=False
        )
    node.clock.pass_s(6)
    for door, accepts in doors.items():
        for username in ("alice", "nobody"):
            before = spent(node)
            assert not await accepts(username, PIN + node.tokencode()), door
            assert since(node, before) == COST, (door, username)
