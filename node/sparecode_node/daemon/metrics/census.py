# SPDX-License-Identifier: Apache-2.0
"""
Polls the members for their clocks and audit heads, and compares their states.

Members with the same number of audit events must have the same head, and members at
the same index the same digest (U1). If not, a replica is broken: the node logs it as
critical, and the metric stays 1 until a restart.
"""

import asyncio
import logging
from collections.abc import Iterable, Mapping
from typing import Protocol

from sparecode_node.domain.ids import NodeId
from sparecode_node.replication.errors import StoppingError
from sparecode_node.replication.replicator import MemberStatus
from sparecode_node.services.ambient import Clock

log = logging.getLogger(__name__)

EVERY_S = 10.0
ANSWER_S = 2.0
DIGEST_EVERY_S = 3600.0
DIGEST_AGAIN_S = 300.0
"""Pause if no two members were at the same index, which is chance under load."""
DIGEST_ANSWER_S = 60.0


class Members(Protocol):
    """The part of the replicator that the census needs."""

    @property
    def node_id(self) -> NodeId:
        """This node."""

    @property
    def primary(self) -> NodeId | None:
        """The primary, if one is known."""

    async def status(
        self, *, digest: bool, timeout_s: float
    ) -> tuple[MemberStatus, ...]:
        """Return every member's status."""


class Census:
    """The results of the last polls. `run` it in the loop; any thread may read them."""

    def __init__(self, members: Members, clock: Clock) -> None:
        self._members = members
        self._clock = clock
        self.clock_offsets_ms: Mapping[NodeId, float] = {}
        """Clock offset of each other member that answered."""
        self.heads_differ = False
        self.digests_differ = False
        self.digests_compared_ms = 0

    async def run(self) -> None:
        """Poll until cancelled, or until the node stops."""
        digest_due_s = self._clock.monotonic_s() + DIGEST_EVERY_S
        while True:
            await self.ask()
            is_primary = self._members.primary == self._members.node_id
            if is_primary and self._clock.monotonic_s() >= digest_due_s:
                try:
                    compared = await self.compare_digests()
                except StoppingError:
                    return
                pause_s = DIGEST_EVERY_S if compared else DIGEST_AGAIN_S
                digest_due_s = self._clock.monotonic_s() + pause_s
            await asyncio.sleep(EVERY_S)

    async def ask(self) -> None:
        """Poll every member once."""
        began_ms = self._clock.now_ms()
        members = await self._members.status(digest=False, timeout_s=ANSWER_S)
        middle_ms = (began_ms + self._clock.now_ms()) / 2
        self.clock_offsets_ms = {
            member.node_id: member.clock_ms - middle_ms
            for member in members
            if member.reachable and member.node_id != self._members.node_id
        }
        differing = _differing(
            (member.audit_sequence, member.audit_head) for member in members
        )
        if differing and not self.heads_differ:
            self.heads_differ = True
            log.critical(
                "audit logs differ: a replica is broken", extra={"event": differing[0]}
            )

    async def compare_digests(self) -> bool:
        """
        Compare the states of members at the same index.

        Return whether any two members were at the same index. Raises `StoppingError`.
        """
        members = await self._members.status(digest=True, timeout_s=DIGEST_ANSWER_S)
        numbered_hashes = [(member.applied_index, member.digest) for member in members]
        indexes = [index for index, digest in numbered_hashes if digest]
        compared = len(set(indexes)) < len(indexes)
        if compared:
            self.digests_compared_ms = self._clock.now_ms()
        if (differing := _differing(numbered_hashes)) and not self.digests_differ:
            self.digests_differ = True
            log.critical(
                "states differ: a replica is broken", extra={"index": differing[0]}
            )
        return compared


def _differing(numbered_hashes: Iterable[tuple[int, str]]) -> list[int]:
    """Return the numbers that occur with different hashes, in ascending order."""
    hashes: dict[int, set[str]] = {}
    for number, each in numbered_hashes:
        if each:
            hashes.setdefault(number, set()).add(each)
    return sorted(number for number, known in hashes.items() if len(known) > 1)
