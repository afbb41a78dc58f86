# SPDX-License-Identifier: Apache-2.0
"""
The feature level that a call needs, and the level that all members know.

`level_N.binpb` is log_entry.proto at level N; `make level` writes that of the newest.
A member of level N refuses an entry that has a field unknown to level N. So a call
needs the first level whose messages have a place for all of it, and no list of
commands can be forgotten. (A new value of an enumeration looks like an old one: give
it a field of its own, or a command.)

`statemachine/feature_level.py` lists the steps that begin a new level.
"""

import functools
from collections.abc import Iterable, Mapping
from importlib import resources
from typing import Any

import grpc.aio
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import Message
from google.protobuf.unknown_fields import UnknownFieldSet

from sparecode_node.domain.ids import NodeId
from sparecode_node.replication.codec import encode_call
from sparecode_node.replication.errors import OlderMemberError
from sparecode_node.statemachine.commands import UnstampedCall
from sparecode_node.statemachine.commands.cluster import (
    InitializeCluster,
    RaiseFeatureLevel,
)
from sparecode_node.statemachine.commands.epochs import BeginEpoch
from sparecode_node.statemachine.feature_level import FIRST, NEWEST

METADATA = "sparecode-feature-level"
"""The key under which a member tells its level to nodes that open a link to it."""

CALL = "sparecode.internal.v1.Call"


def needed(call: bytes) -> int:
    """Return the first level whose members can read an encoded call."""
    for level in range(FIRST, NEWEST):
        if not _has_unknown(_call_class(level).FromString(call)):
            return level
    return NEWEST


@functools.cache
def _call_class(level: int) -> type[Message]:
    """Return the class of `Call` as it was at *level*."""
    data = resources.files(__package__).joinpath(f"level_{level}.binpb").read_bytes()
    pool = descriptor_pool.DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString(data).file:
        pool.Add(file)
    call: type[Message] = message_factory.GetMessageClass(
        pool.FindMessageTypeByName(CALL)
    )
    return call


def _has_unknown(message: Message) -> bool:
    if len(UnknownFieldSet(message)):
        return True
    return any(
        _has_unknown(each)
        for field, value in message.ListFields()
        if field.message_type is not None
        for each in (value if field.is_repeated else (value,))
    )


BEGINNINGS = (InitializeCluster, BeginEpoch, RaiseFeatureLevel)
"""They begin a level. The proposer has made sure that all members can read them."""


def check(call: UnstampedCall, level: int) -> None:
    """
    Refuse a call that an older member could not read: that member would stop.

    *level* is the one that this replica has applied: it may lag behind the cluster's,
    and is never ahead of it. Raises `OlderMemberError`.
    """
    if level >= NEWEST or isinstance(call.command, BEGINNINGS):
        return
    if needed(encode_call(call)) > level:
        raise OlderMemberError(f"not all members know more than feature level {level}")


async def level_of_peer(call: "grpc.aio.StreamUnaryCall[Any, Any]") -> int:
    """Return the level that the called member tells; the first one if it tells none."""
    for key, value in await call.initial_metadata() or ():
        if key == METADATA and isinstance(value, str) and value.isdecimal():
            return int(value)
    return FIRST


def to_raise(
    now: int, members: Iterable[NodeId], linked: Mapping[NodeId, int]
) -> int | None:
    """
    Return the level to which the primary may raise the cluster; None: it may not.

    *now* is the cluster's level. *linked* has the levels that the linked members know.
    A member that is away may run an older release, so its absence prevents the raise.
    """
    levels = [linked.get(member, FIRST) for member in members]
    lowest = min([NEWEST, *levels])
    return lowest if lowest > now else None
