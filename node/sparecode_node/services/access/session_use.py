# SPDX-License-Identifier: Apache-2.0
"""
The use of sessions, recorded at most once a minute for each (P2).

When a call uses a session last recorded more than a minute ago, it queues an update
and does not wait for it. Updates are batched into one command. An update that cannot
be proposed is dropped: the session's next call queues it again.
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
    """Records which sessions are used. Runs in the event loop."""

    def __init__(self, *, clock: Clock, entropy: Entropy) -> None:
        self._clock = clock
        self._entropy = entropy
        self._used: dict[SessionId, None] = {}
        self._recorded_s: dict[SessionId, float] = {}
        self._waiting = asyncio.Event()

    def record(self, session_id: SessionId, used_at_ms: int) -> None:
        """Queue an update of a valid session, if the last record is old enough."""
        if self._clock.now_ms() - used_at_ms < TOUCH_MS:
            return
        recorded_s = self._recorded_s.get(session_id)
        if recorded_s is not None and self._clock.monotonic_s() - recorded_s < TOUCH_S:
            return  # A recent update may not be applied here yet.
        if len(self._used) >= SESSIONS_MAX:
            return
        self._used[session_id] = None
        self._waiting.set()

    async def run(self, replicator: Replicator) -> None:
        """Propose queued updates until cancelled."""
        while True:
            await self._waiting.wait()
            await self.flush(replicator)

    async def flush(self, replicator: Replicator) -> None:
        """Propose the queued updates in one command."""
        self._waiting.clear()
        now_s = self._clock.monotonic_s()
        self._recorded_s = {
            session_id: at_s
            for session_id, at_s in self._recorded_s.items()
            if now_s - at_s < TOUCH_S
        }
        session_ids, self._used = tuple(self._used), {}
        if not session_ids:
            return
        # Also if it fails: one attempt a minute is enough.
        self._recorded_s |= dict.fromkeys(session_ids, now_s)
        try:
            await replicator.propose(
                self._proposal(replicator, session_ids), timeout_s=ATTEMPT_S
            )
        except ProposeError as error:
            log.debug("the use of sessions cannot be recorded now: %s", error)

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
