# SPDX-License-Identifier: Apache-2.0
"""
Handlers of tokens, from enrollment to deletion: load, decide, save.

A command that makes a token unusable voids its emergency codes in the same commit (R3)
and never clears its lost mark (R2). Every change of an assigned token makes drafts and
candidates of its user stale (T2, I3).
"""

from dataclasses import replace

from sparecode_node.domain import replacement
from sparecode_node.domain.ids import Moment, TokenSerial
from sparecode_node.domain.outcomes import Reason, Rejected, plural
from sparecode_node.domain.personal_kinds import PersonalKind
from sparecode_node.domain.personal_notices import Told
from sparecode_node.domain.pins import NewPin
from sparecode_node.domain.tokencodes import parameters_of, parameters_problem
from sparecode_node.domain.tokens import Token
from sparecode_node.statemachine.applying import Applying
from sparecode_node.statemachine.commands.tokens import (
    AssignToken,
    ClearPin,
    DeleteToken,
    DisableToken,
    EnableToken,
    EnrollToken,
    ReplaceToken,
    ResynchronizeToken,
    SetPin,
    UnassignToken,
    UpdateToken,
)
from sparecode_node.statemachine.feature_level import FORMER_CODES, UNIQUE_SEEDS
from sparecode_node.statemachine.handlers import keys, known_secrets, set_ends
from sparecode_node.statemachine.handlers.emergency_access import void_live
from sparecode_node.statemachine.handlers.token_changes import (
    note_pin,
    raise_version,
    unknown_token,
)
from sparecode_node.statemachine.handlers.users import unknown_user
from sparecode_node.statemachine.results import Applied, Result
from sparecode_node.statemachine.tables import approvals as approval_tables
from sparecode_node.statemachine.tables import former as former_tables
from sparecode_node.statemachine.tables import known_secrets as secret_tables
from sparecode_node.statemachine.tables import seed_fingerprints as fingerprint_tables
from sparecode_node.statemachine.tables import tokens as token_tables
from sparecode_node.statemachine.tables import users as user_tables
from sparecode_node.statemachine.tables.known_secrets import KnownSecret


def enroll_token(applying: Applying, command: EnrollToken) -> Result:
    """Apply `EnrollToken`."""
    db = applying.db
    if token_tables.find_token(db, command.serial) is not None:
        return Rejected(
            Reason.TOKEN_EXISTS,
            f"token {command.serial} already exists",
            "serial",
        )
    if not keys.takes(applying, command.key_id):
        return Rejected(Reason.STALE_PARAMETERS)
    fingerprints = {each.key_id: each.value for each in command.fingerprints}
    if applying.feature_level < UNIQUE_SEEDS:
        fingerprints = {}
    elif not all(each.key_id in fingerprints for each in applying.keys.in_use):
        return Rejected(Reason.STALE_PARAMETERS)
    other = fingerprint_tables.find_serial(db, fingerprints.values())
    if other is not None:
        return Rejected(Reason.SEED_EXISTS, f"token {other} has the same seed", "seed")
    parameters = parameters_of(
        command.serial,
        algorithm=command.algorithm,
        hash_name=command.hash_name,
        digits=command.digits,
        period_s=command.period_s,
    )
    problem = parameters_problem(parameters, command.counter)
    if problem:
        return Rejected(Reason.TOKEN_FORMAT, problem)
    before = former_tables.spent_before(
        db,
        parameters,
        serial=command.serial,
        sealed_seed=command.sealed_seed,
        key_id=command.key_id,
        fingerprints=tuple(fingerprints.values()),
    )
    token_tables.save_token(
        db,
        Token(
            serial=command.serial,
            parameters=parameters,
            sealed_seed=command.sealed_seed,
            key_id=command.key_id,
            pin_rule=command.pin_rule,
            expires_at_ms=command.expires_at_ms,
            # Everything before the next counter counts as spent.
            spent=max(Moment(command.counter - 1), before),
        ),
    )
    known_secrets.note(applying, command.serial, KnownSecret.SEED)
    if fingerprints:
        fingerprint_tables.save(
            db, command.serial, command.key_id, fingerprints[command.key_id]
        )
    return Applied(index=applying.index)


