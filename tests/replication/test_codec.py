# SPDX-License-Identifier: Apache-2.0
"""The form of calls in the log: complete, exact, and the same forever."""

import dataclasses
import enum
import re
import types
import typing
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from hypothesis import given, settings
from hypothesis import strategies as st

from sparecode.internal.v1 import log_entry_pb2
from sparecode_node.replication.codec import (
    COMMANDS,
    CodecError,
    _inspect,
    decode_call,
    decode_entry,
    encode_call,
    encode_entry,
)
from sparecode_node.statemachine.commands import Call
from sparecode_node.statemachine.commands.authentication import Authenticate
from sparecode_node.statemachine.commands.users import DeleteUser
from tests.replication.recording_state import call

GOLDEN = Path(__file__).parent / "testdata" / "log_entries.txt"
TYPES = {
    str: FieldDescriptor.TYPE_STRING,
    bytes: FieldDescriptor.TYPE_BYTES,
    bool: FieldDescriptor.TYPE_BOOL,
    int: FieldDescriptor.TYPE_INT64,
}


def check_message(cls: type, message: Descriptor) -> None:
    """Hold a dataclass and its message together, and what they contain."""
    kinds = _inspect(cls)
    fields = {f.name: f for f in message.fields if f.containing_oneof is None}
    fields |= {
        f.name: f for f in message.fields if f.containing_oneof and f.name in kinds
    }
    assert set(kinds) == set(fields), cls.__name__
    for name, kind in kinds.items():
        field = fields[name]
        where = f"{cls.__name__}.{name}"
        assert kind.repeated == field.is_repeated, where
        if dataclasses.is_dataclass(kind.scalar):
            assert field.message_type.name == kind.scalar.__name__, where
            check_message(kind.scalar, field.message_type)
            continue
        if not kind.repeated:
            assert kind.optional == field.has_presence, where
        scalar = str if issubclass(kind.scalar, enum.Enum) else kind.scalar
        assert TYPES[scalar] == field.type, where


def test_every_command_has_a_message_with_its_fields() -> None:
    check_message(Call, log_entry_pb2.Call.DESCRIPTOR)
    oneof = log_entry_pb2.Call.DESCRIPTOR.oneofs_by_name["command"]
    assert {f.name: f.message_type.name for f in oneof.fields} == {
        name: cls.__name__ for name, cls in COMMANDS.items()
    }
    for name, cls in COMMANDS.items():
        check_message(
            cls, log_entry_pb2.Call.DESCRIPTOR.fields_by_name[name].message_type
        )


def values(hint: Any) -> st.SearchStrategy[Any]:
    """Return values of a type hint."""
    while hasattr(hint, "__supertype__"):
        hint = hint.__supertype__
    arguments = typing.get_args(hint)
    if hint is int:
        return st.integers(-(2**63), 2**63 - 1)
    if hint is str:
        return st.text(max_size=8)
    if hint is bytes:
        return st.binary(max_size=8)
    if hint is bool:
        return st.booleans()
    if typing.get_origin(hint) is tuple:
        return st.lists(values(arguments[0]), max_size=3).map(tuple)
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        return st.one_of(*(values(a) for a in arguments))
    if hint is types.NoneType:
        return st.none()
    if issubclass(hint, enum.Enum):
        return st.sampled_from(hint)
    return st.builds(
        hint,
        **{n: values(h) for n, h in typing.get_type_hints(hint).items()},
    )


@settings(deadline=None, max_examples=150)
@given(st.lists(values(Call), min_size=1, max_size=3).map(tuple))
def test_what_is_written_is_read(calls: tuple[Call, ...]) -> None:
    data = encode_entry(calls)
    assert decode_entry(data) == calls
    assert encode_entry(decode_entry(data)) == data


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=64))
def test_any_bytes_are_an_entry_or_one_error(data: bytes) -> None:
    try:
        calls = decode_entry(data)
    except CodecError:
        return
    assert all(isinstance(each, Call) for each in calls)


