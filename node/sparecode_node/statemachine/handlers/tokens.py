# SPDX-License-Identifier: Apache-2.0
"""Handlers that enroll tokens, assign them and set PINs: load, decide, save."""

from sparecode_node.domain.ids import Moment, TokenSerial
from sparecode_node.domain.outcomes import Reason, Rejected, plural
from sparecode_node.domain.pins import NewPin
from sparecode_node.domain.tokencodes import parameters_of, parameters_problem
from sparecode_node.domain.tokens import Token
from sparecode_node.statemachine.applying import Applying
from sparecode_node.statemachine.commands.tokens import AssignToken, EnrollToken, SetPin
from sparecode_node.statemachine.handlers.users import unknown_user
from sparecode_node.statemachine.results import Applied, Result
from sparecode_node.statemachine.tables import approvals as approval_tables
from sparecode_node.statemachine.tables import former as former_tables
from sparecode_node.statemachine.tables import tokens as token_tables
from sparecode_node.statemachine.tables import users as user_tables


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
    if caller is not None:
        approval_tables.note_pin(
            applying.db, token.serial, caller.name, applying.now_ms
        )


def enroll_token(applying: Applying, command: EnrollToken) -> Result:
    """Apply `EnrollToken`."""
    db = applying.db
    if token_tables.find_token(db, command.serial) is not None:
        return Rejected(
            Reason.TOKEN_EXISTS,
            f"token {command.serial} already exists",
            "serial",
        )
    if not applying.keys.uses(command.key_id):
        return Rejected(Reason.STALE_PARAMETERS)
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
        or not applying.keys.uses(command.key_id)
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
    note_pin(applying, token)
    raise_version(applying, token)
    return Applied(index=applying.index)
