# SPDX-License-Identifier: Apache-2.0
"""Changes of the cluster: ordered by who may, recorded, and done by replication."""

import pytest

from sparecode_node.domain.outcomes import Reason
from sparecode_node.services.errors import InvalidFieldError, Refused
from tests.services.one_node import OneNode

pytestmark = pytest.mark.asyncio

TRANSFER = "ClusterService/TransferPrimary"


def last_event(node: OneNode) -> tuple[str, str, str]:
    """Return action, target and outcome of the newest audit event."""
    row: tuple[str, str, str] = node.primary_db.execute(
        "SELECT action, target, outcome FROM audit_events"
        " ORDER BY sequence DESC LIMIT 1"
    ).fetchone()
    return row


async def test_a_transfer_is_recorded_and_done(node: OneNode) -> None:
    """(U1)."""
    changes = node.cluster_changes
    assert await changes.transfer_primary(node.admin(TRANSFER), target="n2") == "n2"
    assert last_event(node) == ("TransferPrimary", "n2", "applied")
    assert await changes.transfer_primary(node.admin(TRANSFER), target="") == "n3"
    assert last_event(node) == ("TransferPrimary", "", "applied")
    assert node.replicator.transfers == ["n2", None]


async def test_a_transfer_that_cannot_be_says_why(node: OneNode) -> None:
    with pytest.raises(Refused) as refused:
        await node.cluster_changes.transfer_primary(node.admin(TRANSFER), target="n9")
    assert refused.value.rejected.reason is Reason.MEMBER_UNKNOWN
    with pytest.raises(InvalidFieldError, match="target"):
        await node.cluster_changes.transfer_primary(node.admin(TRANSFER), target="N 9")