def assign_token(applying: Applying, command: AssignToken) -> Result:
    """Apply `AssignToken`."""
    db = applying.db
    applying.detail = f"to {command.name_key}"
    token = token_tables.find_token(db, command.serial)
    if token is None:
        return unknown_token(command.serial)
    user = user_tables.find_user_by_name(db, command.name_key)
    if user is None:
        return unknown_user(command.name_key)
    most = applying.policy.tokens_per_user_max
    if len(token_tables.find_tokens_of(db, user.user_id)) >= most:
        return Rejected(
            Reason.TOKEN_LIMIT,
            f"{user.username} already has {plural(most, 'token')}, the maximum for one user",
            "username",
        )
    assigned = token.assigned(user.user_id)
    if isinstance(assigned, Rejected):
        return assigned
    token_tables.save_token(db, assigned)
    known_secrets.note_assignment(applying, token.serial, user)
    user_tables.save_user(db, user.changed())
    return Applied(index=applying.index)


def set_pin(applying: Applying, command: SetPin) -> Result:
    """
    Apply `SetPin`.

    The verifier was made with the salt of one user under one policy (T2).
    """
    db = applying.db
    token = token_tables.find_token(db, command.serial)
    if token is None:
        return unknown_token(command.serial)
    if token.user_id is None:
        return Rejected(
            Reason.TOKEN_NOT_ASSIGNED,
            f"token {command.serial} is not assigned; assign it first",
            "serial",
        )
    if (
        token.user_id != command.user_id
        or applying.policy.version != command.policy_version
        or not keys.takes(applying, command.key_id)
    ):
        return Rejected(Reason.STALE_PARAMETERS)
    with_pin = token.with_pin(
        NewPin(
            verifier=command.verifier,
            key_id=command.key_id,
            sealed=command.sealed_pin,
            lettered=command.lettered,
        )
    )
    if isinstance(with_pin, Rejected):
        return with_pin
    token_tables.save_token(db, with_pin)
    secret_tables.end_first(db, token.serial)
    note_pin(applying, token)
    raise_version(applying, token)
    return Applied(index=applying.index)


def unassign_token(applying: Applying, command: UnassignToken) -> Rejected | None:
    """Apply `UnassignToken`."""
    token = _find(applying, command.serial)
    if isinstance(token, Rejected):
        return token
    unassigned = token.unassigned()
    if isinstance(unassigned, Rejected):
        return unassigned
    applying.detail = _from_user(applying, token)
    void_live(applying, token, "token unassigned")
    secret_tables.keep_seed(applying.db, token.serial)
    if token.user_id is not None:
        former_tables.remember_sets(applying.db, token.serial, token.user_id)
    _save(applying, token, unassigned)
    _retire_surplus(applying, token)
    _tell_unassigned(applying, token)
    return None


def _tell_unassigned(applying: Applying, token: Token) -> None:
    """Tell the former user of *token*, which the event does not find any more (N8)."""
    if token.user_id is not None:
        applying.told.append(
            Told(kind=PersonalKind.TOKEN_UNASSIGNED, user_id=token.user_id)
        )


def _retire_surplus(applying: Applying, token: Token) -> None:
    """Let the oldest sets of a former user of *token* become tags (A5)."""
    if token.user_id is not None and applying.feature_level >= FORMER_CODES:
        former_tables.retire_surplus(applying.db, token.user_id)


def enable_token(applying: Applying, command: EnableToken) -> Rejected | None:
    """Apply `EnableToken`."""
    token = _find(applying, command.serial)
    if isinstance(token, Rejected):
        return token
    _save(applying, token, replace(token, enabled=True))
    return None


def disable_token(applying: Applying, command: DisableToken) -> Rejected | None:
    """Apply `DisableToken`."""
    token = _find(applying, command.serial)
    if isinstance(token, Rejected):
        return token
    void_live(applying, token, "token disabled")
    _save(applying, token, replace(token, enabled=False))
    return None


def update_token(applying: Applying, command: UpdateToken) -> Rejected | None:
    """Apply `UpdateToken`: change its end, which also limits its codes (I7)."""
    token = _find(applying, command.serial)
    if isinstance(token, Rejected):
        return token
    updated = token
    if command.never_expires:
        applying.detail = "never expires"
        updated = replace(token, expires_at_ms=None)
    elif command.expires_at_ms is not None:
        applying.detail = f"expires at {command.expires_at_ms} ms"
        updated = replace(token, expires_at_ms=command.expires_at_ms)
    _save(applying, token, updated)
    set_ends.follow_token(applying, updated, token)
    return None


