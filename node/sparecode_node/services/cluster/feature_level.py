# SPDX-License-Identifier: Apache-2.0
"""
Raises the cluster's feature level when every member knows a higher one.

`replication.levels.to_raise` decides whether every member does.
"""

import asyncio
import logging

from sparecode_node.domain.ids import NodeId, RequestId
from sparecode_node.domain.outcomes import Rejected
from sparecode_node.fault_points import Point, reach
from sparecode_node.replication.errors import ProposeError
from sparecode_node.replication.replicator import Proposal, Replicator
from sparecode_node.services.ambient import Entropy
from sparecode_node.statemachine.commands import UnstampedCall
from sparecode_node.statemachine.commands.cluster import RaiseFeatureLevel

log = logging.getLogger(__name__)

LOOK_S = 1.0
ATTEMPT_S = 5.0


async def raise_feature_level(replicator: Replicator, entropy: Entropy) -> None:
    """Raise the level on the primary, whenever it can be raised, until cancelled."""
    while True:
        level = replicator.level_to_raise
        if level is not None:
            reach(Point.LEVEL_RAISE)
            try:
                result = await replicator.propose(
                    _proposal(replicator.node_id, level, entropy), timeout_s=ATTEMPT_S
                )
            except ProposeError as error:
                log.debug("the feature level cannot be raised yet: %s", error)
            else:
                if not isinstance(result, Rejected):
                    log.info("feature_level_raised", extra={"level": level})
        await asyncio.sleep(LOOK_S)


def _proposal(node_id: NodeId, level: int, entropy: Entropy) -> Proposal:
    return Proposal(
        call=UnstampedCall.of_node(
            node_id, RaiseFeatureLevel(level=level), RequestId(entropy.uuid())
        )
    )
