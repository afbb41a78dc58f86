# SPDX-License-Identifier: Apache-2.0
"""Codes for many tokens on a cluster of three, while its primary is killed."""

import pytest
from local_cluster.cluster import LocalCluster

from sparecode_client import BulkIssueResult, BulkIssueRow
from tests.system.estate import PIN, Estate, each

SIZE = 24


@pytest.mark.asyncio
@pytest.mark.timeout(300)
async def test_bulk_issue_survives_its_primary(cluster: LocalCluster) -> None:
    """
    Killed midway: every token has the codes that were shown, and no others.

    Rows whose answer was lost are issued again, which voids the unseen codes (I8, I9).
    Each code is accepted once, on any node (Q1).
    """
    async with Estate(cluster) as estate:
        names = [f"bulk{number}" for number in range(SIZE)]
        holders = await each(
            names, lambda name: estate.holder(name, codes=1), at_once=4
        )
        primary = await estate.primary()

        def progress(result: BulkIssueResult) -> None:
            if result.row == SIZE // 3:
                primary.kill()

        results = await estate.admin.bulk_issue_tokencodes(
            [BulkIssueRow(serial=holder.serial) for holder in holders],
            count=2,
            progress=progress,
        )
        assert not primary.running
        assert [len(result.codes) for result in results] == [2] * SIZE
        primary.start()
        for holder, result in zip(holders, results, strict=True):
            access = await estate.admin.get_emergency_access(holder.serial)
            assert access.live_codes == 2
            assert access.sets[0].set_id == result.saved.set_id
            passcode = PIN + result.codes[0].code
            verdicts = [
                (await estate.any_agent.authenticate(holder.username, passcode))
                for _ in range(2)
            ]
            assert [verdict.accepted for verdict in verdicts] == [True, False]
        assert await estate.until_equal()
