# SPDX-License-Identifier: Apache-2.0
"""Handlers of RADIUS clients. They are agents, so the agents' handlers apply to them, too."""

from collections.abc import Sequence
from dataclasses import replace

from sparecode_node.domain.agents import Agent
from sparecode_node.domain.ids import AgentIdentity, NameKey
from sparecode_node.domain.outcomes import Reason, Rejected, plural
from sparecode_node.domain.radius import RadiusSettings, radius_identity
from sparecode_node.statemachine.applying import Applying
from sparecode_node.statemachine.commands.radius import (
    RegisterRadiusClient,
    RotateRadiusSecret,
    UpdateRadiusClient,
)
from sparecode_node.statemachine.handlers.agents import change_attributes
from sparecode_node.statemachine.requests import REUSED
from sparecode_node.statemachine.results import Applied, Result
from sparecode_node.statemachine.tables import agents as agent_tables
from sparecode_node.statemachine.tables import radius as radius_tables


def register_radius_client(applying: Applying, command: RegisterRadiusClient) -> Result:
    """Apply `RegisterRadiusClient`."""
    db, identity = applying.db, radius_identity(command.name_key)
    if command.key_id != applying.keys.active:
        return Rejected(Reason.STALE_PARAMETERS)
    applying.detail = (
        f"{identity}, protects {command.protects}, from {', '.join(command.networks)}"
    )
    if command.restricted:
        applying.detail += ", admits its allow list"
    if command.allow_unsigned:
        applying.detail += ", requires no Message-Authenticator"
    if command.allow_unsigned_proxied:
        applying.detail += ", not even of requests with Proxy-State"
    if command.unsigned_until_signed:
        applying.detail += ", until it has sent one"
    if command.prompts_for_passcode:
        applying.detail += ", asks for the passcode if the password is empty"
    if radius_tables.has_secret(db, command.secret_id):
        return REUSED
    if (
        agent_tables.find_agent_by_name(db, command.name_key) is not None
        or agent_tables.find_agent(db, identity) is not None
    ):
        return Rejected(
            Reason.AGENT_EXISTS, f"agent {command.name} already exists", "name"
        )
    refused = _check_networks(applying, identity, command.networks)
    if refused is not None:
        return refused
    agent = Agent(
        name=command.name,
        identity=identity,
        protects=command.protects,
        restricted=command.restricted,
    )
    agent_tables.save_agent(db, agent, command.name_key)
    radius_tables.save_settings(
        db,
        identity,
        RadiusSettings(
            networks=command.networks,
            allow_unsigned=command.allow_unsigned,
            allow_unsigned_proxied=command.allow_unsigned_proxied,
            unsigned_until_signed=command.unsigned_until_signed,
            repeats_with_new_authenticator=command.repeats_with_new_authenticator,
            prompts_for_passcode=command.prompts_for_passcode,
        ),
    )
    attributes = change_attributes(applying, identity, command)
    applying.detail = ", ".join([applying.detail, *attributes])
    _add_secret(applying, identity, command)
    return Applied(index=applying.index)


def update_radius_client(
    applying: Applying, command: UpdateRadiusClient
) -> Rejected | None:
    """Apply `UpdateRadiusClient`."""
    identity = radius_identity(command.name_key)
    settings = radius_tables.find_settings(applying.db, identity)
    if settings is None:
        return _unknown(command.name_key)
    refused = _check_networks(applying, identity, command.networks)
    if refused is not None:
        return refused
    changes = {
        name: value
        for name in (
            "allow_unsigned",
            "allow_unsigned_proxied",
            "unsigned_until_signed",
            "repeats_with_new_authenticator",
            "prompts_for_passcode",
        )
        if (value := getattr(command, name)) not in (None, getattr(settings, name))
    }
    if command.networks and {*command.networks} != {*settings.networks}:
        changes["networks"] = command.networks
    if not changes.get("allow_unsigned", settings.allow_unsigned):
        # A signature that every request needs is needed with Proxy-State, too.
        for exception in ("allow_unsigned_proxied", "unsigned_until_signed"):
            if getattr(settings, exception):
                changes[exception] = False
            else:
                changes.pop(exception, None)
    radius_tables.save_settings(applying.db, identity, replace(settings, **changes))
    applying.detail = ", ".join(
        f"{name.replace('_', ' ')} {_words(value)}" for name, value in changes.items()
    )
    return None


def rotate_radius_secret(
    applying: Applying, command: RotateRadiusSecret
) -> Rejected | None:
    """Apply `RotateRadiusSecret`."""
    identity = radius_identity(command.name_key)
    if command.key_id != applying.keys.active:
        return Rejected(Reason.STALE_PARAMETERS)
    if radius_tables.find_settings(applying.db, identity) is None:
        return _unknown(command.name_key)
    if radius_tables.has_secret(applying.db, command.secret_id):
        return REUSED
    earlier = radius_tables.end_secrets(
        applying.db,
        identity,
        now_ms=applying.now_ms,
        overlap_ms=command.overlap_ms,
    )
    _add_secret(applying, identity, command)
    applying.detail = (
        f"the previous secret works for {command.overlap_ms // 1000} s"
        if command.overlap_ms
        else "no previous secret works"
    )
    if earlier:
        applying.detail += f", {plural(earlier, 'earlier one')} until its end"
    return None


def _words(value: object) -> str:
    match value:
        case bool():
            return "yes" if value else "no"
        case tuple():
            return " and ".join(value)
        case _:
            return str(value or "none")


def _add_secret(
    applying: Applying,
    identity: AgentIdentity,
    command: RegisterRadiusClient | RotateRadiusSecret,
) -> None:
    radius_tables.add_secret(
        applying.db,
        identity,
        secret_id=command.secret_id,
        sealed=command.sealed_secret,
        key_id=command.key_id,
        created_at_ms=applying.now_ms,
    )


def _check_networks(
    applying: Applying, identity: AgentIdentity, networks: Sequence[str]
) -> Rejected | None:
    """Refuse a network of another client: its packets would have two secrets."""
    taken = radius_tables.other_owner(applying.db, identity, networks)
    if taken is None:
        return None
    network, name = taken
    return Rejected(
        Reason.AGENT_EXISTS,
        f"agent {name} already has the network {network}",
        "networks",
    )


def _unknown(name_key: NameKey) -> Rejected:
    return Rejected(
        Reason.AGENT_UNKNOWN, f"there is no RADIUS client {name_key}", "name"
    )
