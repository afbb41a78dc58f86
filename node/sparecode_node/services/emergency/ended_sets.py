# SPDX-License-Identifier: Apache-2.0
"""
Has users told of sets that ended by time (N6).

The primary looks for ends that are due, and proposes a command that judges a few of
them. So a million sets that end at the same moment delay no sign-in for long, and the
outbox takes no more of them than it can deliver.
"""

import asyncio
import logging
import sqlite3

from sparecode_node.domain.ids import RequestId
from sparecode_node.domain.notices import NOTICES_MAX
from sparecode_node.domain.outcomes import Rejected
from sparecode_node.domain.policy import HOUR_MS
from sparecode_node.queries import set_ends
from sparecode_node.queries.state import LocalState
from sparecode_node.replication.errors import ProposeError
from sparecode_node.replication.replicator import Proposal, Replicator
from sparecode_node.services.ambient import Clock, Entropy
from sparecode_node.statemachine.commands import UnstampedCall
from sparecode_node.statemachine.commands.emergency_access import NoteEndedSets

log = logging.getLogger(__name__)

LOOK_S = 10.0
"""Between two looks at the state."""
REST_S = 0.25
"""Between two commands, if more ends are due: sign-ins go on meanwhile."""
ATTEMPT_S = 5.0
ROOM = NOTICES_MAX // 2
"""While more notices wait in a channel, ends wait, too: a full one would drop some."""
PATIENCE_MS = HOUR_MS
"""
Ends wait this long for a channel. One that never delivers must not hold them up.

Then a full channel drops them before all other notices.
"""


class EndedSets:
    """Proposes `NoteEndedSets` when a set has ended. Every node runs it, the primary acts."""

    def __init__(
        self,
        *,
        replicator: Replicator,
        state: LocalState,
        clock: Clock,
        entropy: Entropy,
    ) -> None:
        self._replicator = replicator
        self._state = state
        self._clock = clock
        self._entropy = entropy

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            more = False
            try:
                more = await self.step()
            except (ProposeError, sqlite3.OperationalError) as error:
                # A snapshot of an older level has no such table for a moment.
                log.debug("ends of sets cannot be told yet: %s", error)
            await asyncio.sleep(REST_S if more else LOOK_S)

    async def step(self) -> bool:
        """
        Have some ends told, if this node is the primary; return whether more may be due.

        Raises `ProposeError`.
        """
        if self._replicator.primary != self._replicator.node_id:
            return False
        now_ms = self._clock.now_ms()
        async with self._state.transaction() as transaction:
            due = await set_ends.due(transaction, now_ms, room=ROOM)
        if due.oldest_ms is None:
            return False
        if not due.have_room and now_ms - due.oldest_ms < PATIENCE_MS:
            return False
        call = UnstampedCall.of_node(
            self._replicator.node_id, NoteEndedSets(), RequestId(self._entropy.uuid())
        )
        result = await self._replicator.propose(
            Proposal(call=call), timeout_s=ATTEMPT_S
        )
        return not isinstance(result, Rejected)
