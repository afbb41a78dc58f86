# SPDX-License-Identifier: Apache-2.0
"""
Which feature level a call needs, and which one all members know.

`level_N.binpb` is log_entry.proto as it was at level N, for every level before the
newest: `protoc -I protos --descriptor_set_out=... sparecode/internal/v1/log_entry.proto`.
A member of that level refuses what it holds no field for, so that is asked here: a
call needs the first level whose messages have a place for all of it. Nobody keeps a
list, and nothing can be forgotten in one. (A new value of an enumeration looks like
an old one: give it a field of its own, or a command.)
"""

import functools
from collections.abc import Iterable, Mapping
from importlib import resources
from typing import Any, Protocol

import grpc.aio
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import Message
from google.protobuf.unknown_fields import UnknownFieldSet

from sparecode_node.domain.ids import NodeId
from sparecode_node.replication.codec import encode_call
from sparecode_node.replication.errors import OlderMemberError
from sparecode_node.statemachine.commands import UnstampedCall
from sparecode_node.statemachine.commands.cluster import (
    BeginEpoch,
    InitializeCluster,
    RaiseFeatureLevel,
)
from sparecode_node.statemachine.feature_level import FIRST, NEWEST

METADATA = "sparecode-feature-level"
"""Under this key a member tells its level to whoever opens a link to it."""

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
    found: type[Message] = message_factory.GetMessageClass(
        pool.FindMessageTypeByName(CALL)
    )
    return found


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
"""They are what a level begins with; who proposes them has seen to it."""


class Known(Protocol):
    """What a replica knows of the cluster."""

    @property
    def feature_level(self) -> int:
        """The level that all members know, as far as this replica has applied."""


def check(call: UnstampedCall, known: Known) -> None:
    """
    Refuse a call that an older member could not read: it would stop.

    What this replica has applied may lag behind, and is never ahead. Raises
    `OlderMemberError`.
    """
    level = known.feature_level
    if level >= NEWEST or isinstance(call.command, BEGINNINGS):
        return
    if needed(encode_call(call)) > level:
        raise OlderMemberError(f"not all members know more than feature level {level}")


async def told_level(call: "grpc.aio.StreamUnaryCall[Any, Any]") -> int:
    """Return the level that the called member tells; a first one tells none."""
    for key, value in await call.initial_metadata() or ():
        if key == METADATA and isinstance(value, str) and value.isdecimal():
            return int(value)
    return FIRST


def to_raise(
    now: int, members: Iterable[NodeId], linked: Mapping[NodeId, int]
) -> int | None:
    """
    Return the level that the primary may raise the cluster to, if it may.

    *linked*: the other members that can be asked, with what they know. A member
    that is away may be of an older release: as long as one is, nothing is raised.
    """
    levels = [linked.get(member, FIRST) for member in members]
    lowest = min([NEWEST, *levels])
    return lowest if lowest > now else None
