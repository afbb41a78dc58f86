# SPDX-License-Identifier: Apache-2.0
"""What nodes have refused themselves, to be recorded; on disk as the others."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class NoteRefusedCalls:
    """Record calls that a node has refused before they became a command (U1)."""

    method: str
    reason: str
    actor: str
    """Who called, as far as they have shown it."""
    count: int
    """So many calls since the last note."""
