# SPDX-License-Identifier: Apache-2.0
"""
Calls to bytes and back: `LogEntry` and `Call` of `log_entry.proto`.

Generic: a message has the name and the fields of its dataclass, and how a field
is written follows from its type hint. A test holds both sides together.
"""

import dataclasses
import enum
import functools
import re
import types
import typing
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from google.protobuf.message import DecodeError, Message
from google.protobuf.unknown_fields import UnknownFieldSet

from sparecode.internal.v1 import log_entry_pb2
from sparecode_node.statemachine.commands import Call, Command

_M = TypeVar("_M", bound=Message)

COMMANDS: dict[str, type] = {
    re.sub(r"(?<!^)(?=[A-Z])", "_", command.__name__).lower(): command
    for command in typing.get_args(Command)
}
"""Names of the oneof's fields, each with the class of its command."""


class CodecError(Exception):
    """Bytes that are not what they should be; never a reason to guess."""


def encode_entry(calls: Sequence[Call]) -> bytes:
    """Return the bytes of a log entry: the same for the same calls, always."""
    entry = log_entry_pb2.LogEntry(calls=[_to_call(call) for call in calls])
    return entry.SerializeToString(deterministic=True)


def decode_entry(data: bytes) -> tuple[Call, ...]:
    """Return the calls of a log entry. Raises `CodecError`."""
    entry = _parse(log_entry_pb2.LogEntry(), data)
    if not entry.calls:
        raise CodecError("a log entry without calls")
    return tuple(_from_call(call) for call in entry.calls)


def encode_call(call: Call) -> bytes:
    """Return the bytes of one call, to forward it."""
    return _to_call(call).SerializeToString(deterministic=True)


def decode_call(data: bytes) -> Call:
    """Return a forwarded call. Raises `CodecError`."""
    return _from_call(_parse(log_entry_pb2.Call(), data))


def _parse(message: _M, data: bytes) -> _M:
    try:
        message.ParseFromString(data)
    except DecodeError as error:
        raise CodecError(f"not a {message.DESCRIPTOR.name}: {error}") from error
    return message


def _to_call(call: Call) -> log_entry_pb2.Call:
    message = log_entry_pb2.Call()
    _write(message, call, skip="command")
    for name, command in COMMANDS.items():
        if type(call.command) is command:
            field = getattr(message, name)
            field.SetInParent()  # A command without fields must still be seen.
            _write(field, call.command)
            return message
    raise CodecError(f"no field of Call holds a {type(call.command).__name__}")


def _from_call(message: log_entry_pb2.Call) -> Call:
    name = message.WhichOneof("command")
    if name is None:
        _refuse_unknown_fields(message)
        raise CodecError("a call without a command")
    command = _read(COMMANDS[name], getattr(message, name))
    call: Call = _read(Call, message, command=command)
    return call


@dataclasses.dataclass(frozen=True, slots=True)
class _Kind:
    """How a field is written: a scalar, a message, perhaps absent, perhaps many."""

    scalar: type
    """`str`, `bytes`, `bool`, `int`, an enumeration, or a dataclass."""
    optional: bool = False
    repeated: bool = False

    @property
    def is_message(self) -> bool:
        return dataclasses.is_dataclass(self.scalar)


def fields_of(cls: type) -> dict[str, _Kind]:
    """Return the fields of a dataclass, each with how it is written."""
    found = _FIELDS.get(cls)
    if found is None:
        found = _FIELDS[cls] = _inspect(cls)
    return found


_FIELDS: dict[type, dict[str, _Kind]] = {}


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
    raise TypeError(f"no way to write {hint} is known")


def _write(message: Message, value: object, *, skip: str = "") -> None:
    for name, kind in fields_of(type(value)).items():
        if name == skip:
            continue
        item = getattr(value, name)
        try:
            if item is None:
                continue  # Only what may be absent is, and absent is how it is written.
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
        except (TypeError, ValueError) as error:
            raise CodecError(f"{type(value).__name__}.{name}: {error}") from error


def _read(cls: type, message: Message, **given: object) -> Any:  # noqa: ANN401
    """Return a *cls* out of *message*; what is *given* is not read."""
    _refuse_unknown_fields(message)
    values = dict(given)
    for name, kind in fields_of(cls).items():
        read = functools.partial(_read_scalar, kind.scalar)
        if kind.is_message:
            read = functools.partial(_read, kind.scalar)
        values[name] = _read_field(message, name, kind, read)
    return cls(**values)


def _read_field(
    message: Message, name: str, kind: _Kind, read: Callable[[Any], object]
) -> object:
    value = getattr(message, name)
    if kind.repeated:
        return tuple(read(element) for element in value)
    if (kind.optional or kind.is_message) and not message.HasField(name):
        if kind.optional:
            return None
        raise CodecError(f"{message.DESCRIPTOR.name}.{name} is missing")
    return read(value)


def _read_scalar(scalar: type, value: object) -> object:
    if not issubclass(scalar, enum.Enum):
        return value
    try:
        return scalar(value)
    except ValueError as error:
        raise CodecError(str(error)) from error


def _refuse_unknown_fields(message: Message) -> None:
    """
    Refuse what a newer version has written.

    To skip a field that we do not know would be to apply another command than
    the other replicas do.
    """
    unknown = UnknownFieldSet(message)
    if len(unknown):
        numbers = sorted(unknown[i].field_number for i in range(len(unknown)))
        raise CodecError(f"{message.DESCRIPTOR.name} has unknown fields {numbers}")
