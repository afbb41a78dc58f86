# SPDX-License-Identifier: Apache-2.0
"""
What administrators know of tokens, and what they need an approval for (I10).

An administrator who saw or chose a token's seed or PIN, or who assigned the token, could
use it in its user's place. So another administrator must approve that they issue codes
for it, or make it usable. Nobody can have been harmed in the place of a new user:
the first token and its first PIN need no approval.
"""

from dataclasses import replace

from sparecode_node.domain.administrators import Administrator
from sparecode_node.domain.approvals import ApprovalKind, Hold
from sparecode_node.domain.ids import NO_KEY, AdministratorName, TokenSerial
from sparecode_node.domain.tokens import Token
from sparecode_node.domain.users import User
from sparecode_node.statemachine.applying import Applying
from sparecode_node.statemachine.commands.emergency_access import (
    DisableEmergencyAccess,
    IssueFixedTokencode,
    ReinstateToken,
    SaveEmergencyAccess,
)
from sparecode_node.statemachine.commands.pending import to_json
from sparecode_node.statemachine.commands.tokens import (
    AssignToken,
    ClearPin,
    EnableToken,
    ReplaceToken,
    SetPin,
    UpdateToken,
)
from sparecode_node.statemachine.feature_level import KNOWN_SECRETS
from sparecode_node.statemachine.tables import known_secrets as secret_tables
from sparecode_node.statemachine.tables import tokens as token_tables
from sparecode_node.statemachine.tables import users as user_tables
from sparecode_node.statemachine.tables.known_secrets import KnownSecret

TOKEN_CHANGES = (
    AssignToken,
    ReplaceToken,
    EnableToken,
    UpdateToken,
    ClearPin,
    SetPin,
    ReinstateToken,
    DisableEmergencyAccess,
)
"""Changes that may make a token usable."""

NEW_USER = 1
"""The `auth_version` of a user who never had a token."""

WORDS = {
    KnownSecret.SEED: "has seen its seed",
    KnownSecret.PIN: "has set or cleared its PIN",
    KnownSecret.ASSIGNMENT: "has assigned it",
    KnownSecret.FIRST_ASSIGNMENT: "has assigned it",
}


def hold_needed(applying: Applying, administrator: Administrator) -> Hold | None:
    """Return how the command must wait without a permit; None: it need not."""
    command = applying.call.command
    match command:
        case SaveEmergencyAccess() | IssueFixedTokencode():
            known = secret_tables.of(applying.db, command.serial, administrator.name)
            return (
                Hold(
                    ApprovalKind.ISSUE,
                    f"codes for token {command.serial}; {_words(administrator, known)}",
                    (command.serial,),
                )
                if known
                else None
            )
        case AssignToken():
            user = user_tables.find_user_by_name(applying.db, command.name_key)
            if user is None or is_new(applying, user):
                return None
            known = secret_tables.of(applying.db, command.serial, administrator.name)
            words = f"to {user.name_key}"
            if known:
                words += f"; {_words(administrator, known)}"
            return Hold(ApprovalKind.CHANGE, words, (command.serial,))
        case ReplaceToken():
            return Hold(
                ApprovalKind.TOKEN,
                f"by {command.replacement}",
                (command.serial, command.replacement),
                to_json(
                    replace(
                        command,
                        auth_version=0,
                        key_id=NO_KEY,
                        pin_verifier=b"",
                        sealed_pin=b"",
                    )
                ),
            )
        case DisableEmergencyAccess() if not command.reinstate_token:
            return None
        case (
            EnableToken()
            | UpdateToken()
            | ClearPin()
            | SetPin()
            | ReinstateToken()
            | DisableEmergencyAccess()
        ):
            return _use(applying, administrator, command)
    return None


