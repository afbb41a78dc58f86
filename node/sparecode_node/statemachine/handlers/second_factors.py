# SPDX-License-Identifier: Apache-2.0
"""Handlers of administrators' second factors: load, decide, save."""

from dataclasses import replace

from sparecode_node.domain.administrators import SecondFactor
from sparecode_node.domain.outcomes import Reason, Rejected
from sparecode_node.statemachine.applying import Applying
from sparecode_node.statemachine.commands.second_factors import (
    RemoveSecondFactor,
    SetSecondFactor,
)
from sparecode_node.statemachine.tables import administrators as administrator_tables


def set_second_factor(applying: Applying, command: SetSecondFactor) -> Rejected | None:
    """Apply `SetSecondFactor`."""
    administrator = applying.acting_administrator
    if administrator.name != command.name:
        return Rejected(
            Reason.ADMINISTRATOR_UNKNOWN,
            "you can set only your own second factor",
            "name",
        )
    if administrator.second_factor is not None:
        return Rejected(
            Reason.SECOND_FACTOR_SET,
            "you already have a second factor: another super administrator must remove "
            "it first",
        )
    if applying.now_ms >= command.draft_ends_at_ms:
        return Rejected(
            Reason.DRAFT_STALE, "the enrollment has expired: enroll again", "draft"
        )
    if not applying.keys.uses(command.key_id):
        return Rejected(Reason.STALE_PARAMETERS)
    if not command.moments:
        return Rejected(
            Reason.SECOND_FACTOR_NOT_CONFIRMED,
            "the code does not match the secret: check the clock of the device and try "
            "the next code",
            "code",
        )
    factor = SecondFactor(
        sealed_seed=command.sealed_seed,
        key_id=command.key_id,
        spent=max(command.moments),
    )
    administrator_tables.save_administrator(
        applying.db, replace(administrator, second_factor=factor)
    )
    # End the sessions that were opened with the password alone.
    applying.db.execute(
        "DELETE FROM sessions WHERE administrator = ? AND session_id != ?",
        (administrator.name, applying.call.session_id),
    )
    return None


def remove_second_factor(
    applying: Applying, command: RemoveSecondFactor
) -> Rejected | None:
    """Apply `RemoveSecondFactor`."""
    administrator = applying.acting_administrator
    if administrator.name == command.name:
        return Rejected(
            Reason.SELF_SERVICE_FORBIDDEN,
            "you cannot remove your own second factor: another super administrator "
            "must do it",
        )
    before = administrator_tables.find_administrator(applying.db, command.name)
    if before is None:
        return Rejected(
            Reason.ADMINISTRATOR_UNKNOWN,
            f"there is no administrator {command.name}",
            "name",
        )
    if before.second_factor is None:
        return Rejected(
            Reason.SECOND_FACTOR_NOT_SET, f"{command.name} has no second factor", "name"
        )
    administrator_tables.save_administrator(
        applying.db, replace(before, second_factor=None)
    )
    applying.db.execute("DELETE FROM sessions WHERE administrator = ?", (command.name,))
    return None
