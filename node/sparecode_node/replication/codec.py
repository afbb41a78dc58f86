# SPDX-License-Identifier: Apache-2.0
"""
Calls to bytes and back: `LogEntry` and `Call` of `log_entry.proto`.

The codec is generic: a message has the name and the fields of its dataclass, and the
type hint of a field determines how it is written. A test compares both sides.
"""

import dataclasses
import enum
import operator
import re
import types
import typing
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from google.protobuf.message import DecodeError, Message
from google.protobuf.unknown_fields import UnknownFieldSet

from sparecode.internal.v1 import log_entry_pb2
from sparecode_node.statemachine.commands import Call, Command, UnstampedCall

_M = TypeVar("_M", bound=Message)
_C = TypeVar("_C", Call, UnstampedCall)

COMMANDS: dict[str, type] = {
    re.sub(r"(?<!^)(?=[A-Z])", "_", command.__name__).lower(): command
    for command in typing.get_args(Command)
}
"""Names of the oneof's fields, each with the class of its command."""


_NAMES = {command: name for name, command in COMMANDS.items()}


class CodecError(Exception):
    """Bytes that are malformed, or of a newer version; never a reason to guess."""


def encode_entry(calls: Sequence[Call]) -> bytes:
    """Return the bytes of a log entry: always the same for the same calls."""
    entry = log_entry_pb2.LogEntry(calls=[_to_call(call) for call in calls])
    return entry.SerializeToString(deterministic=True)


def decode_entry(data: bytes) -> tuple[Call, ...]:
    """Return the calls of a log entry. Raises `CodecError`."""
    entry = _parse(log_entry_pb2.LogEntry, data)
    if not entry.calls:
        raise CodecError("a log entry without calls")
    return tuple(_from_call(Call, call) for call in entry.calls)


def encode_call(call: Call | UnstampedCall) -> bytes:
    """Return the bytes of one call, to forward it. One without a time writes none."""
    return _to_call(call).SerializeToString(deterministic=True)


def decode_call(data: bytes) -> UnstampedCall:
    """Return a forwarded call, without a time (T1). Raises `CodecError`."""
    return _from_call(UnstampedCall, _parse(log_entry_pb2.Call, data))


def _parse(kind: type[_M], data: bytes) -> _M:
    message = kind()
    try:
        message.ParseFromString(data)
    except DecodeError as error:
        raise CodecError(f"not a {message.DESCRIPTOR.name}: {error}") from error
    size = message.ByteSize()
    message.DiscardUnknownFields()  # At every depth at once; it does not report any.
    if message.ByteSize() != size:
        _refuse_unknown_fields(kind.FromString(data))
    return message


def _to_call(call: Call | UnstampedCall) -> log_entry_pb2.Call:
    message = log_entry_pb2.Call()
    _write(message, call)
    name = _NAMES.get(type(call.command))
    if name is None:
        raise CodecError(f"no field of Call holds a {type(call.command).__name__}")
    field = getattr(message, name)
    field.SetInParent()  # So that a command without fields is present.
    _write(field, call.command)
    return message


def _from_call(kind: type[_C], message: log_entry_pb2.Call) -> _C:
    name = message.WhichOneof("command")
    if name is None:
        raise CodecError("a call without a command")
    command = _read(COMMANDS[name], getattr(message, name))
    call: _C = _read(kind, message, command=command)
    return call


@dataclasses.dataclass(frozen=True, slots=True)
class _Kind:
    """How a field is written: a scalar or a message, optional or repeated."""

    scalar: type
    """`str`, `bytes`, `bool`, `int`, an enumeration, or a dataclass."""
    optional: bool = False
    repeated: bool = False
    # Derived from these once, and not for every field of every call.
    is_message: bool = dataclasses.field(init=False)
    is_plain: bool = dataclasses.field(init=False)
    """Whether it is written as it is."""

    def __post_init__(self) -> None:
        is_message = dataclasses.is_dataclass(self.scalar)
        special = self.optional or self.repeated or is_message
        enumerated = issubclass(self.scalar, enum.Enum)
        object.__setattr__(self, "is_message", is_message)
        object.__setattr__(self, "is_plain", not special and not enumerated)


@dataclasses.dataclass(frozen=True, slots=True)
class _Shape:
    """The fields of a dataclass, by how they are written."""

    fields: dict[str, _Kind]
    plain: tuple[str, ...]
    """The fields that are written as they are."""
    others: tuple[tuple[str, _Kind], ...]
    read_plain: Callable[[Message], tuple[object, ...]]
    """Reads all plain fields in one step: each call has many of them."""


