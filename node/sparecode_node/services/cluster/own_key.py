# SPDX-License-Identifier: Apache-2.0
"""
Tells the state which public key this member shows to the others (P5a).

A node that joins with a ticket has its key recorded by the commit that admits it. All
others tell theirs themselves: founders, members that were added by hand, and members of
a cluster that release 0.1.0 has begun. A key that replaces another one is recorded before
it is shown, by a call over links that show the recorded one. A member that lacks the
record would refuse the new key, and only a primary that it accepts brings it the record.
If several members showed new keys, it would perhaps accept none. So a key is shown once
every running member has applied the record. For those that do not run, a primary hands
over before it shows the key.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable

from sparecode_node.domain.ids import RequestId
from sparecode_node.domain.membership import MemberKey
from sparecode_node.domain.outcomes import Rejected
from sparecode_node.replication.errors import ProposeError
from sparecode_node.replication.members import MemberRole
from sparecode_node.replication.replicator import MemberStatus, Proposal, Replicator
from sparecode_node.services.ambient import Entropy
from sparecode_node.statemachine.commands import UnstampedCall
from sparecode_node.statemachine.commands.membership import NoteMemberKey
from sparecode_node.statemachine.feature_level import MEMBER_KEYS

log = logging.getLogger(__name__)

LOOK_S = 1.0
"""Between two looks at the certificate and the state."""
ATTEMPT_S = 5.0
STATUS_S = 2.0
APPLIED_S = 5.0
"""For all members to apply the record. Those that do not run then are passed over."""
POLL_S = 0.1


class KeyNotRecordedError(Exception):
    """The cluster has not recorded another key; the message gives the reason."""


class OwnKey:
    """The record of this member's own key."""

    def __init__(
        self,
        *,
        replicator: Replicator,
        entropy: Entropy,
        shown: Callable[[], str],
        recorded: Callable[[], MemberKey | None],
        feature_level: Callable[[], int],
        applied_s: float = APPLIED_S,
    ) -> None:
        """
        *shown* returns the fingerprint of the key that this node shows now; empty: none.

        *recorded* returns the key by the state. See `APPLIED_S` for *applied_s*.
        """
        self._replicator = replicator
        self._entropy = entropy
        self._shown = shown
        self._recorded = recorded
        self._feature_level = feature_level
        self._applied_s = applied_s
        self._recording = asyncio.Lock()
        """One record at a time: a late one of the old key would make the new one void."""

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            try:
                await self.step()
            except (KeyNotRecordedError, ProposeError) as error:
                log.debug("the key cannot be recorded yet: %s", error)
            await asyncio.sleep(LOOK_S)

    async def step(self) -> None:
        """
        Record the key that this node shows, if the state does not have it alone.

        Raises `KeyNotRecordedError` and `ProposeError`.
        """
        async with self._recording:
            shown = self._shown()
            own = self._replicator.node_id
            is_member = any(each.node_id == own for each in self._replicator.members())
            if not shown or not is_member or self._feature_level() < MEMBER_KEYS:
                return
            if self._recorded() != MemberKey(fingerprint=shown):
                await self._record(shown)

    async def replace(self, fingerprint: str) -> None:
        """
        Record a key that this node is about to show in place of the present one.

        The others accept both until `step` has found that this node shows the new one.
        Afterwards this node does not lead, unless it is the only voter. Raises
        `KeyNotRecordedError` and `ProposeError`.
        """
        async with self._recording:
            shown = self._shown()
            if fingerprint == shown or not await self._are_recorded():
                return
            recorded = self._recorded()
            last = "" if recorded is None else recorded.fingerprint
            if shown and last not in (shown, fingerprint):
                await self._record(shown)  # The others accept the last two.
            if last != fingerprint:
                await self._record(fingerprint)
            await self._until_applied()
            await self._hand_over()

    async def _are_recorded(self) -> bool:
        """
        Return whether the cluster records keys, once this node knows of its own record.

        If all certificates of a cluster of release 0.1.0 have expired, its nodes get a
        quorum only with the new ones.
        """
        try:
            await self._replicator.read_barrier(timeout_s=ATTEMPT_S)
        except ProposeError:
            if self._feature_level() < MEMBER_KEYS:
                return False
            raise
        return self._feature_level() >= MEMBER_KEYS

    async def _until_applied(self) -> None:
        """Wait until every running member has applied the record."""
        passed = await self._replicator.read_barrier(timeout_s=ATTEMPT_S)
        without: list[MemberStatus] | None = None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._applied_s):
                while True:
                    statuses = await self._replicator.status(
                        digest=False, timeout_s=STATUS_S
                    )
                    without = [
                        each for each in statuses if each.applied_index < passed.index
                    ]
                    if not without:
                        return
                    await asyncio.sleep(POLL_S)
        if without is None:
            raise KeyNotRecordedError("it is not known which members have applied it")
        running = [each.node_id for each in without if each.reachable or each.busy]
        if running:
            raise KeyNotRecordedError(
                f"{', '.join(running)}: has not applied the record yet"
            )
        log.warning(
            "member_key_unknown_to", extra={"members": [m.node_id for m in without]}
        )

    async def _hand_over(self) -> None:
        """Let another member lead, and wait until that one knows the record."""
        own = self._replicator.node_id
        voters = {
            each.node_id
            for each in self._replicator.members()
            if each.role is MemberRole.VOTER
        }
        if self._replicator.primary == own and voters - {own}:
            await self._replicator.transfer_primary(timeout_s=ATTEMPT_S)
            await self._replicator.read_barrier(timeout_s=ATTEMPT_S)

    async def _record(self, fingerprint: str) -> None:
        own = self._replicator.node_id
        call = UnstampedCall.of_node(
            own,
            NoteMemberKey(node_id=own, fingerprint=fingerprint),
            RequestId(self._entropy.uuid()),
        )
        result = await self._replicator.propose(
            Proposal(call=call), timeout_s=ATTEMPT_S
        )
        if isinstance(result, Rejected):
            raise KeyNotRecordedError(result.detail)
        log.warning("member_key_recorded", extra={"key": fingerprint})
