# SPDX-License-Identifier: Apache-2.0
"""Replacing a token: what is allowed, and what it changes (R3)."""

from dataclasses import dataclass, replace

from sparecode_node.domain.outcomes import Rejected
from sparecode_node.domain.pins import NewPin
from sparecode_node.domain.tokens import Token

NEW = "replacement_serial"
"""The request field that names the new token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Replacement:
    """Both tokens after the replacement."""

    old: Token
    new: Token


def replace_token(
    old: Token, new: Token, pin: NewPin | None, now_ms: int
) -> Replacement | Rejected:
    """
    Decide whether *new* may take the place of *old*, and what that changes.

    The old token becomes unassigned and disabled. If it was lost, it stays lost: a
    finder cannot use it (R2). *pin* is the old token's PIN, resealed for the new
    serial. Without it, the new token has no PIN yet.
    """
    if old.user_id is None:
        return replace(old.not_assigned(), field="serial")
    assigned = new.assigned(old.user_id)
    if isinstance(assigned, Rejected):
        return replace(assigned, field=NEW)
    unusable = assigned.usable(now_ms)
    if unusable is not None:
        return replace(unusable, field=NEW)
    if pin is not None:
        cleared = old.without_pin()
        if isinstance(cleared, Rejected):
            return cleared  # There is no PIN to carry.
        assigned = assigned.with_pin(pin)
        if isinstance(assigned, Rejected):
            return replace(assigned, field=NEW)
    return Replacement(old=replace(old.without_user(), enabled=False), new=assigned)
