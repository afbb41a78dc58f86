# SPDX-License-Identifier: Apache-2.0
"""Every method of the contract, read from the generated code, and requests for them."""

import importlib
import pkgutil
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.timestamp_pb2 import Timestamp

from sparecode.internal import v1 as internal
from sparecode.v1 import types_pb2

ID = "6f1c1c9e-2d1f-4b8e-9f55-0d3a3f6e7a10"
CONTENTS: Mapping[str, Any] = {
    "activated_lock": bytes(32),
    "address": "h:1",
    "backup_recipients": "",
    "canceled_lock": bytes(32),
    "code": "123456",
    "code_alphabet": "23456789ABCDEFGHJKMNPQRSTUVWXYZ",
    "counter": 0,
    "digits": 6,
    "end_time": Timestamp(seconds=1_900_000_000),
    "email": "alice@example.net",
    "etag": "",  # A random one would be refused.
    "fingerprint": "ab" * 32,
    "first_tokencode": "123456",
    "further_code_lengths": "",
    "interval": Duration(seconds=1),
    "kind": "codes_issued",
    "language": "de",
    "leave_groups": "guests",
    "manager_email": "boss@example.net",
    "new_password": "fifteen or more",
    "new_pin": "4711",
    "next_tokencode": "654321",
    "page_token": "",
    "password": "fifteen or more",
    "period_seconds": 30,
    "pin": "3682",
    "public_key": bytes(range(32)),
    "receipt": bytes(32),
    "remove_groups": "guests",
    "remove_usernames": "bob",
    "replacement_serial": "2",
    "request_id": ID,
    "review": "0123456789abcdef",
    "second_tokencode": "654321",
    "serial_number": "",  # A certificate has one mark.
}
"""The content of fields that may not hold just anything of their type."""


def _files(package: str, paths: list[str]) -> Iterator[ModuleType]:
    for module in pkgutil.iter_modules(paths):
        if module.name.endswith("_pb2"):
            yield importlib.import_module(f"{package}.{module.name}")


def _methods(files: Iterator[ModuleType]) -> Iterator[MethodDescriptor]:
    for file in files:
        for service in file.DESCRIPTOR.services_by_name.values():
            yield from service.methods


def public() -> dict[str, MethodDescriptor]:
    """Return every method of agents and administrators, as `TokenService/GetToken`."""
    package, _, _ = types_pb2.__name__.rpartition(".")
    paths = list(importlib.import_module(package).__path__)
    return {
        f"{method.containing_service.name}/{method.name}": method
        for method in _methods(_files(package, paths))
    }


def between_members() -> dict[str, MethodDescriptor]:
    """Return every method that members, and joining nodes, call on a member."""
    return {
        f"{method.containing_service.name}/{method.name}": method
        for method in _methods(_files(internal.__name__, list(internal.__path__)))
    }


def well_formed(descriptor: Descriptor) -> Message:
    """Return a message with every field set, and only one of each oneof."""
    message = GetMessageClass(descriptor)()
    for field in descriptor.fields:
        oneof = field.containing_oneof
        if oneof is not None and oneof.fields[0] is not field:
            continue
        value = _value(field)
        if field.is_repeated:
            getattr(message, field.name).extend([value])
        elif field.message_type:
            getattr(message, field.name).CopyFrom(value)
        else:
            setattr(message, field.name, value)
    return message


def _value(field: FieldDescriptor) -> Any:
    if field.name in CONTENTS and field.enum_type is None:
        return CONTENTS[field.name]
    if field.message_type and field.message_type.file.package == "google.protobuf":
        return GetMessageClass(field.message_type)(seconds=1_800_000_000)
    if field.message_type:
        return well_formed(field.message_type)
    if field.type == FieldDescriptor.TYPE_STRING:
        return "alice"
    return b"0123456789abcdef" if field.type == FieldDescriptor.TYPE_BYTES else 1
