# SPDX-License-Identifier: Apache-2.0
"""May this caller do this: one function, one table (P1, P2)."""

from sparecode_node.queries.state import LocalState
from sparecode_node.replication.replicator import Replicator
from sparecode_node.services.ambient import Clock


class Authorization:
    """Finds out who holds a session, and whether their role may call a method."""

    def __init__(
        self, *, replicator: Replicator, state: LocalState, clock: Clock
    ) -> None:
        self._replicator = replicator
        self._state = state
        self._clock = clock
