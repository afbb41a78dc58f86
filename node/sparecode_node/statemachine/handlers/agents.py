# SPDX-License-Identifier: Apache-2.0
"""
Handlers of agents and their certificates: load, decide, save.

Apply checks the agent and the deny list for every passcode. So a change takes effect
with its commit, on every node and every open connection (A4).
"""

import hashlib
from collections.abc import Sequence
from dataclasses import replace

from sparecode_node.domain.agents import ALLOWED_USERS_MAX, GROUPS_MAX, Agent
from sparecode_node.domain.ids import AgentIdentity, NameKey, UserId
from sparecode_node.domain.outcomes import Reason, Rejected
from sparecode_node.statemachine.applying import Applying
from sparecode_node.statemachine.commands.agents import (
    AllowCertificate,
    DenyCertificate,
    RegisterAgent,
    RemoveAgent,
    UpdateAgent,
)
from sparecode_node.statemachine.commands.radius import RegisterRadiusClient
from sparecode_node.statemachine.feature_level import BRIEF_EVENTS
from sparecode_node.statemachine.handlers.users import unknown_user
from sparecode_node.statemachine.results import Applied, Result
from sparecode_node.statemachine.tables import agent_keys as key_tables
from sparecode_node.statemachine.tables import agents as agent_tables
from sparecode_node.statemachine.tables import groups as group_tables
from sparecode_node.statemachine.tables import radius as radius_tables
from sparecode_node.statemachine.tables import users as user_tables

NAMES_SHOWN = 20
"""Users of an allow list that one event names."""


def register_agent(applying: Applying, command: RegisterAgent) -> Result:
    """Apply `RegisterAgent`."""
    db = applying.db
    applying.detail = f"{command.identity}, protects {command.protects}"
    if command.restricted:
        applying.detail += ", admits its allow list"
    if agent_tables.find_agent(db, command.identity) is not None:
        return Rejected(
            Reason.AGENT_EXISTS,
            f"an agent with the certificate identity {command.identity} already exists",
            "certificate_identity",
        )
    if agent_tables.find_agent_by_name(db, command.name_key) is not None:
        return Rejected(
            Reason.AGENT_EXISTS, f"agent {command.name} already exists", "name"
        )
    agent = Agent(
        name=command.name,
        identity=command.identity,
        protects=command.protects,
        restricted=command.restricted,
    )
    agent_tables.save_agent(db, agent, command.name_key)
    attributes = change_attributes(applying, agent.identity, command)
    applying.detail = ", ".join([applying.detail, *attributes])
    return Applied(index=applying.index)


def change_attributes(
    applying: Applying,
    identity: AgentIdentity,
    command: RegisterAgent | UpdateAgent | RegisterRadiusClient,
) -> list[str]:
    """Save the attributes of an Access-Accept, and return the changes in words."""
    before = radius_tables.find_attributes(applying.db, identity)
    after = before.updated(
        filter_id=command.filter_id,
        class_attribute=command.class_attribute,
        session_timeout_s=command.session_timeout_s,
    )
    radius_tables.save_attributes(applying.db, identity, after)
    return before.changes_to(after)


def _find(applying: Applying, name_key: NameKey) -> Agent | Rejected:
    agent = agent_tables.find_agent_by_name(applying.db, name_key)
    if agent is None:
        return Rejected(Reason.AGENT_UNKNOWN, f"there is no agent {name_key}", "name")
    return agent


def update_agent(applying: Applying, command: UpdateAgent) -> Rejected | None:
    """Apply `UpdateAgent`."""
    agent = _find(applying, command.name_key)
    if isinstance(agent, Rejected):
        return agent
    changes = []
    if command.protects is not None:
        agent = replace(agent, protects=command.protects)
        changes.append(f"protects {command.protects}")
    if command.enabled is not None:
        agent = replace(agent, enabled=command.enabled)
        changes.append("enabled" if command.enabled else "disabled")
    if command.restricted is not None:
        agent = replace(agent, restricted=command.restricted)
        changes.append(
            "admits its allow list" if command.restricted else "admits all users"
        )
    agent_tables.save_agent(applying.db, agent, command.name_key)
    changes += change_attributes(applying, agent.identity, command)
    changes += _named("allows", command.add_users, applying.feature_level)
    changes += _named("no longer allows", command.remove_users, applying.feature_level)
    changes += [f"allows group {group}" for group in command.add_groups]
    changes += [f"no longer allows group {group}" for group in command.remove_groups]
    if command.end_keys:
        key_tables.end_keys(
            applying.db, agent.identity, now_ms=applying.now_ms, overlap_ms=0
        )
        changes.append("no bearer key works")
    applying.detail = ", ".join(changes)
    return _change_allow_list(applying, agent, command)


