# SPDX-License-Identifier: Apache-2.0
"""Commands of a restored or recovered cluster; as the others, on disk for ever (E)."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class BeginEpoch:
    """
    Begin anew from a state that may have forgotten what was spent since (E1).

    The first entry of the log of a cluster that was restored from a backup, or
    made of one survivor. `sparecode-node` writes it there, and nobody proposes it.
    """

    cluster_id: str
    """The new one: nodes of before do not meet those of after (E2)."""
    cause: str
    """`restore` or `recover`."""
    state_index: int
    """Of the last entry that the state has from before."""
    state_at_ms: int
    """The log's time at that entry; what came later may be missing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenCluster:
    """Serve agents again, after somebody has looked at what differs (E2)."""

    review: str
    """The mark of what was looked at; another one means that it has changed since."""


EpochCommand = BeginEpoch | OpenCluster
