# SPDX-License-Identifier: Apache-2.0
"""
Feature levels: a node does not propose what an older member cannot read.

The level after the newest is synthetic here, since a release may be the newest of all:
in `next_level`, this software knows one level more, and the level before lacks a command
and a field. tests/compatibility/ upgrades real processes.
"""

import asyncio
import dataclasses
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.message import Message

from sparecode.internal.v1 import log_entry_pb2
from sparecode_node.domain.ids import AdministratorName, KeyId, NodeId
from sparecode_node.replication import levels
from sparecode_node.replication.codec import encode_call
from sparecode_node.replication.errors import OlderMemberError
from sparecode_node.replication.replicator import Proposal
from sparecode_node.statemachine.commands.cluster import (
    InitializeCluster,
    RaiseFeatureLevel,
)
from sparecode_node.statemachine.feature_level import FIRST, NEWEST
from tests.replication.cluster import Node, outcome, running
from tests.replication.recording_state import call

N1, N2, N3 = (NodeId(f"n{number}") for number in (1, 2, 3))
NEXT = NEWEST + 1
OLD = call("old")
NEW = dataclasses.replace(call("new"), command=RaiseFeatureLevel(level=7))
"""A call that the level before `NEXT` lacks in `next_level`."""


def beginning(level: int | None) -> InitializeCluster:
    return InitializeCluster(
        cluster_id="c",
        administrator=AdministratorName("root"),
        password_salt=b"salt",
        password_verifier=b"verifier",
        key_id=KeyId(1),
        feature_level=level,
    )


# --- The messages of each level


def log_at(level: int) -> FileDescriptorProto:
    """Return log_entry.proto as it was at a level."""
    data = resources.files(levels).joinpath(f"level_{level}.binpb").read_bytes()
    (file,) = descriptor_pb2.FileDescriptorSet.FromString(data).file
    return file


def log_now() -> FileDescriptorProto:
    file = FileDescriptorProto()
    log_entry_pb2.DESCRIPTOR.CopyToProto(file)
    return file


def fields_of(file: FileDescriptorProto) -> dict[str, tuple[object, ...]]:
    """Return all that decides how bytes are read, for each field."""
    results = {}
    for message in file.message_type:
        groups = [group.name for group in message.oneof_decl]
        results[message.name] = ()
        for field in message.field:
            group = groups[field.oneof_index] if field.HasField("oneof_index") else ""
            form = (field.number, field.type, field.label, field.type_name, group)
            results[f"{message.name}.{field.name}"] = form
    return results


def test_every_level_has_its_messages_and_the_newest_those_of_now():
    """
    A change of log_entry.proto begins a level.

    If the level has not been released yet, `make level` writes its messages again.
    """
    names = {path.name for path in resources.files(levels).iterdir()}
    kept = {name for name in names if name.endswith(".binpb")}
    assert kept == {f"level_{level}.binpb" for level in range(FIRST, NEXT)}
    assert fields_of(log_at(NEWEST)) == fields_of(log_now())


@pytest.mark.parametrize("level", range(FIRST, NEXT))
def test_what_a_level_has_written_is_read_for_good(level):
    """Entries stay on disk for years: no field goes, and none becomes another one."""
    assert fields_of(log_at(level)).items() <= fields_of(log_now()).items()


# --- What a call needs


def without(file: FileDescriptorProto, message: str, field: str) -> None:
    """Take a field out of a message."""
    (result,) = (each for each in file.message_type if each.name == message)
    (at,) = (at for at, each in enumerate(result.field) if each.name == field)
    synthetic = result.field[at].proto3_optional
    index = result.field[at].oneof_index
    del result.field[at]
    if synthetic:
        del result.oneof_decl[index]


