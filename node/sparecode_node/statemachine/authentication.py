# SPDX-License-Identifier: Apache-2.0
"""`Authenticate`: load everything, judge, save everything, in one commit (A3)."""

import sqlite3

from sparecode_node.domain.agents import Certificate
from sparecode_node.domain.authentication import (
    Attempt,
    Judgement,
    judge,
    not_admitted,
)
from sparecode_node.domain.emergency_access import Use
from sparecode_node.domain.lockout import Factor
from sparecode_node.domain.outcomes import Reason, Rejected
from sparecode_node.domain.users import User
from sparecode_node.statemachine import agent_tables, code_tables, tables
from sparecode_node.statemachine.applying import Applying
from sparecode_node.statemachine.commands import Authenticate
from sparecode_node.statemachine.results import Authenticated, Decision, Result


def authenticate(applying: Applying, command: Authenticate) -> Result:
    """Apply `Authenticate`."""
    db = applying.db
    user = tables.find_user_by_tag(db, command.name_tag)
    if _stale(applying, command, user):
        return Rejected(Reason.STALE_PARAMETERS)
    attempt = _attempt(applying, command, user)
    judgement = judge(attempt)
    _save(applying, attempt, judgement)
    applying.reason = judgement.reason or ""
    applying.detail = _detail(command, judgement)
    applying.events += judgement.events
    return Authenticated(
        index=applying.index,
        decision=Decision.ACCEPTED if judgement.accepted else Decision.REFUSED,
        authentication_id=command.authentication_id,
    )


def no_longer_stands(applying: Applying, command: Authenticate) -> bool:
    """Say whether agent or user were disabled since a remembered `ACCEPTED` (Q2)."""
    db = applying.db
    user = tables.find_user_by_tag(db, command.name_tag)
    reason = not_admitted(
        agent_tables.find_agent(db, command.agent),
        user,
        certificate_denied=_certificate_denied(db, command),
        user_listed=_user_listed(db, command, user),
    )
    applying.reason = reason or ""
    applying.detail = "accepted before; asked again under the same request id"
    return reason is not None


def _stale(applying: Applying, command: Authenticate, user: User | None) -> bool:
    """Say whether the candidates were computed for another state than this one (T2)."""
    user_id, version = (user.user_id, user.auth_version) if user else ("", 0)
    return (
        command.user_id,
        command.auth_version,
        command.policy_version,
        command.key_id,
    ) != (user_id, version, applying.policy.version, applying.key_id)


def _attempt(applying: Applying, command: Authenticate, user: User | None) -> Attempt:
    db = applying.db
    tokens = tables.find_tokens_of(db, user.user_id) if user else []
    factor = Factor.EMERGENCY if command.lettered else Factor.TOKEN
    return Attempt(
        factor=factor,
        readings=command.readings,
        agent=agent_tables.find_agent(db, command.agent),
        certificate_denied=_certificate_denied(db, command),
        user_listed=_user_listed(db, command, user),
        user=user,
        tokens=tokens,
        sets={
            token.serial: code_tables.find_sets(db, token.serial) for token in tokens
        },
        lockouts=tables.find_lockouts(db, user.user_id) if user else {},
        policy=applying.policy,
        use=Use(
            at_ms=applying.now_ms,
            agent=command.agent,
            node_id=applying.call.node_id,
            index=applying.index,
        ),
    )


def _certificate_denied(db: sqlite3.Connection, command: Authenticate) -> bool:
    certificate = Certificate(
        fingerprint=command.certificate_fingerprint,
        serial_number=command.certificate_serial_number,
    )
    return agent_tables.certificate_denied(db, certificate)


def _user_listed(
    db: sqlite3.Connection, command: Authenticate, user: User | None
) -> bool:
    return user is not None and agent_tables.lists_user(db, command.agent, user.user_id)


def _save(applying: Applying, attempt: Attempt, judgement: Judgement) -> None:
    db, user = applying.db, attempt.user
    if user is None:
        return
    for factor, lockout in judgement.lockouts.items():
        tables.save_lockout(db, user.user_id, factor, lockout)
    before = {each.set_id: each for sets in attempt.sets.values() for each in sets}
    for after in judgement.sets:
        code_tables.update_set(db, before[after.set_id], after)
    if judgement.token is not None:
        tables.save_token(db, judgement.token)
    voided = any(
        each.voided and not before[each.set_id].voided for each in judgement.sets
    )
    if voided or _found(attempt, judgement):
        # A draft that was generated before must not be saved after this (I3).
        tables.save_user(db, user.changed())


def _found(attempt: Attempt, judgement: Judgement) -> bool:
    """Say whether a lost token is its owner's again by this."""
    lost = {token.serial for token in attempt.tokens if token.lost}
    return judgement.token is not None and judgement.token.serial in lost


def _detail(command: Authenticate, judgement: Judgement) -> str:
    parts = {
        "token": judgement.serial or "",
        "factor": "emergency" if command.lettered else "token",
        "client": command.client_address,
        "resource": command.resource,
    }
    return ", ".join(f"{name} {value}" for name, value in parts.items() if value)