def clear_pin(applying: Applying, command: ClearPin) -> Rejected | None:
    """Apply `ClearPin`."""
    token = _find(applying, command.serial)
    if isinstance(token, Rejected):
        return token
    cleared = token.without_pin()
    if isinstance(cleared, Rejected):
        return cleared
    note_pin(applying, token)
    _save(applying, token, cleared)
    return None


def delete_token(applying: Applying, command: DeleteToken) -> Rejected | None:
    """Apply `DeleteToken`."""
    token = _find(applying, command.serial)
    if isinstance(token, Rejected):
        return token
    applying.detail = _from_user(applying, token)
    void_live(applying, token, "token deleted")
    raise_version(applying, token)
    former_tables.remember_spent(applying.db, token)
    former_tables.keep_sets(
        applying.db, token, tagged=applying.feature_level >= FORMER_CODES
    )
    token_tables.delete_token(applying.db, token.serial)
    _tell_unassigned(applying, token)
    return None


def replace_token(applying: Applying, command: ReplaceToken) -> Rejected | None:
    """Apply `ReplaceToken`."""
    old = _find(applying, command.serial)
    if isinstance(old, Rejected):
        return old
    applying.detail = f"by {command.replacement}" + (
        ", with its PIN" if command.keep_pin else ""
    )
    new = token_tables.find_token(applying.db, command.replacement)
    if new is None:
        return replace(unknown_token(command.replacement), field=replacement.NEW)
    if command.keep_pin and _stale(applying, old, command):
        return Rejected(Reason.STALE_PARAMETERS)
    pin = NewPin(
        verifier=command.pin_verifier,
        key_id=command.key_id,
        sealed=command.sealed_pin,
        lettered=old.pin_lettered,
    )
    replaced = replacement.replace_token(
        old, new, pin if command.keep_pin else None, applying.now_ms
    )
    if isinstance(replaced, Rejected):
        return replaced
    void_live(applying, old, "token replaced")
    if old.user_id is not None:
        former_tables.remember_sets(applying.db, old.serial, old.user_id)
    token_tables.save_token(applying.db, replaced.old)
    token_tables.save_token(applying.db, replaced.new)
    if command.keep_pin:
        approval_tables.carry_pin(applying.db, old.serial, new.serial)
        secret_tables.carry_pin(applying.db, old.serial, new.serial)
    secret_tables.keep_seed(applying.db, old.serial)
    known_secrets.note(applying, new.serial, KnownSecret.ASSIGNMENT)
    _tell_unassigned(applying, old)
    if old.user_id is not None:
        applying.told.append(
            Told(
                kind=PersonalKind.TOKEN_ASSIGNED,
                user_id=old.user_id,
                target=new.serial,
            )
        )
    raise_version(applying, old)
    _retire_surplus(applying, old)
    return None


def resynchronize_token(
    applying: Applying, command: ResynchronizeToken
) -> Rejected | None:
    """
    Apply `ResynchronizeToken`: spend both tokencodes.

    Like other spending, this leaves drafts and candidates valid.
    """
    token = _find(applying, command.serial)
    if isinstance(token, Rejected):
        return token
    after = token.resynchronized(command.moments, applying.now_ms)
    if isinstance(after, Rejected):
        return after
    if after.parameters.by_time:
        applying.detail = f"drift {after.drift} steps"
    else:
        applying.detail = f"counter {after.spent}"
    token_tables.save_token(applying.db, after)
    return None


def _find(applying: Applying, serial: TokenSerial) -> Token | Rejected:
    return token_tables.find_token(applying.db, serial) or unknown_token(serial)


def _save(applying: Applying, before: Token, after: Token) -> None:
    token_tables.save_token(applying.db, after)
    raise_version(applying, before)


def _stale(applying: Applying, old: Token, command: ReplaceToken) -> bool:
    """Return whether the carried verifier was made for another state (T2)."""
    if not keys.takes(applying, command.key_id):
        return True
    user = (
        None if old.user_id is None else user_tables.find_user(applying.db, old.user_id)
    )
    user_id, version = (user.user_id, user.auth_version) if user else ("", 0)
    return (command.user_id, command.auth_version) != (user_id, version)


def _from_user(applying: Applying, token: Token) -> str:
    """Return the token's user in words, for the audit log."""
    user = (
        None
        if token.user_id is None
        else user_tables.find_user(applying.db, token.user_id)
    )
    return f"from {user.name_key}" if user else ""
