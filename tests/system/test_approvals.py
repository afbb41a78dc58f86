# SPDX-License-Identifier: Apache-2.0
"""Two administrators on a cluster of three: asked on one node, approved on another."""

import pytest
from local_cluster.cluster import ADMINISTRATOR, LocalCluster

from sparecode_client import (
    AdministratorRole,
    ApprovalNeeded,
    AsyncAdmin,
    BulkIssueRow,
    NewToken,
    NotPermitted,
)
from tests.system.estate import PATIENCE, PIN, Estate, answered

TEMPORARY, OWN = "a temporary password", "a password of her own"


@pytest.mark.asyncio
@pytest.mark.timeout(300)
async def test_what_one_asks_on_one_node_another_approves_on_another(
    cluster: LocalCluster,
) -> None:
    """
    (P3, I10) A policy, an issue after a PIN was set, and a bulk; over a lost primary.

    What waits is state: it is there on every node, and survives the primary that it
    was asked of. Nobody approves their own, wherever they ask.
    """
    async with Estate(cluster) as estate:
        root, first, second = (
            estate.admin,
            *(
                [
                    AsyncAdmin(
                        [node.admin_address], ca=cluster.members_ca, timeout=PATIENCE
                    )
                    for node in cluster.nodes[1:]
                ]
            ),
        )
        await root.create_administrator(
            "eve", AdministratorRole.SUPER_ADMIN, TEMPORARY, username=None
        )
        async with first as eve, second as elsewhere:
            await eve.login("eve", TEMPORARY)
            await eve.change_password(OWN, old_password=TEMPORARY)
            await eve.login("eve", OWN)
            await elsewhere.login(ADMINISTRATOR, cluster.password)

            policy = await root.get_policy()
            with pytest.raises(ApprovalNeeded) as needed:
                await root.update_policy(policy)
            number = needed.value.approval_id
            with pytest.raises(NotPermitted):
                await elsewhere.approve(number)
            await eve.approve(number)
            assert (await elsewhere.get_policy()).version == policy.version + 1

            for serial, name in (("w1", "waits"), ("w2", "too")):
                await root.create_user(name)
                await root.enroll_token(_token(serial))
                await root.assign_token(serial, name)
                await root.set_pin(serial, PIN)
            with pytest.raises(ApprovalNeeded) as needed:
                await root.issue_tokencodes("w1", count=2)
            primary = await estate.primary()
            primary.kill()
            await estate.primary(but=primary)
            survivors = [node for node in cluster.nodes if node is not primary]
            async with AsyncAdmin(
                [node.admin_address for node in survivors],
                ca=cluster.members_ca,
                timeout=PATIENCE,
            ) as admin:
                await admin.login("eve", OWN)
                (waiting,) = (await admin.list_approvals()).items
                assert waiting.approval_id == needed.value.approval_id
                await admin.approve(waiting.approval_id)
            issued = await root.issue_tokencodes("w1", count=2)
            answer = await estate.any_agent.authenticate(
                "waits", PIN + issued.codes[0].code
            )
            assert answer.accepted
            primary.start()

            rows = [BulkIssueRow(serial=serial) for serial in ("w1", "w2")]
            with pytest.raises(ApprovalNeeded) as needed:
                await root.bulk_issue_tokencodes(rows, count=2)
            await _patient(eve, needed.value.approval_id)
            results = await root.bulk_issue_tokencodes(rows, count=2)
            assert [len(result.codes) for result in results] == [2, 2]
        assert await estate.until_equal()


def _token(serial: str) -> NewToken:
    return NewToken(serial=serial, seed=serial.ljust(20).encode())


async def _patient(admin: AsyncAdmin, number: int) -> None:
    """Approve through a node that may be the one that has just come back."""
    await answered(lambda request_id: admin.approve(number, request_id=request_id))
