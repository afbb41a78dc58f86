# SPDX-License-Identifier: Apache-2.0
"""Commands that begin an epoch, and open the cluster in it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class BeginEpoch:
    """
    Begin a new epoch from a state that may lack what was spent later (E1).

    It is the first log entry of a cluster that was restored from a backup or recovered
    from one survivor. `sparecode-node` writes it; it is never proposed.
    """

    cluster_id: str
    """The new cluster id: nodes of the old cluster cannot join the new one (E2)."""
    cause: str
    """`restore` or `recover`."""
    state_index: int
    """Index of the last entry in the restored state."""
    state_at_ms: int
    """The log's time at that entry; later changes may be missing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenCluster:
    """Serve agents again, after an operator has reviewed the restored state (E2)."""

    review: str
    """The mark of the review; if it differs, the state has changed since."""
