# SPDX-License-Identifier: Apache-2.0
"""Commands on approvals."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Approve:
    """Make a waiting change, or permit its author to issue codes (P3)."""

    approval_id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Reject:
    """Refuse a request, or revoke a permit. Authors may do so with their own."""

    approval_id: int
