# SPDX-License-Identifier: Apache-2.0
"""Reads: barrier, permission and query, in that order and in one transaction."""

from sparecode_node.queries.state import LocalState
from sparecode_node.replication.replicator import Replicator
from sparecode_node.services.ambient import Clock
from sparecode_node.services.authorization import Authorization


class Reader:
    """Reads for administrators: linearizable, or stale where that is said (P2)."""

    def __init__(
        self,
        *,
        replicator: Replicator,
        state: LocalState,
        authorization: Authorization,
        clock: Clock,
    ) -> None:
        self._replicator = replicator
        self._state = state
        self._authorization = authorization
        self._clock = clock
