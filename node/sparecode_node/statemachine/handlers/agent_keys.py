# SPDX-License-Identifier: Apache-2.0
"""Handler of bearer keys of agents. A key is one more way to be an agent (A4)."""

from sparecode_node.domain.outcomes import Reason, Rejected
from sparecode_node.statemachine.applying import Applying
from sparecode_node.statemachine.commands.agents import CreateAgentKey
from sparecode_node.statemachine.requests import REUSED
from sparecode_node.statemachine.tables import agent_keys as key_tables
from sparecode_node.statemachine.tables import agents as agent_tables


def create_agent_key(applying: Applying, command: CreateAgentKey) -> Rejected | None:
    """Apply `CreateAgentKey`."""
    db = applying.db
    agent = agent_tables.find_agent_by_name(db, command.name_key)
    if agent is None:
        return Rejected(
            Reason.AGENT_UNKNOWN, f"there is no agent {command.name_key}", "name"
        )
    if agent.by_radius:
        return Rejected(
            Reason.AGENT_UNKNOWN,
            f"agent {agent.name} is a RADIUS client, which has a shared secret",
            "name",
        )
    if key_tables.has_key(db, command.bearer_id, command.digest):
        return REUSED
    key_tables.end_keys(
        db, agent.identity, now_ms=applying.now_ms, overlap_ms=command.overlap_ms
    )
    key_tables.add_key(
        db,
        agent.identity,
        bearer_id=command.bearer_id,
        digest=command.digest,
        networks=command.networks,
        created_at_ms=applying.now_ms,
    )
    applying.detail = (
        f"the previous key works for {command.overlap_ms // 1000} s"
        if command.overlap_ms
        else "no previous key works"
    )
    if command.networks:
        applying.detail += f", from {' and '.join(command.networks)}"
    return None
