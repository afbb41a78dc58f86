# SPDX-License-Identifier: Apache-2.0
"""From an administrator's call to a proposal, and from its result to an answer."""

from sparecode_node.replication.replicator import Replicator
from sparecode_node.services.ambient import Clock
from sparecode_node.services.authorization import Authorization
from sparecode_node.services.sealing import Sealing


class Proposer:
    """Proposes administrators' commands, with their request id and its tag (Q1)."""

    def __init__(
        self,
        *,
        replicator: Replicator,
        authorization: Authorization,
        sealing: Sealing,
        clock: Clock,
    ) -> None:
        self._replicator = replicator
        self._authorization = authorization
        self._sealing = sealing
        self._clock = clock
