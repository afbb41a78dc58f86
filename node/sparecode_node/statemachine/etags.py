# SPDX-License-Identifier: Apache-2.0
"""
Refusals of changes to what has changed since the caller read it (P10).

One check for all commands with an etag, also when a change that waited is approved. Two
administrators at two nodes cannot both win: apply compares, in the order of the log.
"""

import sqlite3
from typing import TypeAlias, assert_never

from sparecode_node.domain.etags import ADMINISTRATOR, AGENT, CHANNEL, TOKEN, USER, etag
from sparecode_node.domain.outcomes import Reason, Rejected
from sparecode_node.domain.radius import radius_identity
from sparecode_node.statemachine import commands
from sparecode_node.statemachine.applying import Applying
from sparecode_node.statemachine.feature_level import ETAGS
from sparecode_node.statemachine.tables import agents, notices, radius, tokens, users
from sparecode_node.statemachine.tables.administrators import find_administrator

Conditional: TypeAlias = (
    commands.UpdateUser
    | commands.UpdateToken
    | commands.UpdateAdministrator
    | commands.UpdateAgent
    | commands.UpdateRadiusClient
    | commands.SaveChannel
)
"""Commands with an etag. A policy has its version instead."""

_OUTDATED = " has changed since it was read: read it again"


def refusal(applying: Applying) -> Rejected | None:
    """Refuse a command whose etag is not the present one. Unknown objects pass."""
    command, is_outdated = applying.call.command, False
    if isinstance(command, Conditional) and command.etag:
        is_outdated = _present(applying.db, command) not in ("", command.etag)
    elif isinstance(command, commands.UpdatePolicy) and applying.feature_level >= ETAGS:
        is_outdated = command.version != applying.policy.version
    return outdated(applying.target) if is_outdated else None


def outdated(target: str) -> Rejected:
    """Return the refusal of a change; `target_in` reads its words."""
    return Rejected(Reason.VERSION, f"{target}{_OUTDATED}", "etag")


def target_in(rejected: Rejected) -> str:
    """Return the target that `outdated` has named; empty: it is another refusal."""
    target, found, _ = rejected.detail.rpartition(_OUTDATED)
    return target if found and rejected.reason is Reason.VERSION else ""


def _present(db: sqlite3.Connection, command: Conditional) -> str:
    """Return the etag as a read would return it now; empty: there is no such object."""
    match command:
        case commands.UpdateUser():
            return etag(users.find_user_by_name(db, command.name_key), USER)
        case commands.UpdateToken():
            return etag(tokens.find_token(db, command.serial), TOKEN)
        case commands.UpdateAdministrator():
            person = find_administrator(db, command.name)
            return etag(person, ADMINISTRATOR, person and person.user_id)
        case commands.UpdateAgent():
            agent = agents.find_agent_by_name(db, command.name_key)
            told = agent and radius.find_attributes(db, agent.identity)
            return etag(agent, AGENT, told)
        case commands.UpdateRadiusClient():
            settings = radius.find_settings(db, radius_identity(command.name_key))
            return etag(settings, (), settings)
        case commands.SaveChannel():
            return etag(notices.find(db, command.channel), CHANNEL)
        case _ as never:
            assert_never(never)
