# SPDX-License-Identifier: Apache-2.0
"""
Starts the replacement of authorities that are due (P6a).

Every node runs it. One member that has the authority's key makes the successor: the
primary if it has the key, otherwise the first by id. If that member does nothing for
`WAIT_S`, another one does. A member that stops between making and announcing announces
the same successor later.
"""

import asyncio
import logging
from collections.abc import Callable

from sparecode_node.domain.ids import NodeId, RequestId
from sparecode_node.domain.membership import AuthorityKey, AuthorityKind, Successor
from sparecode_node.domain.outcomes import Rejected
from sparecode_node.queries import authorities
from sparecode_node.queries.state import LocalState
from sparecode_node.replication.errors import ProposeError
from sparecode_node.replication.replicator import Proposal, Replicator
from sparecode_node.services.ambient import Clock, Entropy
from sparecode_node.statemachine.commands import UnstampedCall
from sparecode_node.statemachine.commands.membership import AnnounceAuthority

log = logging.getLogger(__name__)

LOOK_S = 5.0
"""Between two looks at the state."""
WAIT_S = 60.0
"""The member that should make a successor has this long before another one does."""
ATTEMPT_S = 5.0


class AuthorityReplacement:
    """Makes and announces the successors of authorities whose keys this node has."""

    def __init__(
        self,
        *,
        replicator: Replicator,
        state: LocalState,
        clock: Clock,
        entropy: Entropy,
        accepted: Callable[[], tuple[Successor, ...]],
        make: Callable[[AuthorityKey], Successor | None],
        made_here: Callable[[Successor], bool] = lambda _: True,
    ) -> None:
        """
        Keep the functions that use this node's files.

        *accepted* returns the successors that this node trusts, *make* makes one, or
        returns None if this node does not have the authority's key. *made_here* returns
        whether this node has made a successor.
        """
        self._replicator = replicator
        self._state = state
        self._clock = clock
        self._entropy = entropy
        self._accepted = accepted
        self._make = make
        self._made_here = made_here
        self._foreign: set[str] = set()
        self._since_s: dict[AuthorityKey, float] = {}

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                await self.step()
            except (OSError, ValueError) as error:
                log.warning("authority_not_replaced", extra={"cause": str(error)})

    async def step(self) -> None:
        """
        Make what is missing, if it is this node's turn.

        Raises `OSError` and `ValueError` for unusable files.
        """
        own = self._replicator.node_id
        members = {member.node_id for member in self._replicator.members()}
        async with self._state.transaction() as transaction:
            due = await authorities.due(transaction)
            wanted = {
                AuthorityKey(
                    authority=AuthorityKind(each.authority),
                    fingerprint=each.fingerprint,
                )
                for each in due
                if each.started
            }
            holders = {
                key: await authorities.holders(transaction, key) & members
                for key in wanted
            }
        if not wanted or own not in members:
            self._since_s.clear()
            return
        await self._alarm()
        # A successor counts only if its proof is right and its maker is a member.
        replaced = {
            each.replaced
            for each in await asyncio.to_thread(self._accepted)
            if each.node_id in members
        }
        self._since_s = {
            key: self._since_s.get(key, self._clock.monotonic_s())
            for key in wanted - replaced
        }
        for key in sorted(self._since_s, key=str):
            if own in holders[key] and self._is_its_turn(key, holders[key]):
                try:
                    await self._replace(key)
                except (ProposeError, OSError, ValueError) as error:
                    # The other authority is replaced all the same.
                    log.warning(
                        "authority_not_replaced",
                        extra={"authority": str(key), "cause": str(error)},
                    )

    async def _alarm(self) -> None:
        """Log, once, each trusted successor in this node's name that it has not made."""
        own = self._replicator.node_id
        for each in await asyncio.to_thread(self._accepted):
            if each.node_id != own or each.sole or each.name in self._foreign:
                continue
            if not await asyncio.to_thread(self._made_here, each):
                self._foreign.add(each.name)
                log.error(
                    "successor_not_made_here",
                    extra={"authority": str(each.key), "replaces": each.replaces},
                )

    def _is_its_turn(self, key: AuthorityKey, holders: frozenset[NodeId]) -> bool:
        """Return whether this node makes the successor, and not another one first."""
        primary, own = self._replicator.primary, self._replicator.node_id
        first = primary if primary in holders else min(holders)
        waited_s = self._clock.monotonic_s() - self._since_s[key]
        return first == own or waited_s >= WAIT_S

    async def _replace(self, key: AuthorityKey) -> None:
        made = await asyncio.to_thread(self._make, key)
        if made is None:
            return
        command = AnnounceAuthority(
            node_id=made.node_id,
            authority=made.authority,
            replaces=made.replaces,
            fingerprint=made.fingerprint,
            certificate=made.certificate,
            proof=made.proof,
        )
        call = UnstampedCall.of_node(
            made.node_id, command, RequestId(self._entropy.uuid())
        )
        result = await self._replicator.propose(
            Proposal(call=call), timeout_s=ATTEMPT_S
        )
        if isinstance(result, Rejected):
            log.warning(
                "authority_not_replaced",
                extra={"authority": str(key), "cause": result.detail},
            )
        else:
            log.warning(
                "authority_announced",
                extra={"authority": str(made.key), "replaces": str(key)},
            )