@pytest.fixture
def next_level(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this software know one level more, which has a new command and a new field."""
    file = log_now()
    without(file, "Call", "raise_feature_level")
    without(file, "InitializeCluster", "feature_level")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    older = message_factory.GetMessageClass(pool.FindMessageTypeByName(levels.CALL))
    kept = levels._call_class

    def call_class(level: int) -> type[Message]:
        return older if level < NEXT else kept(level)

    monkeypatch.setattr(levels, "_call_class", call_class)
    monkeypatch.setattr(levels, "NEWEST", NEXT)


@pytest.mark.usefixtures("next_level")
def test_call_needs_the_level_that_has_a_place_for_all_of_it():
    assert levels.needed(encode_call(OLD)) == FIRST
    assert levels.needed(encode_call(NEW)) == NEXT


@pytest.mark.usefixtures("next_level")
def test_new_field_of_an_old_command_counts_when_it_is_used():
    """An absent field is not written: an older member reads all there is."""
    for level, needed in ((None, FIRST), (NEXT, NEXT)):
        each = dataclasses.replace(OLD, command=beginning(level))
        assert levels.needed(encode_call(each)) == needed


def test_the_first_level_needs_no_other():
    for each in (OLD, NEW, dataclasses.replace(OLD, command=beginning(FIRST))):
        assert levels.needed(encode_call(each)) == FIRST


# --- When the level is raised


@pytest.mark.usefixtures("next_level")
@pytest.mark.parametrize(
    ("now", "linked", "raised"),
    [
        (NEWEST, {N2: NEXT, N3: NEXT}, NEXT),
        (NEWEST, {N2: NEXT, N3: NEWEST}, None),
        (NEWEST, {N2: NEXT}, None),  # N3 may run an older release.
        (NEXT, {N2: NEXT, N3: NEXT}, None),
        (NEWEST, {N2: NEXT + 7, N3: NEXT + 7}, NEXT),  # This node knows no more.
    ],
)
def test_level_is_raised_when_all_members_are_there_and_know_it(now, linked, raised):
    assert levels.to_raise(now, [N2, N3], linked) == raised


async def until_linked(nodes: list[Node]) -> Node:
    """Return the primary, when every other member has told it what it is to tell."""
    async with asyncio.timeout(60):
        while True:
            report = {node.node_id: node.config.feature_level for node in nodes}
            for node in nodes:
                heard = {**node.replicator._transport.levels}
                heard[node.node_id] = node.config.feature_level
                if node.replicator.replica_status.is_leader and heard == report:
                    return node
            await asyncio.sleep(0.02)


def know(node: Node, level: int) -> None:
    """Let a stopped node tell the others that it knows a level."""
    node.config = dataclasses.replace(node.config, feature_level=level)


async def propose(node: Node, made: Any) -> None:
    """Propose a call at a node."""
    proposal = Proposal(call=dataclasses.replace(made, node_id=node.node_id))
    await outcome(lambda: node.replicator.propose(proposal, timeout_s=10))


@pytest.mark.asyncio
@pytest.mark.usefixtures("next_level")
async def test_level_waits_for_the_oldest_member(tmp_path: Path, monkeypatch):
    """And with it what is new; everything else goes on."""
    monkeypatch.setattr(levels, "BEGINNINGS", ())
    async with running(tmp_path) as nodes:
        old = nodes[2]
        for node in nodes:
            await node.stop()
            know(node, NEWEST if node is old else NEXT)
            await node.start()
        primary = await until_linked(nodes)
        while primary is old:  # Its software is new, whatever it tells: no use here.
            await outcome(lambda: old.replicator.transfer_primary(timeout_s=10))
            primary = await until_linked(nodes)
        assert primary.replicator.level_to_raise is None
        with pytest.raises(OlderMemberError):
            await propose(primary, NEW)
        await old.stop()
        know(old, NEXT)
        await old.start()
        primary = await until_linked(nodes)
        async with asyncio.timeout(60):
            while primary.replicator.level_to_raise != NEXT:
                await asyncio.sleep(0.02)
                primary = await until_linked(nodes)


@pytest.mark.asyncio
@pytest.mark.usefixtures("next_level")
async def test_what_an_older_member_cannot_read_is_refused(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(levels, "BEGINNINGS", ())
    async with running(tmp_path) as nodes:
        primary = await until_linked(nodes)
        await propose(primary, OLD)
        with pytest.raises(OlderMemberError, match=f"feature level {NEWEST}"):
            await propose(primary, NEW)
        assert all(not node.fatal for node in nodes)