def _named(verb: str, names: Sequence[NameKey], level: int) -> list[str]:
    """
    Return a change for each name; of a long list the first ones and a hash of all.

    The administrator's list proves by the hash that it is the one that was applied.
    """
    if level < BRIEF_EVENTS or len(names) <= NAMES_SHOWN:
        return [f"{verb} {name}" for name in names]
    whole = hashlib.sha256("".join(f"{name}\n" for name in names).encode()).hexdigest()
    rest = (
        f"{verb} {len(names) - NAMES_SHOWN} others (SHA-256 of all {len(names)} names, "
        f"one a line: {whole})"
    )
    return [*(f"{verb} {name}" for name in names[:NAMES_SHOWN]), rest]


def _change_allow_list(
    applying: Applying, agent: Agent, command: UpdateAgent
) -> Rejected | None:
    db = applying.db
    added = _users(applying, command.add_users, "add_usernames")
    if isinstance(added, Rejected):
        return added
    removed = _users(applying, command.remove_users, "remove_usernames")
    if isinstance(removed, Rejected):
        return removed
    agent_tables.allow_users(db, agent.identity, added)
    agent_tables.disallow_users(db, agent.identity, removed)
    count = agent_tables.count_allowed_users(db, agent.identity)
    if count > ALLOWED_USERS_MAX:
        return Rejected(
            Reason.ALLOW_LIST_LIMIT,
            f"the allow list of {agent.name} would have {count} users; the maximum is "
            f"{ALLOWED_USERS_MAX}",
            "add_usernames",
        )
    groups = group_tables.change_allowed(
        db, agent.identity, added=command.add_groups, removed=command.remove_groups
    )
    if groups > GROUPS_MAX:
        return Rejected(
            Reason.GROUP_LIMIT,
            f"the allow list of {agent.name} would have {groups} groups; the maximum is "
            f"{GROUPS_MAX}",
            "add_groups",
        )
    return None


def _users(
    applying: Applying, names: Sequence[NameKey], field: str
) -> list[UserId] | Rejected:
    user_ids = []
    for name in names:
        user = user_tables.find_user_by_name(applying.db, name)
        if user is None:
            return replace(unknown_user(name), field=field)
        user_ids.append(user.user_id)
    return user_ids


def remove_agent(applying: Applying, command: RemoveAgent) -> Rejected | None:
    """Apply `RemoveAgent`."""
    agent = _find(applying, command.name_key)
    if isinstance(agent, Rejected):
        return agent
    agent_tables.delete_agent(applying.db, agent.identity)
    applying.detail = f"agent {agent.name}"
    return None


def deny_certificate(applying: Applying, command: DenyCertificate) -> Rejected | None:
    """Apply `DenyCertificate`."""
    applying.detail = command.note
    administrator = applying.administrator
    denied = agent_tables.deny_certificate(
        applying.db,
        command.mark,
        command.value,
        at_ms=applying.now_ms,
        by=administrator.name if administrator else "",
        note=command.note,
    )
    if not denied:
        return Rejected(
            Reason.CERTIFICATE_DENIED,
            f"the certificate with the {_certificate_text(command)} is already denied",
            command.mark,
        )
    return None


def allow_certificate(applying: Applying, command: AllowCertificate) -> Rejected | None:
    """Apply `AllowCertificate`."""
    if not agent_tables.allow_certificate(applying.db, command.mark, command.value):
        return Rejected(
            Reason.CERTIFICATE_NOT_DENIED,
            f"the certificate with the {_certificate_text(command)} is not denied",
            command.mark,
        )
    return None


def _certificate_text(command: DenyCertificate | AllowCertificate) -> str:
    return f"{command.mark.replace('_', ' ')} {command.value}"
