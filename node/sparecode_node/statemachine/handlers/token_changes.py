# SPDX-License-Identifier: Apache-2.0
"""What each change of a token does: find it, raise the user's version, record the PIN."""

from sparecode_node.domain.ids import TokenSerial
from sparecode_node.domain.outcomes import Reason, Rejected
from sparecode_node.domain.tokens import Token
from sparecode_node.statemachine.applying import Applying
from sparecode_node.statemachine.feature_level import (
    ALLOWANCES,
    KNOWN_SECRETS,
)
from sparecode_node.statemachine.handlers import known_secrets
from sparecode_node.statemachine.tables import approvals as approval_tables
from sparecode_node.statemachine.tables import users as user_tables
from sparecode_node.statemachine.tables.known_secrets import KnownSecret


def unknown_token(serial: TokenSerial) -> Rejected:
    """Return the refusal of a serial that no token has."""
    return Rejected(Reason.TOKEN_UNKNOWN, f"there is no token {serial}", "serial")


def raise_version(applying: Applying, token: Token) -> None:
    """Raise the `auth_version` of the token's user: earlier candidates become stale."""
    user = (
        None
        if token.user_id is None
        else user_tables.find_user(applying.db, token.user_id)
    )
    if user is not None:
        user_tables.save_user(applying.db, user.changed())


def note_pin(applying: Applying, token: Token) -> None:
    """Record that an administrator has set or cleared a PIN (I10)."""
    caller = applying.administrator
    if applying.feature_level >= KNOWN_SECRETS:
        known_secrets.note(applying, token.serial, KnownSecret.PIN)
    elif caller is not None:
        approval_tables.note_pin(
            applying.db, token.serial, caller.name, applying.now_ms
        )
    if caller is not None and applying.feature_level >= ALLOWANCES:
        approval_tables.use_up(applying.db, caller.name, token.serial)