def _use(
    applying: Applying,
    administrator: Administrator,
    command: EnableToken
    | UpdateToken
    | ClearPin
    | SetPin
    | ReinstateToken
    | DisableEmergencyAccess,
) -> Hold | None:
    """Return the hold of a change of a token whose seed or assignment is known."""
    token = token_tables.find_token(applying.db, command.serial)
    known = secret_tables.of(applying.db, command.serial, administrator.name)
    if (
        token is None
        or token.user_id is None
        or KnownSecret.FIRST_ASSIGNMENT in known
        or not known & {KnownSecret.SEED, KnownSecret.ASSIGNMENT}
        or (isinstance(command, UpdateToken) and _shortens(token, command))
    ):
        return None
    words = _words(administrator, known)
    if isinstance(command, SetPin):
        # The verifier belongs to one request; its author will make another.
        change = replace(
            command,
            verifier=b"",
            key_id=NO_KEY,
            policy_version=0,
            sealed_pin=b"",
            lettered=False,
        )
        return Hold(ApprovalKind.TOKEN, words, (command.serial,), to_json(change))
    return Hold(ApprovalKind.CHANGE, words, (command.serial,))


def _shortens(token: Token, command: UpdateToken) -> bool:
    """Return whether the change gives the token no later end."""
    if command.never_expires or command.expires_at_ms is None:
        return False
    end_ms = token.expires_at_ms
    return end_ms is None or command.expires_at_ms <= end_ms


def _words(administrator: Administrator, known: frozenset[KnownSecret]) -> str:
    reasons = dict.fromkeys(WORDS[each] for each in KnownSecret if each in known)
    return f"{administrator.name} {' and '.join(reasons)}"


def is_new(applying: Applying, user: User) -> bool:
    """Return whether no user with this name ever had a token."""
    return user.auth_version == NEW_USER and not secret_tables.is_former(
        applying.db, user.name_key
    )


def basis(applying: Applying) -> str:
    """Return what a request about a token relies on and does not name (P3)."""
    command = applying.call.command
    name = applying.acting_administrator.name
    facts = []
    if isinstance(command, AssignToken):
        user = user_tables.find_user_by_name(applying.db, command.name_key)
        facts.append(f"for {user.user_id if user else ''}")
    for serial in _serials(command):
        token = token_tables.find_token(applying.db, serial)
        known = secret_tables.of(applying.db, serial, name)
        facts.append(
            f"{serial} of {(token.user_id if token else None) or ''}: "
            + " ".join(each for each in KnownSecret if each in known)
        )
    return "; ".join(facts)


def _serials(command: object) -> list[TokenSerial]:
    return [
        getattr(command, field)
        for field in ("serial", "replacement")
        if hasattr(command, field)
    ]


def confirm(applying: Applying, author: AdministratorName) -> None:
    """Forget what the author knows: another administrator has approved the change."""
    command = applying.call.command
    # A PIN that the author has just chosen, cleared or carried over is still known.
    changes_pin = isinstance(command, SetPin | ClearPin | ReplaceToken)
    keep = KnownSecret.PIN if changes_pin else None
    for serial in _serials(command):
        secret_tables.confirm(applying.db, serial, author, keep=keep)


def note(applying: Applying, serial: TokenSerial, secret: KnownSecret) -> None:
    """Record what the calling administrator now knows of a token."""
    caller = applying.administrator
    if caller is not None and applying.feature_level >= KNOWN_SECRETS:
        secret_tables.add(applying.db, serial, caller.name, secret)


def note_assignment(applying: Applying, serial: TokenSerial, user: User) -> None:
    """Record that the calling administrator has assigned a token to the user."""
    first = is_new(applying, user)
    note(
        applying,
        serial,
        KnownSecret.FIRST_ASSIGNMENT if first else KnownSecret.ASSIGNMENT,
    )


def forget_user(applying: Applying, user: User) -> None:
    """Record the name of a deleted user who had a token."""
    if applying.feature_level >= KNOWN_SECRETS and user.auth_version != NEW_USER:
        secret_tables.remember_name(applying.db, user.name_key, applying.now_ms)
