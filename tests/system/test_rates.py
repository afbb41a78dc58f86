# SPDX-License-Identifier: Apache-2.0
"""Whoever is too fast for a cluster of three waits, and gets an answer in the end."""

import asyncio
from collections.abc import Iterator
from datetime import timedelta

import pytest
from local_cluster.cluster import LocalCluster
from local_cluster.setup import set_up

from sparecode_client import Overloaded
from tests.system.estate import PIN, Estate


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """Three nodes that take two attempts a second for a user, twenty at once."""
    cluster = set_up(tmp_path_factory.mktemp("cluster"), testing=True)
    for node in cluster.nodes:
        text = node.config.read_text()
        assert "user_per_s = 1000000" in text
        node.config.write_text(text.replace("user_per_s = 1000000", "user_per_s = 2"))
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.kill()


@pytest.mark.asyncio
@pytest.mark.timeout(120)
async def test_the_library_waits_as_it_is_told_within_its_deadline(
    cluster: LocalCluster,
) -> None:
    """
    (L7) A hundred tries of one code at once, over three nodes: one acceptance.

    Those that are shed wait for as long as the node says, and are answered within
    their deadline; who has no time to wait is told so at once, with the hint.
    """
    async with Estate(cluster) as estate:
        holder = await estate.holder("hasty", codes=1)
        passcode = PIN + holder.codes[0]
        answers = await asyncio.gather(
            *(
                estate.any_agent.authenticate(holder.username, passcode)
                for _ in range(100)
            )
        )
        assert sum(answer.accepted for answer in answers) == 1

        async def hurry() -> None:
            for _ in range(200):
                await estate.any_agent.authenticate(
                    holder.username, passcode, within=timedelta(milliseconds=100)
                )

        with pytest.raises(Overloaded) as raised:
            await hurry()
        assert raised.value.reason == "RATE"
        assert 0 < raised.value.retry_after_s <= 1
        assert await estate.until_equal()
