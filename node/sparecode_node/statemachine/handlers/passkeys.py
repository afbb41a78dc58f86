# SPDX-License-Identifier: Apache-2.0
"""Handlers of administrators' passkeys: register, use once, remove (P8)."""

from sparecode_node.domain.administrators import Administrator
from sparecode_node.domain.outcomes import Reason, Rejected
from sparecode_node.domain.passkeys import (
    PASSKEYS_MAX,
    Passkey,
    PasskeyAnswer,
    ShownFactor,
)
from sparecode_node.domain.policy import FactorRule
from sparecode_node.statemachine.applying import Applying
from sparecode_node.statemachine.commands.second_factors import (
    RegisterPasskey,
    RemovePasskey,
)
from sparecode_node.statemachine.handlers.second_factors import record_factor
from sparecode_node.statemachine.tables import passkeys as tables


def register_passkey(applying: Applying, command: RegisterPasskey) -> Rejected | None:
    """Apply `RegisterPasskey`."""
    administrator = applying.acting_administrator
    answer = command.answer
    if administrator.name != command.name:
        return Rejected(
            Reason.ADMINISTRATOR_UNKNOWN,
            "you can register only your own passkeys",
            "name",
        )
    if administrator.passkeys >= PASSKEYS_MAX:
        return Rejected(
            Reason.PASSKEY_LIMIT,
            f"an administrator has at most {PASSKEYS_MAX} passkeys: remove one first",
        )
    if command.domain != applying.policy.passkey_domain:
        return Rejected(
            Reason.PASSKEY_REFUSED,
            "the policy's passkey_domain has changed: register the passkey again",
        )
    if not tables.consume_challenge(applying.db, answer, applying.now_ms):
        return Rejected(
            Reason.PASSKEY_REFUSED,
            "the registration took too long, or was sent twice: register the passkey "
            "again",
        )
    if tables.find(applying.db, answer.credential_id) is not None:
        return Rejected(Reason.PASSKEY_REFUSED, "this passkey is already registered")
    tables.save(
        applying.db,
        Passkey(
            credential_id=answer.credential_id,
            administrator=administrator.name,
            label=command.label,
            public_key=command.public_key,
            sign_count=answer.sign_count,
            added_at_ms=applying.now_ms,
        ),
    )
    record_factor(applying, ShownFactor.PASSKEY)
    applying.detail = f"passkey {command.label}"
    return None


def use_passkey(
    applying: Applying, administrator: Administrator, answer: PasskeyAnswer
) -> bool:
    """Use a passkey of the administrator, and consume the challenge (P8)."""
    passkey = tables.find(applying.db, answer.credential_id)
    if passkey is None or passkey.administrator != administrator.name:
        return False
    if not tables.consume_challenge(applying.db, answer, applying.now_ms):
        return False
    used = passkey.used(answer.sign_count, applying.now_ms)
    if used is None:
        applying.detail = (
            f"the count of passkey {passkey.label} did not grow: it may be a copy"
        )
        return False
    tables.save(applying.db, used)
    return True


def remove_passkey(applying: Applying, command: RemovePasskey) -> Rejected | None:
    """Apply `RemovePasskey`."""
    administrator = applying.acting_administrator
    passkey = tables.find(applying.db, command.credential_id)
    if passkey is None or passkey.administrator != administrator.name:
        return Rejected(
            Reason.PASSKEY_UNKNOWN, "you have no such passkey", "credential_id"
        )
    needs_passkey = (
        applying.policy.administrators_second_factor == FactorRule.PASSKEY
        or administrator.second_factor is None
    )
    if administrator.passkeys == 1 and needs_passkey:
        return Rejected(
            Reason.SELF_SERVICE_FORBIDDEN,
            "you cannot remove your last second factor: another super administrator "
            "must do it",
        )
    tables.delete(applying.db, command.credential_id)
    applying.detail = f"passkey {passkey.label}"
    # Sessions that the removed device has opened end.
    applying.db.execute(
        "DELETE FROM sessions WHERE administrator = ? AND session_id != ?",
        (administrator.name, applying.call.session_id),
    )
    return None
