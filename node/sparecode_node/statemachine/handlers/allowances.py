# SPDX-License-Identifier: Apache-2.0
"""
What may be done a number of times without an approval (P3a), or a password (P7).

Each administrator may issue a number of sets, and each user be unlocked a number of
times. All administrators share a user's unlocks: each one allows further guesses, and
guesses of accomplices add up.

Denying a certificate, or restricting an agent, stops an attack and must be possible at
once. It also keeps users out. So a session alone may do it a number of times (`power`).
"""

from sparecode_node.domain.approvals import ApprovalKind, Hold
from sparecode_node.domain.outcomes import plural
from sparecode_node.domain.policy import DAY_MS, HOUR_MS
from sparecode_node.statemachine.applying import Applying
from sparecode_node.statemachine.commands.agents import DenyCertificate, UpdateAgent
from sparecode_node.statemachine.commands.emergency_access import (
    IssueFixedTokencode,
    IssueTokencodesInBulk,
    SaveEmergencyAccess,
)
from sparecode_node.statemachine.commands.users import UnlockUser
from sparecode_node.statemachine.feature_level import ALLOWANCES
from sparecode_node.statemachine.tables import allowance_counts
from sparecode_node.statemachine.tables import users as user_tables
from sparecode_node.statemachine.tables.allowance_counts import Allowance, AllowanceUse

ISSUES = SaveEmergencyAccess | IssueFixedTokencode | IssueTokencodesInBulk
"""The commands that issue a set."""


def use_of(applying: Applying) -> AllowanceUse | None:
    """
    Return the allowance that the command uses if it needs no approval; None: none.

    Ask before the command is decided: unlocking a user without failures uses none.
    """
    if applying.feature_level < ALLOWANCES:
        return None
    command = applying.call.command
    if isinstance(command, ISSUES):
        return AllowanceUse(Allowance.ISSUE, applying.acting_administrator.name)
    if isinstance(command, UnlockUser):
        user = user_tables.find_user_by_name(applying.db, command.name_key)
        if user is not None and user_tables.find_lockouts(applying.db, user.user_id):
            return AllowanceUse(Allowance.UNLOCK, user.user_id)
    if isinstance(command, DenyCertificate | UpdateAgent):
        return AllowanceUse(Allowance.RESTRICT, applying.acting_administrator.name)
    return None


def count(applying: Applying, use: AllowanceUse | None) -> None:
    """Count what was done without an approval (P3a), or perhaps a password (P7)."""
    if use is not None:
        allowance_counts.add(applying.db, use, applying.now_ms)


def hold_needed(applying: Applying) -> Hold | None:
    """Return the hold of a command that exceeds an allowance; None: it does not."""
    use, command = use_of(applying), applying.call.command
    exceeded = _exceeded(applying, use) if use is not None else ""
    if not exceeded:
        return None
    if isinstance(command, UnlockUser):
        words = f"an unlock beyond the user's allowance of {exceeded}"
        return Hold(ApprovalKind.CHANGE, words)
    words = f"codes beyond the administrator's allowance of {exceeded}"
    serials = (command.serial,) if isinstance(command, ISSUES) else ()
    return Hold(ApprovalKind.ISSUE, words, serials)


def _exceeded(applying: Applying, use: AllowanceUse) -> str:
    """Return the allowance that one more use exceeds, in words; empty: none."""
    policy = applying.policy
    limits = {
        Allowance.ISSUE: (
            ("set", HOUR_MS, policy.issued_sets_per_hour, "hour"),
            ("set", DAY_MS, policy.issued_sets_per_day, "day"),
        ),
        Allowance.UNLOCK: (("unlock", DAY_MS, policy.unlocks_per_day, "day"),),
    }
    for noun, span_ms, most, span in limits[use.allowance]:
        uses = allowance_counts.uses_within(applying.db, use, applying.now_ms, span_ms)
        if uses >= most:
            return f"{plural(most, noun)} within one {span}"
    return ""
