# SPDX-License-Identifier: Apache-2.0
"""Callers that exceed a rate on three nodes wait, and get an answer in the end."""

import asyncio
import contextlib
from collections.abc import Iterator
from datetime import timedelta

import pytest
from local_cluster.cluster import ADMINISTRATOR, LocalCluster
from local_cluster.setup import set_up

from sparecode_client import AsyncAdmin, OutcomeUnknown, Overloaded, Unavailable
from tests.system.estate import PATIENCE, PIN, Estate


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


@pytest.mark.long
@pytest.mark.asyncio
@pytest.mark.timeout(300)
async def test_the_library_waits_as_it_is_told_within_its_deadline(
    cluster: LocalCluster,
) -> None:
    """
    (L7) A hundred tries of one code at once, over three nodes: one acceptance.

    Shed callers wait for the time of the hint, and are answered within their deadline.
    A caller without time to wait fails at once, with the hint.
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
                # A busy machine may not answer in this time.
                with contextlib.suppress(Unavailable, OutcomeUnknown):
                    await estate.any_agent.authenticate(
                        holder.username, passcode, within=timedelta(milliseconds=100)
                    )

        with pytest.raises(Overloaded) as raised:
            await hurry()
        assert raised.value.reason == "RATE"
        assert 0 < raised.value.retry_after_s <= 1
        assert await estate.until_equal()


@pytest.mark.asyncio
@pytest.mark.timeout(300)
async def test_issuing_many_codes_slows_down_only_its_administrator(
    cluster: LocalCluster,
) -> None:
    """
    (I12) Fifty codes of one administrator at a node; further codes as time passes.

    Until then nothing is drawn or changed. Sign-ins are not delayed. The library waits
    for the time of the hint, and has the codes in the end.
    """
    async with Estate(cluster) as estate:
        holder = await estate.holder("many", codes=1)
        async with AsyncAdmin(
            [cluster.nodes[0].admin_address], ca=cluster.members_ca, timeout=PATIENCE
        ) as admin:
            await admin.login(ADMINISTRATOR, cluster.password)
            issued = await admin.issue_tokencodes(holder.serial, count=50)

            async def hurry() -> None:
                nonlocal issued
                for _ in range(50):
                    # A busy machine may not answer in this time, or at once later.
                    with contextlib.suppress(Unavailable, OutcomeUnknown):
                        issued = await admin.issue_tokencodes(
                            holder.serial, count=50, within=timedelta(milliseconds=900)
                        )

            with pytest.raises(Overloaded) as raised:
                await hurry()
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
