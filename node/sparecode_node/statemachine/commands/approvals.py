# SPDX-License-Identifier: Apache-2.0
"""Commands on approvals; as the others of `commands`, they are on disk for ever."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Approve:
    """Make a change that waits, or let its author issue what waits (P3)."""

    approval_id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Reject:
    """Refuse what waits, or take a permit back; authors may do so with their own."""

    approval_id: int
