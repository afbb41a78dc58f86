# SPDX-License-Identifier: Apache-2.0
"""
Calls that were refused before they could become a command, in the audit log (U1).

Apply records what it refuses. What a node turns away itself (no session, a role
that may not, a certificate that names nobody) it proposes to be noted: equal
refusals together, and only so many a second, so that nobody fills the log.
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
"""Who has shown nothing that names them."""
OTHER_METHODS = "other methods"
KINDS_MAX = 256
"""Kinds of refusals that are kept apart until they are noted."""
PAUSE_S = 60.0
"""Between two notes of one kind."""
NOTES_PER_S = 2
"""On the average; ten seconds' worth of them at once."""
ATTEMPT_S = 5.0
RETRY_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusedCall:
    """What was refused, why, and to whom."""

    method: str
    reason: str
    actor: str


class Refusals:
    """Counts refused calls, and has them noted. Lives in the loop."""

    def __init__(self, *, clock: Clock, entropy: Entropy) -> None:
        self.log = SecurityLog(clock)
        self._entropy = entropy
        self._bucket = TokenBuckets(per_s=NOTES_PER_S, clock=clock, secret=b"", cells=1)
        self._clock = clock
        self._counts: collections.Counter[RefusedCall] = collections.Counter()
        self._noted_s: dict[RefusedCall, float] = {}
        self._pending: NoteRefusedCalls | None = None
        self._request_id = RequestId("")
        self._refused = asyncio.Event()

    def record(self, method: str, reason: str, actor: str = NOBODY) -> None:
        """Count a refused call, to be noted soon."""
        refused = RefusedCall(method=method, reason=reason, actor=actor)
        if refused not in self._counts and len(self._counts) >= KINDS_MAX:
            refused = RefusedCall(method=OTHER_METHODS, reason=reason, actor=NOBODY)
        self._counts[refused] += 1
        self._refused.set()

    async def run(self, replicator: Replicator) -> None:
        """Have everything noted until cancelled."""
        while True:
            await self._refused.wait()
            try:
                done = await self.flush(replicator)
            except ProposeError as error:
                log.debug("refused calls cannot be noted yet: %s", error)
                done = False
            if not done:
                await asyncio.sleep(RETRY_S)

    async def flush(self, replicator: Replicator) -> bool:
        """
        Have noted what may be noted now; say whether that was all.

        Raises `ProposeError`; what was not noted is kept, and what may have been
        is proposed again under the same request id.
        """
        self._refused.clear()
        while self._pending or self._counts:
            if self._pending is None:
                refused = self._next()
                if refused is None or self._bucket.take(""):
                    self._refused.set()
                    return False
                self._noted_s[refused] = self._clock.monotonic_s()
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
        """Return a kind that was not noted lately."""
        until_s = self._clock.monotonic_s() - PAUSE_S
        self._noted_s = {
            refused: at_s for refused, at_s in self._noted_s.items() if at_s > until_s
        }
        return next((each for each in self._counts if each not in self._noted_s), None)

    def _proposal(self, replicator: Replicator, command: NoteRefusedCalls) -> Proposal:
        return Proposal(
            call=UnstampedCall.of_node(replicator.node_id, command, self._request_id)
        )


def _note(refused: RefusedCall, count: int) -> NoteRefusedCalls:
    return NoteRefusedCalls(
        method=refused.method, reason=refused.reason, actor=refused.actor, count=count
    )
