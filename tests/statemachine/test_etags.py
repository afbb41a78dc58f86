# SPDX-License-Identifier: Apache-2.0
"""Two administrators who change the same thing at two nodes: the log decides (P10)."""

from dataclasses import replace
from typing import Any

import pytest

from sparecode_node.domain.etags import AGENT, TOKEN, etag
from sparecode_node.domain.ids import NameKey, TokenSerial
from sparecode_node.domain.outcomes import Reason, Rejected
from sparecode_node.domain.radius import NO_ATTRIBUTES
from sparecode_node.statemachine.commands import Call
from sparecode_node.statemachine.commands.pending import from_json
from sparecode_node.statemachine.etags import Conditional
from sparecode_node.statemachine.results import Applied, ApprovalPending
from sparecode_node.statemachine.tables import agents as agent_tables
from sparecode_node.statemachine.tables import tokens as token_tables
from tests.statemachine.world import World


@pytest.fixture
def world() -> World:
    world = World()
    world.begin()
    world.play(("raise-feature-level", {"level": "2"}))
    return world


def call(world: World, directive: str, shown: str, **arguments: str) -> Call:
    made = world.call(directive, arguments)
    command: Any = made.command
    assert isinstance(command, Conditional)
    return replace(made, command=replace(command, etag=shown))


def agent_etag(world: World) -> str:
    agent = agent_tables.find_agent_by_name(world.db, NameKey("vpn"))
    return etag(agent, AGENT, NO_ATTRIBUTES)


def test_one_of_two_changes_of_the_same_agent_wins(world: World) -> None:
    """(P10) The second one of the entry is refused, on every node alike."""
    shown = agent_etag(world)
    first = call(world, "update-agent", shown, name="vpn", protects="cloud", via="n1")
    second = call(world, "update-agent", shown, name="vpn", restricted="no", via="n2")
    third = call(world, "update-agent", shown, name="vpn", restricted="yes", via="n2")
    made, unchanged, refused = world.apply_batch([first, second, third])
    assert isinstance(made, Applied)
    assert isinstance(unchanged, Rejected)
    assert isinstance(refused, Rejected)
    assert refused.reason is Reason.VERSION
    agent = agent_tables.find_agent_by_name(world.db, NameKey("vpn"))
    assert agent is not None
    assert (agent.protects, agent.restricted) == ("cloud", False)
    assert world.replayed().machine.digest() == world.machine.digest()


def test_a_change_of_a_removed_agent_says_that_it_is_unknown(world: World) -> None:
    """(P10) An etag of it does not hide that there is none."""
    gone = call(world, "update-agent", agent_etag(world), name="vpn", enabled="no")
    world.play(("remove-agent", {"name": "vpn"}))
    refused = world.apply(gone)
    assert isinstance(refused, Rejected)
    assert refused.reason is Reason.AGENT_UNKNOWN


def test_an_approved_change_overwrites_no_later_one(world: World) -> None:
    """(P3, P10) It waits with its etag, and is refused if a colleague was faster."""
    world.play(
        ("enroll", {"serial": "1001", "expires": "+10d"}),
        ("create-user", {"name": "alice"}),
        ("assign", {"serial": "1001", "user": "alice"}),
        ("plant-administrator", {"name": "ruth"}),
        ("sign-in", {"as": "ruth", "session": "s2"}),
    )
    token = token_tables.find_token(world.db, TokenSerial("1001"))
    waiting = call(
        world, "update-token", etag(token, TOKEN), serial="1001", expires="+60d"
    )
    pending = world.apply(waiting)
    assert isinstance(pending, ApprovalPending)
    ruth = {"as": "ruth", "session": "s2"}
    world.play(("update-token", {"serial": "1001", "expires": "+5d", **ruth}))
    refused = world.apply(
        world.call("approve", {"number": str(pending.approval_id), **ruth})
    )
    assert isinstance(refused, Rejected)
    assert refused.reason is Reason.VERSION


def test_a_waiting_change_without_an_etag_is_read_as_before() -> None:
    """A request that an earlier build has stored has no such field."""
    text = (
        '{"type":"UpdateToken","serial":"1","expires_at_ms":null,"never_expires":true}'
    )
    change = from_json(text)
    assert isinstance(change, Conditional)
    assert not change.etag
