# SPDX-License-Identifier: Apache-2.0
"""
Calls refused before they become a command, recorded in the audit log (U1).

Apply records what it refuses. A node proposes a record of the calls that it refuses
itself: no session, a role without permission, an unknown certificate. Equal refusals
share a record, and the rate of records is bounded, so callers cannot fill the log.
"""

import asyncio
import collections
import logging
from dataclasses import dataclass

from sparecode_node.domain.ids import RequestId
from sparecode_node.replication.errors import ProposeError
from sparecode_node.replication.replicator import Proposal, Replicator
from sparecode_node.services.access.security_log import SecurityLog
from sparecode_node.services.ambient import Clock, Entropy
from sparecode_node.services.load.rates import TokenBuckets
from sparecode_node.statemachine.commands import UnstampedCall
from sparecode_node.statemachine.commands.cluster import NoteRefusedCalls

log = logging.getLogger(__name__)

NOBODY = "nobody"
"""The actor of a call without any identification."""
OTHER_METHODS = "other methods"
KINDS_MAX = 256
"""Kinds of refusals that are counted apart until they are recorded."""
PAUSE_S = 60.0
"""Between two records of one kind."""
NOTES_PER_S = 2
"""On average; a burst may have ten seconds' worth."""
ATTEMPT_S = 5.0
RETRY_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusedCall:
    """A refused call: its method, the reason, and the actor."""

    method: str
    reason: str
    actor: str


class Refusals:
    """Counts refused calls, and proposes records of them. Runs in the event loop."""

    def __init__(self, *, clock: Clock, entropy: Entropy) -> None:
        self.log = SecurityLog(clock)
        self._entropy = entropy
        self._bucket = TokenBuckets(per_s=NOTES_PER_S, clock=clock, secret=b"", cells=1)
        self._clock = clock
        self._counts: collections.Counter[RefusedCall] = collections.Counter()
        self._recorded_s: dict[RefusedCall, float] = {}
        self._pending: NoteRefusedCalls | None = None
        self._request_id = RequestId("")
        self._refused = asyncio.Event()

    def record(self, method: str, reason: str, actor: str = NOBODY) -> None:
        """Count a refused call. `run` records it in the audit log soon after."""
        refused = RefusedCall(method=method, reason=reason, actor=actor)
        if refused not in self._counts and len(self._counts) >= KINDS_MAX:
            refused = RefusedCall(method=OTHER_METHODS, reason=reason, actor=NOBODY)
        self._counts[refused] += 1
        self._refused.set()

    async def run(self, replicator: Replicator) -> None:
        """Propose records until cancelled."""
        while True:
            await self._refused.wait()
            try:
                done = await self.flush(replicator)
            except ProposeError as error:
                log.debug("refused calls cannot be recorded yet: %s", error)
                done = False
            if not done:
                await asyncio.sleep(RETRY_S)

    async def flush(self, replicator: Replicator) -> bool:
        """
        Propose the records that are due, and return whether none is left.

        Raises `ProposeError`. Records not proposed are kept; one whose outcome is
        unknown is proposed again under the same request id.
        """
        self._refused.clear()
        while self._pending or self._counts:
            if self._pending is None:
                refused = self._next()
                if refused is None or self._bucket.take(""):
                    self._refused.set()
                    return False
                self._recorded_s[refused] = self._clock.monotonic_s()
                self._pending = _note(refused, self._counts.pop(refused))
                self._request_id = RequestId(self._entropy.uuid())
            try:
                await replicator.propose(
                    self._proposal(replicator, self._pending), timeout_s=ATTEMPT_S
                )
            except ProposeError:
                self._refused.set()
                raise
            self._pending = None
        return True

    def _next(self) -> RefusedCall | None:
        """Return a kind that was not recorded recently."""
        until_s = self._clock.monotonic_s() - PAUSE_S
        self._recorded_s = {
            refused: at_s
            for refused, at_s in self._recorded_s.items()
            if at_s > until_s
        }
        return next(
            (each for each in self._counts if each not in self._recorded_s), None
        )

    def _proposal(self, replicator: Replicator, command: NoteRefusedCalls) -> Proposal:
        return Proposal(
            call=UnstampedCall.of_node(replicator.node_id, command, self._request_id)
        )


def _note(refused: RefusedCall, count: int) -> NoteRefusedCalls:
    return NoteRefusedCalls(
        method=refused.method, reason=refused.reason, actor=refused.actor, count=count
    )