def _shape_of(cls: type) -> _Shape:
    shape = _SHAPES.get(cls)
    if shape is None:
        shape = _SHAPES[cls] = _new_shape(cls)
    return shape


_SHAPES: dict[type, _Shape] = {}


def _new_shape(cls: type) -> _Shape:
    fields = _inspect(cls)
    plain = tuple(name for name, kind in fields.items() if kind.is_plain)
    return _Shape(
        fields=fields,
        plain=plain,
        others=tuple(each for each in fields.items() if not each[1].is_plain),
        read_plain=_reader(plain),
    )


def _reader(names: tuple[str, ...]) -> Callable[[Message], tuple[object, ...]]:
    if len(names) > 1:
        return operator.attrgetter(*names)
    return lambda message: tuple(getattr(message, name) for name in names)


def _inspect(cls: type) -> dict[str, _Kind]:
    hints = typing.get_type_hints(cls)
    return {
        field.name: _kind_of(hints[field.name])
        for field in dataclasses.fields(cls)
        if hints[field.name] != Command
    }


def _kind_of(hint: Any) -> _Kind:  # noqa: ANN401 - a type hint has no type.
    while hasattr(hint, "__supertype__"):  # NewType
        hint = hint.__supertype__
    arguments = typing.get_args(hint)
    match typing.get_origin(hint):
        case None if isinstance(hint, type):
            return _Kind(hint)
        case types.UnionType if len(arguments) == 2 and arguments[1] is types.NoneType:  # noqa: PLR2004
            return dataclasses.replace(_kind_of(arguments[0]), optional=True)
        case origin if origin is tuple and arguments[1:] == (...,):
            return dataclasses.replace(_kind_of(arguments[0]), repeated=True)
    raise TypeError(f"the codec cannot write {hint}")


def _write(message: Message, value: object) -> None:
    for name, kind in _shape_of(type(value)).fields.items():
        item = getattr(value, name)
        try:
            if kind.is_plain:
                setattr(message, name, item)
            elif item is not None:  # None is written as an absent field.
                _write_field(message, name, kind, item)
        except (TypeError, ValueError) as error:
            raise CodecError(f"{type(value).__name__}.{name}: {error}") from error


def _write_field(message: Message, name: str, kind: _Kind, item: Any) -> None:  # noqa: ANN401
    if kind.repeated and kind.is_message:
        for element in item:
            _write(getattr(message, name).add(), element)
    elif kind.repeated:
        getattr(message, name).extend(item)
    elif kind.is_message:
        getattr(message, name).SetInParent()
        _write(getattr(message, name), item)
    else:
        setattr(message, name, item)


def _read(cls: type, message: Message, **values: object) -> Any:  # noqa: ANN401
    """Return a *cls* from *message*; *values* has the fields that are not read."""
    shape = _shape_of(cls)
    values.update(zip(shape.plain, shape.read_plain(message), strict=True))
    for name, kind in shape.others:
        values[name] = _read_field(message, name, kind)
    return cls(**values)


def _read_field(message: Message, name: str, kind: _Kind) -> object:
    read = _read if kind.is_message else _read_scalar
    value = getattr(message, name)
    if kind.repeated:
        return tuple([read(kind.scalar, element) for element in value])
    if (kind.optional or kind.is_message) and not message.HasField(name):
        if kind.optional:
            return None
        raise CodecError(f"{message.DESCRIPTOR.name}.{name} is missing")
    return read(kind.scalar, value)


def _read_scalar(scalar: type, value: object) -> object:
    if not issubclass(scalar, enum.Enum):
        return value
    try:
        return scalar(value)
    except ValueError as error:
        raise CodecError(str(error)) from error


def _refuse_unknown_fields(message: Message) -> None:
    """
    Refuse fields that a newer version has written, and name them.

    A replica that skips a field it does not know would apply another command than the
    other replicas.
    """
    unknown = UnknownFieldSet(message)
    if len(unknown):
        numbers = sorted(unknown[i].field_number for i in range(len(unknown)))
        raise CodecError(f"{message.DESCRIPTOR.name} has unknown fields {numbers}")
    for field, value in message.ListFields():
        if field.message_type is not None:
            for each in value if field.is_repeated else (value,):
                _refuse_unknown_fields(each)
