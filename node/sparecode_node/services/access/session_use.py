# SPDX-License-Identifier: Apache-2.0
"""
Sessions that are used are touched, at most once a minute each (P2).

A call that finds its session untouched for a minute has it noted, and does not wait
for it: all of a moment go into one command. What cannot be proposed now is left: the
next call of the session has it noted again.
"""

import asyncio
import logging

from sparecode_node.domain.ids import RequestId, SessionId
from sparecode_node.replication.errors import ProposeError
from sparecode_node.replication.replicator import Proposal, Replicator
from sparecode_node.services.ambient import Clock, Entropy
from sparecode_node.statemachine.commands import UnstampedCall
from sparecode_node.statemachine.commands.sessions import TouchSessions
from sparecode_node.statemachine.handlers.sessions import TOUCH_MS

log = logging.getLogger(__name__)

TOUCH_S = TOUCH_MS / 1000
SESSIONS_MAX = 256
"""In one command."""
ATTEMPT_S = 5.0


class SessionUse:
    """Has it noted which sessions are used. Lives in the loop."""

    def __init__(self, *, clock: Clock, entropy: Entropy) -> None:
        self._clock = clock
        self._entropy = entropy
        self._used: dict[SessionId, None] = {}
        self._noted_s: dict[SessionId, float] = {}
        self._waiting = asyncio.Event()

    def saw(self, session_id: SessionId, used_at_ms: int) -> None:
        """Have a session noted that was found valid, if it is time to."""
        if self._clock.now_ms() - used_at_ms < TOUCH_MS:
            return
        noted_s = self._noted_s.get(session_id)
        if noted_s is not None and self._clock.monotonic_s() - noted_s < TOUCH_S:
            return  # What was noted a moment ago need not be applied here yet.
        if len(self._used) >= SESSIONS_MAX:
            return
        self._used[session_id] = None
        self._waiting.set()

    async def run(self, replicator: Replicator) -> None:
        """Have everything noted until cancelled."""
        while True:
            await self._waiting.wait()
            await self.flush(replicator)

    async def flush(self, replicator: Replicator) -> None:
        """Have noted what was used."""
        self._waiting.clear()
        now_s = self._clock.monotonic_s()
        self._noted_s = {
            session_id: at_s
            for session_id, at_s in self._noted_s.items()
            if now_s - at_s < TOUCH_S
        }
        session_ids, self._used = tuple(self._used), {}
        if not session_ids:
            return
        # Also when it fails: once a minute is often enough to ask in vain.
        self._noted_s |= dict.fromkeys(session_ids, now_s)
        try:
            await replicator.propose(
                self._proposal(replicator, session_ids), timeout_s=ATTEMPT_S
            )
        except ProposeError as error:
            log.debug("used sessions cannot be noted now: %s", error)

    def _proposal(
        self, replicator: Replicator, session_ids: tuple[SessionId, ...]
    ) -> Proposal:
        return Proposal(
            call=UnstampedCall.of_node(
                replicator.node_id,
                TouchSessions(session_ids=session_ids),
                RequestId(self._entropy.uuid()),
            )
        )
