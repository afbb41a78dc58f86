# SPDX-License-Identifier: Apache-2.0
"""Handler of alarms: a user says that it was not them (N9)."""

from sparecode_node.domain.alarms import Alarm
from sparecode_node.domain.outcomes import Reason, Rejected, plural
from sparecode_node.statemachine.applying import Applying
from sparecode_node.statemachine.commands.alarms import RaiseAlarm
from sparecode_node.statemachine.handlers.emergency_access import void_live
from sparecode_node.statemachine.tables import alarms as tables
from sparecode_node.statemachine.tables import tokens as token_tables
from sparecode_node.statemachine.tables import users as user_tables


def raise_alarm(applying: Applying, command: RaiseAlarm) -> Rejected | None:
    """
    Apply `RaiseAlarm`. A repeated one decides nothing, and is no event.

    If the policy says so, the user's live codes become void. No token is enabled again,
    and lost ones stay lost: the alarm may come from a stranger who reads the mail.
    """
    db = applying.db
    user = user_tables.find_user(db, command.user_id)
    if user is None or tables.is_raised(db, command.user_id, command.notice_id):
        return Rejected(Reason.STALE_PARAMETERS)
    tables.save(
        db,
        Alarm(
            user_id=command.user_id,
            notice_id=command.notice_id,
            kind=command.kind,
            told_at_ms=command.told_at_ms,
            raised_at_ms=applying.now_ms,
        ),
    )
    applying.detail = f"{command.kind}, notice {command.notice_id}"
    if not applying.policy.alarm_ends_codes:
        return None
    voided = sum(
        void_live(applying, each, "the user raised an alarm")
        for each in token_tables.find_tokens_of(db, command.user_id)
    )
    if voided:
        user_tables.save_user(db, user.changed())
        applying.detail += f", {plural(voided, 'code')} voided"
    return None
