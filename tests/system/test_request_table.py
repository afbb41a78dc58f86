# SPDX-License-Identifier: Apache-2.0
"""The table of request ids is full, on a cluster of three (Q3)."""

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
import pytest_asyncio
from local_cluster.setup import set_up

from sparecode_client import Overloaded
from sparecode_client.connection.client import new_request_id
from tests.faults.clocks import NodeClock
from tests.system.estate import PIN
from tests.system.rules.stage import Clocks, Stage

pytestmark = [pytest.mark.asyncio, pytest.mark.timeout(240)]

ROOM = 10_000
"""The least that a policy can make of it."""
SOON = timedelta(seconds=3)


@pytest_asyncio.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    """Return clients of three nodes whose clocks can be moved."""
    cluster = set_up(tmp_path / "cluster", testing=True)
    clocks = Clocks([NodeClock(node, tmp_path) for node in cluster.nodes])
    clocks.later(0)
    try:
        cluster.start()
        async with Stage(cluster, clocks) as stage:
            yield stage
            await stage.until_equal()
    finally:
        cluster.kill()


async def test_a_full_table_sheds_new_calls_and_forgets_nothing(
    stage: Stage,
) -> None:
    """
    (Q3, Q2) Ten thousand within minutes: further calls are told to come later.

    Shed calls are not judged, spent or charged on any node. A known id keeps its
    answer, for none is evicted; after ten minutes there is room again.
    """
    first, second, third = stage.admins
    person = await stage.person()
    spent, live = await stage.issued(person, count=2)
    known = new_request_id()
    agent = stage.agents[0]
    assert (
        await agent.authenticate(person.name, PIN + spent, request_id=known)
    ).accepted
    policy = await first.get_policy()
    await second.update_policy(replace(policy, requests_max=ROOM))
    rows = "".join(f"u{number}\n" for number in range(ROOM - 100))
    await third.import_users(f"username\n{rows}".encode(), within=timedelta(minutes=2))

    async def fill_up() -> None:
        for number in range(ROOM):
            await first.create_user(f"one-more-{number}", within=SOON)

    with pytest.raises(Overloaded) as full:
        await fill_up()
    assert full.value.reason == "OVERLOADED"
    for agent in stage.agents:
        with pytest.raises(Overloaded):
            await agent.authenticate(person.name, PIN + live, within=SOON)
        with pytest.raises(Overloaded):
            await agent.authenticate(person.name, "0000" + live, within=SOON)
    for node, agent in enumerate(stage.agents):
        again = await agent.authenticate(person.name, PIN + spent, request_id=known)
        assert again.accepted
        assert await stage.failures(node, person) == (0, 0)
        assert await stage.live(node, person) == 1
    await stage.later(601)
    assert await stage.accepts(2, person, PIN + live)
