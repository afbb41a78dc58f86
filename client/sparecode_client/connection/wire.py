# SPDX-License-Identifier: Apache-2.0
"""Conversions between Protobuf messages and values, for all subjects."""

import enum
from datetime import UTC, datetime
from typing import Protocol, TypeVar

from google.protobuf.descriptor import EnumDescriptor
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from sparecode.v1 import (
    types_pb2,
)
from sparecode_client.values.results import Commit, ReadPosition

E = TypeVar("E", bound=enum.StrEnum)


N_co = TypeVar("N_co", bound=int, covariant=True)


class WireEnum(Protocol[N_co]):
    """A generated enum: its values share a prefix, and zero is UNSPECIFIED."""

    DESCRIPTOR: EnumDescriptor

    def Value(self, name: str) -> N_co:  # noqa: N802  Protobuf's name.
        """Return the number of *name*."""
        ...


def enum_out(wire: WireEnum[N_co], member: enum.StrEnum) -> N_co:
    """Return the number of *member*, whose name on the wire has a prefix."""
    return wire.Value(_prefix(wire.DESCRIPTOR) + member.name)


def enum_in(kind: type[E], wire: WireEnum[N_co], number: int) -> E | None:
    """Return the member for *number*; None if unspecified or unknown here."""
    value = wire.DESCRIPTOR.values_by_number.get(number)
    if value is None:
        return None
    name = str(value.name).removeprefix(_prefix(wire.DESCRIPTOR))
    return kind.__members__.get(name)


def _prefix(descriptor: EnumDescriptor) -> str:
    return str(descriptor.values_by_number[0].name).removesuffix("UNSPECIFIED")


def time_out(time: datetime | None) -> Timestamp | None:
    """
    Return *time* for the wire.

    Raises:
        ValueError: *time* has no zone, so it is ambiguous.
    """
    if time is None:
        return None
    if time.tzinfo is None:
        raise ValueError(f"{time.isoformat()} has no time zone")
    timestamp = Timestamp()
    timestamp.FromDatetime(time.astimezone(UTC))
    return timestamp


def time_in(message: Message, field: str) -> datetime | None:
    """Return the time in *field*; None if it is not set."""
    if not message.HasField(field):
        return None
    timestamp: Timestamp = getattr(message, field)
    return timestamp.ToDatetime(tzinfo=UTC)


def commit_in(commit: types_pb2.Commit) -> Commit:
    """Convert a commit."""
    return Commit(node_id=commit.node_id, index=commit.index)


def position_in(position: types_pb2.ReadPosition) -> ReadPosition:
    """Convert a read position."""
    return ReadPosition(
        node_id=position.node_id,
        applied_index=position.applied_index,
        stale=position.stale,
    )
