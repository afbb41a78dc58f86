# SPDX-License-Identifier: Apache-2.0
"""
How long callers of a node without a quorum wait for one.

During an election a node has no contact to a quorum for a moment, and its callers wait.
Once that takes longer than an election, a caller is better served by another node. So it
is told `NoQuorumError`, and not at its deadline.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from sparecode_node.replication.errors import NoQuorumError


@dataclass(slots=True)
class QuorumWait:
    """The callers that wait on one node. Lives in the loop."""

    patience_s: float
    """The longest election timeout."""
    _has_contact: bool = False
    _callers: dict[asyncio.Timeout, None] = field(default_factory=dict)
    """In the order in which they came, so that simulated runs repeat."""

    def take_contact(self, *, has_contact: bool) -> None:
        """Record whether this node is in contact with a quorum."""
        if has_contact == self._has_contact:
            return
        self._has_contact = has_contact
        for caller in self._callers:
            if not caller.expired():
                caller.reschedule(self._end())

    def _end(self) -> float | None:
        if self._has_contact:
            return None
        return asyncio.get_running_loop().time() + self.patience_s

    @contextlib.asynccontextmanager
    async def limited(self) -> AsyncIterator[None]:
        """
        End the body when this node has had no contact to a quorum for too long.

        The time before the call does not count. Raises `NoQuorumError`.
        """
        try:
            async with asyncio.timeout_at(self._end()) as caller:
                self._callers[caller] = None
                try:
                    yield
                finally:
                    del self._callers[caller]
        except TimeoutError as error:
            if not caller.expired():
                raise
            raise NoQuorumError(
                f"no contact to a quorum for {self.patience_s:g} s"
            ) from error
