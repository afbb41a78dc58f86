# SPDX-License-Identifier: Apache-2.0
"""One token in place of another: what is allowed, and what it changes (R3)."""

from dataclasses import dataclass, replace

from sparecode_node.domain.outcomes import Rejected
from sparecode_node.domain.pins import NewPin
from sparecode_node.domain.tokens import Token

NEW = "replacement_serial"
"""The request's field that names the new token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Replacement:
    """Both tokens afterwards."""

    old: Token
    new: Token


def replace_token(
    old: Token, new: Token, pin: NewPin | None, now_ms: int
) -> Replacement | Rejected:
    """
    Decide whether *new* may take the place of *old*, and what that changes.

    The old token is nobody's and disabled then, and still lost if it was: whoever
    has it has nothing (R2). Without a *pin*, which is the old one's sealed anew for
    the serial of the new one, that has none yet.
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
    return Replacement(old=replace(old.of_nobody(), enabled=False), new=assigned)
