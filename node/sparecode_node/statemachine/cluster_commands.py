# SPDX-License-Identifier: Apache-2.0
"""
Commands on the cluster itself; as the others of `commands`, on disk for ever.

They say that somebody with the right to has ordered it, and leave it in the audit
log. What is ordered, replication does.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferPrimary:
    """Have another member lead."""

    target: str | None
    """Absent: whoever has most of the log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RaiseFeatureLevel:
    """All members know this level: what is of it may be done from now on."""

    level: int


ClusterCommand = TransferPrimary | RaiseFeatureLevel