def example(hint: Any, name: str) -> Any:
    """Return the one example of a type hint that the golden bytes are of."""
    while hasattr(hint, "__supertype__"):
        hint = hint.__supertype__
    arguments = typing.get_args(hint)
    if hint is int:
        return len(name)
    if hint is str:
        return name
    if hint is bytes:
        return name.encode()
    if hint is bool:
        return True
    if typing.get_origin(hint) is tuple:
        return (example(arguments[0], name),)
    if typing.get_origin(hint) is types.UnionType:
        return example(arguments[0], name)
    if issubclass(hint, enum.Enum):
        return list(hint)[-1]
    hints = typing.get_type_hints(hint)
    return hint(**{n: example(h, n) for n, h in hints.items()})


def test_bytes_are_those_that_are_on_disk(rewrite: bool) -> None:
    """
    The bytes of every command, as the first release wrote them.

    A line may be added, never changed: journals hold these bytes. Of a command
    that has got fields since, `NAME#1` and so on are what was written before.
    """
    golden = dict(line.split() for line in GOLDEN.read_text().splitlines())
    lines = {name: data for name, data in golden.items() if "#" in name}
    for name, command in COMMANDS.items():
        written = call("request").stamped(0, example(command, name))
        lines[name] = encode_entry((written,)).hex()
    if rewrite:
        for name in COMMANDS:
            if golden.get(name, lines[name]) != lines[name]:
                forms = sum(each.startswith(f"{name}#") for each in golden)
                lines[f"{name}#{forms + 1}"] = golden[name]
        GOLDEN.parent.mkdir(exist_ok=True)
        GOLDEN.write_text("".join(f"{n} {h}\n" for n, h in sorted(lines.items())))
    golden = dict(line.split() for line in GOLDEN.read_text().splitlines())
    assert lines == golden
    for name, data in golden.items():
        [read] = decode_entry(bytes.fromhex(data))
        assert type(read.command) is COMMANDS[name.partition("#")[0]]
        # What came later has a default that means "as before", and is not written.
        assert encode_entry((read,)).hex() == data


def test_an_unknown_field_is_refused_at_every_depth() -> None:
    """To skip it would be to apply another command than a newer replica does."""
    unknown = b"\xf8\x3f\x01"  # Field 1023.
    message = log_entry_pb2.Call.FromString(encode_call(call("r")))
    message.delete_user.MergeFromString(unknown)
    with pytest.raises(CodecError, match=r"DeleteUser has unknown fields \[1023\]"):
        decode_call(message.SerializeToString())
    with pytest.raises(CodecError, match=r"Call has unknown fields"):
        decode_call(encode_call(call("r")) + unknown)


def test_an_unknown_command_is_refused() -> None:
    message = log_entry_pb2.Call.FromString(encode_call(call("r")))
    message.ClearField("delete_user")
    with pytest.raises(CodecError, match="without a command"):
        decode_call(message.SerializeToString())
    with pytest.raises(CodecError, match="unknown fields"):
        decode_call(message.SerializeToString() + b"\x9a\x06\x00")  # Field 99.


def test_an_unknown_value_of_an_enumeration_is_refused() -> None:
    entry = log_entry_pb2.LogEntry.FromString(encode_entry((call("r").stamped(0),)))
    entry.calls[0].enroll_token.algorithm = "abacus"
    with pytest.raises(CodecError, match="abacus"):
        decode_entry(entry.SerializeToString())


def test_a_missing_message_is_refused() -> None:
    message = log_entry_pb2.Call.FromString(encode_call(call("r")))
    message.ClearField("request")
    with pytest.raises(CodecError, match="request is missing"):
        decode_call(message.SerializeToString())


def test_a_value_of_another_type_is_refused() -> None:
    wrong = dataclasses.replace(call("r"), command=DeleteUser(name_key=7))  # type: ignore[arg-type]
    with pytest.raises(CodecError, match=r"DeleteUser\.name_key"):
        encode_call(wrong)


def test_names_of_commands_are_those_of_the_oneof() -> None:
    assert COMMANDS["authenticate"] is Authenticate
    assert all(re.fullmatch("[a-z_]+", name) for name in COMMANDS)
