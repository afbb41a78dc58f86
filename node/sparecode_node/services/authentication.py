# SPDX-License-Identifier: Apache-2.0
"""Use case: an agent asks whether a passcode is right (A, T)."""

from sparecode_node.queries.state import LocalState
from sparecode_node.replication.replicator import Replicator
from sparecode_node.services.ambient import Clock, Entropy
from sparecode_node.services.context import CallContext
from sparecode_node.services.kdf import Kdf
from sparecode_node.services.sealing import Sealing
from sparecode_node.statemachine.results import Authenticated


class Authentication:
    """Judges passcodes. Any node may be asked; a code is accepted once cluster-wide."""

    def __init__(
        self,
        *,
        replicator: Replicator,
        state: LocalState,
        sealing: Sealing,
        kdf: Kdf,
        clock: Clock,
        entropy: Entropy,
    ) -> None:
        self._replicator = replicator
        self._state = state
        self._sealing = sealing
        self._kdf = kdf
        self._clock = clock
        self._entropy = entropy

    async def authenticate(
        self,
        context: CallContext,
        *,
        username: str,
        passcode: str,
        client_address: str,
        resource: str,
    ) -> Authenticated:
        """
        Return the decision, after a quorum has committed it.

        Raises `InvalidFieldError` (a field beyond its bound, a bad request id),
        `Refused` (`REQUEST_ID_REUSED`, `REQUEST_TABLE_FULL`), `ProposeError`.
        Whatever else the rules say is the decision REFUSED.
        """
        raise NotImplementedError
