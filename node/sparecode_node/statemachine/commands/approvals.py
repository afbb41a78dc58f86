# SPDX-License-Identifier: Apache-2.0
"""Commands on approvals."""

from dataclasses import dataclass

from sparecode_node.statemachine.commands.policy import CountedCodes


@dataclass(frozen=True, slots=True, kw_only=True)
class Approve:
    """Make a waiting change, or permit its author to issue codes (P3)."""

    approval_id: int
    counted: CountedCodes | None = None
    """The live codes, if the change weighs them: see `UpdatePolicy`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reject:
    """Refuse a request, or revoke a permit. Authors may do so with their own."""

    approval_id: int
