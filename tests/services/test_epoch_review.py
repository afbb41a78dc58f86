# SPDX-License-Identifier: Apache-2.0
"""A restored cluster is reviewed by permitted roles, and opened as reviewed (E2)."""

import pytest

from sparecode_node.domain.administrators import Role
from sparecode_node.domain.ids import NodeId, RequestId
from sparecode_node.domain.outcomes import Reason
from sparecode_node.replication.replicator import Proposal
from sparecode_node.services.errors import InvalidFieldError, NotSignedInError, Refused
from sparecode_node.statemachine.commands import RequestKey, UnstampedCall
from sparecode_node.statemachine.commands.epochs import BeginEpoch
from tests.services.one_node import OneNode


def beginning(command: BeginEpoch) -> UnstampedCall:
    """Return the call that `sparecode-node restore` writes."""
    return UnstampedCall(
        command=command,
        request=RequestKey(
            caller="node:n1", method="BeginEpoch", request_id=RequestId("r"), tag=0
        ),
        node_id=NodeId("n1"),
    )


pytestmark = pytest.mark.asyncio

REVIEW = "ClusterService/GetReview"
OPEN = "ClusterService/OpenCluster"


async def test_a_cluster_that_was_never_restored_is_open(node: OneNode) -> None:
    seen = (await node.epoch_review.review(node.admin(REVIEW))).value
    assert seen.open
    assert (seen.epoch, seen.cause, seen.began_at_ms) == (1, "", None)
    with pytest.raises(Refused) as refused:
        await node.epoch_review.open(node.admin(OPEN), review=seen.mark)
    assert refused.value.rejected.reason is Reason.ALREADY_OPEN


async def test_a_review_lists_everything_that_grants_access(node: OneNode) -> None:
    """A role that may not read users learns only how many are disabled (P1)."""
    await node.add_user("alice")
    for db in (node.primary_db, node.local_db):
        db.execute("UPDATE users SET enabled = 0")
    seen = (await node.epoch_review.review(node.admin(REVIEW))).value
    assert [each.role for each in seen.administrators] == ["super_admin"]
    assert [each.name for each in seen.agents]
    assert len(seen.disabled_users) == seen.disabled_users_count > 0
    for db in (node.primary_db, node.local_db):
        db.execute("UPDATE administrators SET role = ?", (Role.OPERATOR,))
    again = (await node.epoch_review.review(node.admin(REVIEW))).value
    assert again.disabled_users == ()
    assert again.disabled_users_count == seen.disabled_users_count
    assert again.mark != seen.mark  # An administrator's role has changed.


async def test_an_invalid_mark_names_the_field(node: OneNode) -> None:
    with pytest.raises(InvalidFieldError, match="review"):
        await node.epoch_review.open(node.admin(OPEN), review="yes")


async def test_a_new_epoch_ends_earlier_sessions(node: OneNode) -> None:
    """(E1)."""
    begun = BeginEpoch(cluster_id="c9", cause="restore", state_index=1, state_at_ms=1)
    node.replicator.commit([Proposal(call=beginning(begun))])
    with pytest.raises(NotSignedInError):
        await node.epoch_review.review(node.admin(REVIEW))
