# SPDX-License-Identifier: Apache-2.0
"""Use cases: changing the cluster itself, for operators."""

from sparecode_node.domain.ids import NodeId
from sparecode_node.replication.errors import ChangeRefusedError
from sparecode_node.replication.replicator import Replicator
from sparecode_node.services import fields
from sparecode_node.services.context import CallContext
from sparecode_node.services.errors import refusal
from sparecode_node.services.proposing import Proposer
from sparecode_node.statemachine.cluster_commands import TransferPrimary


class ClusterChanges:
    """
    Orders a change in the log, where it is judged and recorded, and has it done.

    Every method raises `InvalidFieldError`, `NotSignedInError`,
    `NotPermittedError`, `Refused` and `ProposeError`.
    """

    def __init__(self, *, proposer: Proposer, replicator: Replicator) -> None:
        self._proposer = proposer
        self._replicator = replicator

    async def transfer_primary(self, context: CallContext, *, target: str) -> NodeId:
        """
        Have the member *target* lead, or whoever has most of the log.

        Returns who leads then. Raises `Refused` (`MEMBER_UNKNOWN`,
        `MEMBER_NOT_READY`) with the same primary as before.
        """
        wanted = fields.node_id("target", target) if target else None
        deadline = self._proposer.deadline(context)
        session = await self._proposer.begin(context, deadline)
        command = TransferPrimary(target=wanted)
        said = {"target": target}
        await self._proposer.propose(context, session, deadline, command, said)
        try:
            return await self._replicator.transfer_primary(
                wanted, timeout_s=deadline.left_s()
            )
        except ChangeRefusedError as error:
            raise refusal(error.rejected) from error
