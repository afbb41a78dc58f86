# SPDX-License-Identifier: Apache-2.0
"""A caller has used up its share of request ids, on a cluster of three (Q3)."""

import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
import pytest_asyncio
from local_cluster.setup import set_up

from sparecode_client import OutcomeUnknown, Overloaded, Unavailable
from sparecode_client.connection.client import new_request_id
from tests.faults.clocks import NodeClock
from tests.system.estate import PIN, answered
from tests.system.rules.stage import Clocks, Stage

pytestmark = [pytest.mark.asyncio, pytest.mark.timeout(300)]

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


@pytest.mark.long
async def test_a_callers_full_share_sheds_its_calls_and_forgets_nothing(
    stage: Stage,
) -> None:
    """
    (Q3, Q2) Thousands of calls within minutes: the caller is told to come later.

    Its shed calls are not decided on any node. Agents are served meanwhile. A known id
    keeps its answer, for none is evicted; after ten minutes there is room again.
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
    rows = "".join(f"u{number}\n" for number in range(ROOM * 6 // 10))
    await third.import_users(f"username\n{rows}".encode(), within=timedelta(minutes=2))

    async def fill_up() -> None:
        for number in range(ROOM):
            # A busy machine may not answer in this time.
            with contextlib.suppress(Unavailable, OutcomeUnknown):
                await first.create_user(f"one-more-{number}", within=SOON)

    with pytest.raises(Overloaded) as full:
        await fill_up()
    assert full.value.reason == "OVERLOADED"
    for admin in stage.admins:
        with pytest.raises(Overloaded):
            await answered(
                lambda request_id, admin=admin: admin.create_user(
                    "shed", request_id=request_id, within=SOON
                )
            )
    assert await stage.accepts(1, person, PIN + live)
    for node, agent in enumerate(stage.agents):
        again = await agent.authenticate(person.name, PIN + spent, request_id=known)
        assert again.accepted
        assert await stage.failures(node, person) == (0, 0)
        assert await stage.live(node, person) == 0
    await stage.later(601)
    await third.create_user("shed")
