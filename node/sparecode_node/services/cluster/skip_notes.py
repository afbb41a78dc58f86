# SPDX-License-Identifier: Apache-2.0
"""
Records who agreed to skip an entry, and why, once the entry is skipped (E3, U1).

Skipping itself records only what is alike on all nodes. The statements may differ: a
node skips the entry as soon as it has those of any majority. So they get into the state
through the log, like everything else.
"""

import asyncio
import logging
from collections.abc import Iterable

from sparecode_node.domain.ids import NodeId, RequestId
from sparecode_node.queries import skips
from sparecode_node.queries.state import LocalState, ReadTransaction
from sparecode_node.replication.errors import ProposeError
from sparecode_node.replication.log.skip_statements import (
    SkipStatement,
    StatementError,
    verify,
)
from sparecode_node.replication.replicator import Proposal, Replicator
from sparecode_node.services.ambient import Entropy
from sparecode_node.statemachine.commands import UnstampedCall
from sparecode_node.statemachine.commands.cluster import NoteSkipStatement

log = logging.getLogger(__name__)

LOOK_S = 1.0
OTHERS_S = 60.0
"""A member records its own statement. If it does not, another member does."""
ATTEMPT_S = 5.0


async def note_skip_statements(
    statements: Iterable[SkipStatement],
    authorities: bytes,
    replicator: Replicator,
    state: LocalState,
    entropy: Entropy,
) -> None:
    """Record the statements in this node's files, until cancelled."""
    genuine = [each for each in statements if _is_genuine(each, authorities)]
    waited_s = 0.0
    while genuine:
        for statement in genuine:
            is_own = statement.member == replicator.node_id
            if (is_own or waited_s >= OTHERS_S) and await _is_missing(state, statement):
                await _note(statement, replicator, entropy)
        await asyncio.sleep(LOOK_S)
        waited_s += LOOK_S


def _is_genuine(statement: SkipStatement, authorities: bytes) -> bool:
    try:
        verify(statement, authorities)
    except StatementError:
        return False
    return True


async def _is_missing(state: LocalState, statement: SkipStatement) -> bool:
    async def read(transaction: ReadTransaction) -> bool:
        return await skips.is_missing(
            transaction, statement.index, statement.digest, statement.member
        )

    return await state.at_once(read)


async def _note(
    statement: SkipStatement, replicator: Replicator, entropy: Entropy
) -> None:
    command = NoteSkipStatement(
        index=statement.index,
        digest=statement.digest,
        member=NodeId(statement.member),
        operator=statement.operator,
        reason=statement.reason,
        signed_at_ms=statement.at_ms,
        statement=statement.to_text(),
    )
    call = UnstampedCall.of_node(replicator.node_id, command, RequestId(entropy.uuid()))
    try:
        await replicator.propose(Proposal(call=call), timeout_s=ATTEMPT_S)
    except ProposeError as error:
        log.debug("a statement cannot be recorded yet: %s", error)
