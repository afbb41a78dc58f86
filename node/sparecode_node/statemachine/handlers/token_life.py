# SPDX-License-Identifier: Apache-2.0
"""
What happens to a token between assignment and end: load, decide, save.

Whatever makes a token unusable by hand voids its emergency codes in the same
commit (R3), and never clears its lost mark (R2). Every change here makes drafts
and candidates of its user stale (T2, I3).
"""

from dataclasses import replace
from typing import assert_never

from sparecode_node.domain.outcomes import Reason, Rejected
from sparecode_node.domain.pins import NewPin
from sparecode_node.domain.replacing import NEW, replace_token
from sparecode_node.domain.tokens import Token
from sparecode_node.statemachine import tables
from sparecode_node.statemachine.applying import Applying
from sparecode_node.statemachine.commands.tokens import (
    ClearPin,
    DeleteToken,
    DisableToken,
    EnableToken,
    ReplaceToken,
    ResynchronizeToken,
    UnassignToken,
    UpdateToken,
)
from sparecode_node.statemachine.handlers.emergency_access import void_live
from sparecode_node.statemachine.handlers.tokens import (
    note_pin,
    raise_version,
    unknown_token,
)
from sparecode_node.statemachine.results import Applied, Result
from sparecode_node.statemachine.tables import approvals as approval_tables
from sparecode_node.statemachine.tables import former as former_tables

Change = UnassignToken | EnableToken | DisableToken | UpdateToken | ClearPin
"""What changes one token, and nothing else but its codes."""

TokenLife = Change | DeleteToken | ReplaceToken | ResynchronizeToken


def change_token(applying: Applying, command: TokenLife) -> Result:
    """Apply one of these commands."""
    token = tables.find_token(applying.db, command.serial)
    if token is None:
        return unknown_token(command.serial)
    match command:
        case DeleteToken():
            return _delete(applying, token, command)
        case ReplaceToken():
            return _replace(applying, token, command)
        case ResynchronizeToken():
            return _resynchronize(applying, token, command)
    changed = _changed(applying, token, command)
    if isinstance(changed, Rejected):
        return changed
    tables.save_token(applying.db, changed)
    raise_version(applying, token)
    return Applied(index=applying.index)


def _changed(applying: Applying, token: Token, command: Change) -> Token | Rejected:
    match command:
        case UnassignToken():
            return _unassigned(applying, token, command)
        case EnableToken():
            return replace(token, enabled=True)
        case DisableToken():
            void_live(applying, token, "token disabled")
            return replace(token, enabled=False)
        case UpdateToken():
            return _updated(applying, token, command)
        case ClearPin():
            note_pin(applying, token)
            return token.without_pin()
        case _ as never:
            assert_never(never)


def _unassigned(
    applying: Applying, token: Token, command: UnassignToken
) -> Token | Rejected:
    unassigned = token.unassigned()
    if isinstance(unassigned, Rejected):
        return unassigned
    applying.detail = _from_user(applying, token)
    void_live(applying, token, "token unassigned")
    if command.remember_sets and token.user_id is not None:
        former_tables.remember_sets(applying.db, token.serial, token.user_id)
    return unassigned


def _updated(applying: Applying, token: Token, command: UpdateToken) -> Token:
    """Return the token with another end; that of its codes follows from it (I7)."""
    if command.never_expires:
        applying.detail = "never expires"
        return replace(token, expires_at_ms=None)
    if command.expires_at_ms is not None:
        applying.detail = f"expires at {command.expires_at_ms} ms"
        return replace(token, expires_at_ms=command.expires_at_ms)
    return token


def _delete(applying: Applying, token: Token, command: DeleteToken) -> Result:
    applying.detail = _from_user(applying, token)
    void_live(applying, token, "token deleted")
    raise_version(applying, token)
    if command.remember_spent:
        former_tables.remember_spent(applying.db, token)
    if command.remember_sets:
        former_tables.keep_sets(applying.db, token)
    tables.delete_token(applying.db, token.serial)
    return Applied(index=applying.index)


def _replace(applying: Applying, old: Token, command: ReplaceToken) -> Result:
    applying.detail = f"by {command.replacement}" + (
        ", with its PIN" if command.keep_pin else ""
    )
    new = tables.find_token(applying.db, command.replacement)
    if new is None:
        return replace(unknown_token(command.replacement), field=NEW)
    if command.keep_pin and _stale(applying, old, command):
        return Rejected(Reason.STALE_PARAMETERS)
    pin = NewPin(
        verifier=command.pin_verifier,
        key_id=command.key_id,
        sealed=command.sealed_pin,
        lettered=old.pin_lettered,
    )
    replaced = replace_token(
        old, new, pin if command.keep_pin else None, applying.now_ms
    )
    if isinstance(replaced, Rejected):
        return replaced
    void_live(applying, old, "token replaced")
    if command.remember_sets and old.user_id is not None:
        former_tables.remember_sets(applying.db, old.serial, old.user_id)
    tables.save_token(applying.db, replaced.old)
    tables.save_token(applying.db, replaced.new)
    if command.keep_pin:
        approval_tables.carry_pin(applying.db, old.serial, new.serial)
    raise_version(applying, old)
    return Applied(index=applying.index)


def _resynchronize(
    applying: Applying, token: Token, command: ResynchronizeToken
) -> Result:
    """Spend both tokencodes; like other spending, that makes nobody stale."""
    known = token.resynchronized(command.moments, applying.now_ms)
    if isinstance(known, Rejected):
        return known
    if known.parameters.by_time:
        applying.detail = f"drift {known.drift} steps"
    else:
        applying.detail = f"counter {known.spent}"
    tables.save_token(applying.db, known)
    return Applied(index=applying.index)


def _stale(applying: Applying, old: Token, command: ReplaceToken) -> bool:
    """Say whether the carried verifier was made of another state than this (T2)."""
    if not applying.keys.uses(command.key_id):
        return True
    user = None if old.user_id is None else tables.find_user(applying.db, old.user_id)
    user_id, version = (user.user_id, user.auth_version) if user else ("", 0)
    return (command.user_id, command.auth_version) != (user_id, version)


def _from_user(applying: Applying, token: Token) -> str:
    """Say for the audit log whose token it was."""
    user = (
        None if token.user_id is None else tables.find_user(applying.db, token.user_id)
    )
    return f"from {user.name_key}" if user else ""
