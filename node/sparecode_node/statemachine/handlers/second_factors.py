# SPDX-License-Identifier: Apache-2.0
"""Handlers of administrators' second factors: load, decide, save."""

from dataclasses import replace

from sparecode_node.domain.administrators import SecondFactor
from sparecode_node.domain.outcomes import Reason, Rejected
from sparecode_node.domain.passkeys import ShownFactor
from sparecode_node.statemachine.applying import Applying
from sparecode_node.statemachine.commands.second_factors import (
    RemoveSecondFactor,
    SetSecondFactor,
)
from sparecode_node.statemachine.handlers import keys
from sparecode_node.statemachine.tables import administrators as administrator_tables
from sparecode_node.statemachine.tables import passkeys as passkey_tables


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
    if not keys.takes(applying, command.key_id):
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
    record_factor(applying, ShownFactor.CODE)
    return None


def record_factor(applying: Applying, factor: ShownFactor) -> None:
    """Record the factor that the session has shown by setting it; end the others."""
    session_id = applying.call.session_id
    applying.db.execute(
        "UPDATE sessions SET factor = :factor "
        "WHERE session_id = :session_id AND factor != :best",
        {"factor": factor, "session_id": session_id, "best": ShownFactor.PASSKEY},
    )
    # They may have been opened with the password alone.
    applying.db.execute(
        "DELETE FROM sessions WHERE administrator = ? AND session_id != ?",
        (applying.acting_administrator.name, session_id),
    )


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
    if not before.has_second_factor:
        return Rejected(
            Reason.SECOND_FACTOR_NOT_SET, f"{command.name} has no second factor", "name"
        )
    administrator_tables.save_administrator(
        applying.db, replace(before, second_factor=None)
    )
    passkey_tables.delete_all(applying.db, command.name)
    applying.db.execute("DELETE FROM sessions WHERE administrator = ?", (command.name,))
    return None
