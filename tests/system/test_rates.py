# SPDX-License-Identifier: Apache-2.0
"""Whoever is too fast for a cluster of three waits, and gets an answer in the end."""

import asyncio
from collections.abc import Iterator
from datetime import timedelta

import pytest
from local_cluster.cluster import ADMINISTRATOR, LocalCluster
from local_cluster.setup import set_up

from sparecode_client import AsyncAdmin, Overloaded
from tests.system.estate import PIN, Estate


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """
    Three nodes that take two attempts a second for a user, twenty at once.

    And draw five codes a second for an administrator, fifty at once.
    """
    cluster = set_up(tmp_path_factory.mktemp("cluster"), testing=True)
    for node in cluster.nodes:
        text = node.config.read_text()
        for rate, slow in (("user_per_s", 2), ("codes_per_s", 5)):
            assert f"{rate} = 1000000" in text
            text = text.replace(f"{rate} = 1000000", f"{rate} = {slow}")
        node.config.write_text(text)
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


@pytest.mark.asyncio
@pytest.mark.timeout(120)
async def test_who_issues_much_is_slowed_down_and_nobody_else(
    cluster: LocalCluster,
) -> None:
    """
    (I12) Fifty codes of one administrator at a node, and more only as time goes by.

    Nothing is drawn then, and nothing changed. Whoever signs in meanwhile does not
    notice; the library waits as long as it is told, and has the codes in the end.
    """
    async with Estate(cluster) as estate:
        holder = await estate.holder("many", codes=1)
        async with AsyncAdmin(
            [cluster.nodes[0].admin_address], ca=cluster.members_ca
        ) as admin:
            await admin.login(ADMINISTRATOR, cluster.password)
            issued = await admin.issue_tokencodes(holder.serial, count=50)
            with pytest.raises(Overloaded) as raised:
                await admin.issue_tokencodes(
                    holder.serial, count=50, within=timedelta(milliseconds=900)
                )
            assert raised.value.reason == "RATE"
            assert 0 < raised.value.retry_after_s <= 10
            for code in issued.codes[:2]:
                assert (
                    await estate.any_agent.authenticate(
                        holder.username, PIN + code.code
                    )
                ).accepted
            late = await admin.issue_tokencodes(
                holder.serial, count=10, within=timedelta(seconds=60)
            )
            assert len(late.codes) == 10
        assert await estate.until_equal()
