# SPDX-License-Identifier: Apache-2.0
"""
Tells the state which members have authorities' keys, and which authorities are replaced (P6a).

Keys and certificates are files that operators own: `init --new-authority`, `authority
restore` and a copy put them there while no node runs. So each node records the keys that
it finds beside the certificates that it trusts. A key that came with a ticket is recorded
by the commit that admits the node.

An authority is replaced when no member trusts it. The primary asks all members; one that
does not answer may still trust it.
"""

import asyncio
import logging
from collections.abc import Callable

from sparecode_node.domain.ids import NodeId, RequestId
from sparecode_node.domain.membership import KEYS_MAX, AuthorityKey
from sparecode_node.domain.outcomes import Rejected
from sparecode_node.queries import authorities, cluster, membership
from sparecode_node.queries.state import LocalState
from sparecode_node.replication.errors import ProposeError
from sparecode_node.replication.replicator import Proposal, Replicator
from sparecode_node.services.ambient import Entropy
from sparecode_node.statemachine.commands import Command, UnstampedCall
from sparecode_node.statemachine.commands.membership import (
    NoteAuthorityKeys,
    RetireAuthority,
)
from sparecode_node.statemachine.feature_level import DUE_AUTHORITIES

log = logging.getLogger(__name__)

LOOK_S = 10.0
"""Between two looks at the files and the state."""
STATUS_S = 2.0
ATTEMPT_S = 5.0


class AuthorityWatch:
    """Compares this node's files with the state. Every node runs it."""

    def __init__(
        self,
        *,
        replicator: Replicator,
        state: LocalState,
        entropy: Entropy,
        keys: Callable[[], tuple[AuthorityKey, ...]],
        trusted: Callable[[], tuple[AuthorityKey, ...]],
    ) -> None:
        """
        Keep the functions that tell of this node's files.

        *keys* returns the authorities whose keys it has, *trusted* those that it trusts.
        """
        self._replicator = replicator
        self._state = state
        self._entropy = entropy
        self._keys = keys
        self._trusted = trusted

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                await self.step()
            except (ProposeError, OSError, ValueError) as error:
                log.debug("authorities cannot be compared yet: %s", error)

    async def step(self) -> None:
        """
        Record what the state does not know.

        Raises `ProposeError`; `OSError` and `ValueError` for unusable files.
        """
        own = self._replicator.node_id
        async with self._state.transaction() as transaction:
            level = await cluster.feature_level(transaction)
            in_place = await authorities.in_place(transaction)
            noted = await authorities.keys_of(transaction, own)
        members = {member.node_id for member in self._replicator.members()}
        if level < DUE_AUTHORITIES or own not in members:
            return
        trusted = set(await asyncio.to_thread(self._trusted))
        found = await asyncio.to_thread(self._keys)
        new = tuple(key for key in found if key in trusted and key not in noted)
        if new and len(noted) + len(new) > KEYS_MAX:
            log.warning("authority_keys_full", extra={"keys": len(noted)})
        elif new:
            await self._propose(NoteAuthorityKeys(node_id=own, keys=new))
        gone = in_place - trusted
        if gone and self._replicator.primary == own:
            await self._retire(gone, members)

    async def _retire(
        self, gone: frozenset[AuthorityKey], members: set[NodeId]
    ) -> None:
        """Record those of *gone* that no member trusts."""
        statuses = await self._replicator.status(digest=False, timeout_s=STATUS_S)
        if not all(status.authorities for status in statuses):
            return
        async with self._state.transaction() as transaction:
            nodes = await membership.nodes(transaction)
        # An admitted node that has not made contact has the certificates of its ticket.
        joining = {each.node_id for each in nodes if not each.removed} - members
        if joining or members - {status.node_id for status in statuses}:
            return
        for status in statuses:
            gone = gone.difference(status.authorities)
        for key in sorted(gone, key=str):
            command = RetireAuthority(
                authority=key.authority, fingerprint=key.fingerprint
            )
            if await self._propose(command):
                log.warning("authority_replaced", extra={"authority": str(key)})

    async def _propose(self, command: Command) -> bool:
        """Return whether the command was applied."""
        call = UnstampedCall.of_node(
            self._replicator.node_id, command, RequestId(self._entropy.uuid())
        )
        result = await self._replicator.propose(
            Proposal(call=call), timeout_s=ATTEMPT_S
        )
        return not isinstance(result, Rejected)
