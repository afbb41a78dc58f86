# SPDX-License-Identifier: Apache-2.0
"""
Feature levels: a command that an older member cannot read is not proposed.

A member of a lower level stands for an older release and is asked in the same way.
tests/compatibility/ has a real one.
"""

import asyncio
import dataclasses
from pathlib import Path

import pytest

from sparecode_node.domain.ids import AdministratorName, KeyId, NodeId
from sparecode_node.replication import levels
from sparecode_node.replication.codec import encode_call
from sparecode_node.replication.errors import OlderMemberError
from sparecode_node.replication.raft.membership_changes import Remove
from sparecode_node.replication.replicator import Proposal
from sparecode_node.statemachine.commands.cluster import (
    InitializeCluster,
    RaiseFeatureLevel,
)
from sparecode_node.statemachine.feature_level import (
    FIRST,
    MEMBERS_CHANGE,
    NEWEST,
)
from tests.replication.cluster import Node, running
from tests.replication.recording_state import call

N1, N2, N3 = (NodeId(f"n{number}") for number in (1, 2, 3))
OLD = call("old")
NEW = dataclasses.replace(call("new"), command=RaiseFeatureLevel(level=7))


def beginning(level: int | None) -> InitializeCluster:
    return InitializeCluster(
        cluster_id="c",
        administrator=AdministratorName("root"),
        password_salt=b"salt",
        password_verifier=b"verifier",
        key_id=KeyId(1),
        feature_level=level,
    )


def test_call_needs_the_level_that_has_a_place_for_all_of_it():
    assert levels.needed(encode_call(OLD)) == FIRST
    assert levels.needed(encode_call(NEW)) == MEMBERS_CHANGE


def test_new_field_of_an_old_command_counts_when_it_is_used():
    """An absent one is not written: an older member reads all there is."""
    for level, needed in ((None, FIRST), (NEWEST, MEMBERS_CHANGE)):
        each = dataclasses.replace(OLD, command=beginning(level))
        assert levels.needed(encode_call(each)) == needed


@pytest.mark.parametrize(
    ("now", "linked", "raised"),
    [
        (1, {N2: 2, N3: 2}, 2),
        (1, {N2: 2, N3: 1}, None),
        (1, {N2: 2}, None),  # Who knows what N3 is.
        (2, {N2: 2, N3: 2}, None),
        (1, {N2: 9, N3: 9}, NEWEST),  # Nor does this one know more than it does.
    ],
)
def test_level_is_raised_when_all_members_are_there_and_know_it(now, linked, raised):
    assert levels.to_raise(now, [N2, N3], linked) == raised


async def until_linked(nodes: list[Node]) -> Node:
    """Return the primary, when every other member has told it what it is to tell."""
    async with asyncio.timeout(20):
        while True:
            told = {node.node_id: node.config.feature_level for node in nodes}
            for node in nodes:
                heard = {**node.replicator._transport.levels}
                heard[node.node_id] = node.config.feature_level
                if node.replicator.replica_status.is_leader and heard == told:
                    return node
            await asyncio.sleep(0.02)


@pytest.mark.asyncio
async def test_level_waits_for_the_oldest_member(tmp_path: Path):
    """And with it what is new; everything else goes on."""
    async with running(tmp_path) as nodes:
        old = nodes[2]
        await old.stop()
        old.config = dataclasses.replace(old.config, feature_level=FIRST)
        for node in nodes:
            node.state.feature_level = FIRST
        await old.start()
        primary = await until_linked(nodes)
        while primary is old:  # Its software is new, whatever it tells: no use here.
            await old.replicator.transfer_primary(timeout_s=10)
            primary = await until_linked(nodes)
        assert primary.replicator.level_to_raise is None
        with pytest.raises(OlderMemberError):
            await primary.replicator._engine.change_members(Remove(N3), timeout_s=5)
        await old.stop()
        old.config = dataclasses.replace(old.config, feature_level=NEWEST)
        await old.start()
        primary = await until_linked(nodes)
        async with asyncio.timeout(20):
            while primary.replicator.level_to_raise != NEWEST:
                await asyncio.sleep(0.02)
                primary = await until_linked(nodes)


@pytest.mark.asyncio
async def test_what_an_older_member_cannot_read_is_refused(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(levels, "BEGINNINGS", ())
    async with running(tmp_path) as nodes:
        for node in nodes:
            node.state.feature_level = FIRST
        primary = await until_linked(nodes)
        asking = primary.replicator
        await asking.propose(
            Proposal(call=dataclasses.replace(OLD, node_id=primary.node_id)),
            timeout_s=10,
        )
        new = Proposal(call=dataclasses.replace(NEW, node_id=primary.node_id))
        with pytest.raises(OlderMemberError, match="feature level 1"):
            await asking.propose(new, timeout_s=0.5)
        assert all(not node.fatal for node in nodes)
