# SPDX-License-Identifier: Apache-2.0
"""The promise under a race: a code is accepted exactly once, cluster-wide."""

import asyncio
import itertools

import pytest
from local_cluster.cluster import LocalCluster

from tests.long import long
from tests.system.estate import PIN, Estate, Holder, each

CODES = [60, *long([300])]
TRIES = 30


@pytest.mark.asyncio
@pytest.mark.timeout(600)
@pytest.mark.parametrize("codes", CODES)
async def test_thirty_tries_of_each_code_over_three_nodes_are_accepted_once(
    cluster: LocalCluster, codes: int
) -> None:
    """
    Codes, each tried 30 times at once over all nodes, each by its own user.

    One try of each is accepted (A3), and the other 29 lock no one out: the next code
    works at once (A5), with lockout at its default.
    """
    async with Estate(cluster) as estate:
        holders = await each(
            [f"racer-{number:03}" for number in range(codes)],
            lambda name: estate.holder(name, codes=2),
            at_once=16,
        )

        async def race(holder: Holder) -> tuple[int, bool]:
            agents = itertools.islice(itertools.cycle(estate.agents.values()), TRIES)
            answers = await asyncio.gather(
                *(
                    agent.authenticate(holder.username, PIN + holder.codes[0])
                    for agent in agents
                )
            )
            following = await estate.any_agent.authenticate(
                holder.username, PIN + holder.codes[1]
            )
            return sum(answer.accepted for answer in answers), following.accepted

        results = await each(holders, race, at_once=4)
        digest = await estate.until_equal()

    assert [accepted for accepted, _ in results] == [1] * codes
    assert all(following for _, following in results)
    assert digest
