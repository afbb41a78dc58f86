# SPDX-License-Identifier: Apache-2.0
"""
Messages drawn from the contract, and the values of the node that correspond to them.

This is a second opinion on `sparecode_node.rpc`: it knows the descriptors and the type
hints of the use cases, and matches them by name. `RENAMED` and `SPECIAL` list every
place where a name or a form differs.
"""

import dataclasses
import re
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import strategies as st

from sparecode_node.domain.agents import CertificateMark, Protects
from sparecode_node.domain.emergency_access import RecoveryPolicy
from sparecode_node.domain.policy import Policy
from sparecode_node.domain.tokencodes import HashName
from sparecode_node.queries.cluster import LastBackup
from sparecode_node.queries.views import DeniedCertificateView, Page
from sparecode_node.rpc.tickets import to_text
from sparecode_node.services.cluster.status import MemberView
from sparecode_node.services.context import Read
from sparecode_node.services.emergency.emergency_access import IssuedCodes, ShownCode
from sparecode_node.services.files.audit_export import ExportFormat
from sparecode_node.services.people.administrators import Link
from sparecode_node.services.secrets.tickets import JoinTicket
from sparecode_node.services.tokens.token_import import ImportedRow
from sparecode_node.services.tokens.user_import import ImportedUser
from sparecode_node.statemachine.results import EmergencyAccessSaved
from tests.rpc.edge import NODE

IN_CONTEXT = (".device_cookie", ".etag", ".request_id")
"""Fields of a request that are in the context of the call, and in no argument."""

RENAMED: Mapping[str, tuple[str, ...]] = {
    "asked_at_ms": ("ask_time", "request_time"),
    "at_ms": ("event_time", "commit_time", "checkpoint_time", "time"),
    "bearer": ("session",),
    "began_at_ms": ("begin_time",),
    "created_at_ms": ("create_time",),
    "dead": ("dead_count",),
    "denied_at_ms": ("deny_time", "denied_time"),
    "draft_ends_at_ms": ("draft_end_time",),
    "due_at_ms": ("due_time",),
    "end_ms": ("end_time",),
    "ended_at_ms": ("end_time",),
    "ends_at_ms": ("end_time", "draft_end_time"),
    "every": ("total",),
    "every_ms": ("interval",),
    "expires_at_ms": ("expire_time",),
    "form": ("format",),
    "former_ends_at_ms": ("former_end_time",),
    "former_secret_ends_at_ms": ("former_secret_end_time",),
    "hash_name": ("hash",),
    "identity": ("certificate_identity",),
    "index": ("commit.index", "last_backup_index"),
    "issued_at_ms": ("issue_time",),
    "items": ("events",),
    "last_at_ms": ("last_time",),
    "removed_at_ms": ("remove_time",),
    "removal_begins_ms": ("removal_begin_time",),
    "confirmed_at_ms": ("confirm_time",),
    "key_created_at_ms": ("key_create_time",),
    "last_packet_ms": ("last_packet_time",),
    "mark": ("review",),
    "node": ("node_id",),
    "oldest_at_ms": ("oldest_time",),
    "opened_at_ms": ("open_time",),
    "page": ("verification_uri",),
    "period_s": ("period_seconds",),
    "public_id": ("session_id",),
    "recovery": ("recovery_policy",),
    "searched_to_ms": ("searched_to_time",),
    "secret_created_at_ms": ("secret_create_time",),
    "session_timeout_s": ("session_timeout_seconds",),
    "retires_at_ms": ("retire_time",),
    "since_ms": ("since_time",),
    "start_ms": ("start_time",),
    "state_at_ms": ("state_time",),
    "taken_at_ms": ("take_time", "last_backup_time"),
    "temporary": ("password_temporary",),
    "unused_end_ms": ("unused_end_time",),
    "used_at_ms": ("use_time",),
    "version": ("policy.version",),
    "waiting": ("waiting_count",),
    "criteria": ("filter",),
    "withheld": ("codes_withheld", "code_withheld"),
}
"""Names in the node, and in the contract. A name may also just lose its `_ms`."""

DEFAULTS: Mapping[type, Enum] = {
    ExportFormat: ExportFormat.JSON_LINES,
    HashName: HashName.SHA1,
    Protects: Protects.AUTHENTICATION_MANAGER,
    RecoveryPolicy: RecoveryPolicy.DENY,
}
"""What an enumeration of a request means when it is not set."""

TIMES = ("Timestamp", "Duration")
NUMBERS = st.one_of(st.just(0), *3 * [st.integers(1, 1_000_000)])


@st.composite
def messages(draw: st.DrawFn, descriptor: Descriptor) -> Message:
    """Draw a message. Two of its fields that hold anything hold different things."""
    message = GetMessageClass(descriptor)()
    for field in descriptor.fields:
        if field.full_name == "sparecode.v1.Commit.node_id":
            setattr(message, field.name, NODE)
        elif field.is_repeated:
            count = draw(st.integers(0, 3))
            items = [draw(_contents(field)) for _ in range(count)]
            getattr(message, field.name).extend(items)
        elif field.name == "commit" or not field.has_presence or draw(st.booleans()):
            content = draw(_contents(field))
            if field.message_type:
                getattr(message, field.name).CopyFrom(content)
            else:
                setattr(message, field.name, content)
    return message


def _contents(field: FieldDescriptor) -> st.SearchStrategy[Any]:
    """Return what a field may hold. What is in a oneof is never empty or false."""
    numbers = NUMBERS.map(lambda number: number and number * 64 + field.number)
    if in_oneof(field):
        numbers = numbers.filter(bool)
    if is_time(field):
        return numbers.map(
            lambda ms: GetMessageClass(field.message_type)(
                seconds=ms // 1000, nanos=ms % 1000 * 1_000_000
            )
        )
    if field.message_type:
        return messages(field.message_type)
    if field.enum_type:
        return st.sampled_from([each.number for each in field.enum_type.values])
    if field.type == FieldDescriptor.TYPE_BOOL:
        return st.just(True) if in_oneof(field) else st.booleans()
    if field.type == FieldDescriptor.TYPE_STRING:
        return numbers.map(lambda number: f"{field.name} {number}" if number else "")
    if field.type == FieldDescriptor.TYPE_BYTES:
        return numbers.map(lambda number: b"%d" % number if number else b"")
    return numbers


def is_time(field: FieldDescriptor) -> bool:
    """Return whether the field is a timestamp or a duration."""
    return field.message_type is not None and field.message_type.name in TIMES


def in_oneof(field: FieldDescriptor) -> bool:
    """Return whether the field is in a oneof that the contract names."""
    oneof = field.containing_oneof
    return oneof is not None and oneof.name != f"_{field.name}"


class Values:
    """
    Builds the values that correspond to one message.

    Of a request it records which fields it used. In a response it fills in what the
    node always sets, so that the node can give this response.
    """

    def __init__(self, *, of_request: bool) -> None:
        self._of_request = of_request
        self._used: set[str] = set()

    def arguments(
        self, hints: Mapping[str, Any], request: Message
    ) -> tuple[dict[str, Any], set[str]]:
        """Return the arguments of a use case, and the fields that none of them holds."""
        arguments = {
            name: self._attribute(name, hint, request) for name, hint in hints.items()
        }
        unused = set(_names(request)) - self._used
        return arguments, {name for name in unused if not name.endswith(IN_CONTEXT)}

    def answer(self, hint: Any, response: Message) -> Any:
        """Return the answer of a use case that gives this response."""
        own = [each for each in response.DESCRIPTOR.fields if each.name != "position"]
        origin, inner = typing.get_origin(hint), typing.get_args(hint)
        if origin is Read:
            response.position.SetInParent()
            position = {
                field.name: getattr(response.position, field.name)
                for field in response.position.DESCRIPTOR.fields
            }
            return Read(value=self.answer(inner[0], response), **position)
        if origin is Page:
            (items,) = (each for each in own if each.is_repeated)
            return Page(
                items=self._items(inner[0], getattr(response, items.name)),
                next_page_token=response.next_page_token,
            )
        if origin is tuple:
            return self._items(inner[0], getattr(response, own[0].name))
        if not _attributes(hint):
            return getattr(response, own[0].name) if own else None
        if len(own) == 1 and own[0].message_type:
            response = getattr(response, own[0].name)
            response.SetInParent()
        return self.value(hint, response)

    def value(self, hint: Any, message: Message) -> Any:
        """Return the value of a class that corresponds to a message."""
        return SPECIAL.get(hint, Values.record)(self, message, hint)

    def record(self, message: Message, hint: Any, **known: Any) -> Any:
        """Return the value of a dataclass whose attributes are matched by name."""
        hints = typing.get_type_hints(hint)
        attributes = {
            name: self._attribute(name, hints[name], message)
            for name in _attributes(hint)
            if name not in known
        }
        return hint(**known, **attributes)

    def use(self, message: Message, *names: str) -> None:
        """Record fields of a message as used."""
        self._used.update(f"{message.DESCRIPTOR.full_name}.{name}" for name in names)

    def _items(self, hint: Any, items: Any) -> tuple[Any, ...]:
        return tuple(self.value(hint, each) for each in items)

    def _attribute(self, name: str, hint: Any, message: Message) -> Any:
        optional = type(None) in typing.get_args(hint)
        if optional:
            (hint,) = set(typing.get_args(hint)) - {type(None)}
        place = _place(name, message)
        if place is not None:
            self.use(place[0], place[1].name)
            return self._content(hint, *place, optional=optional)
        if hint in SPECIAL or _attributes(hint):
            return self.value(hint, message)
        return None if optional else _empty(hint)

    def _content(
        self, hint: Any, holder: Message, field: FieldDescriptor, *, optional: bool
    ) -> Any:
        raw = getattr(holder, field.name)
        if field.is_repeated:
            item = typing.get_args(hint)[0]
            if field.enum_type:
                return self._members(item, raw, field)
            return self._items(item, raw) if field.message_type else tuple(raw)
        if field.has_presence and not holder.HasField(field.name):
            if optional:
                return None
            if not self._of_request:
                _fill(holder, field)
        if is_time(field):
            return raw.ToMilliseconds()
        if field.message_type:
            return self.value(hint, raw)
        if isinstance(hint, type) and issubclass(hint, Enum):
            return self._member(hint, holder, field, optional=optional)
        return None if optional and not field.has_presence and not raw else raw

    def _members(self, hint: Any, raw: Any, field: FieldDescriptor) -> tuple[Any, ...]:
        """Return the members of a list; it must have none that is not set."""
        numbers = [number or 1 for number in raw]
        del raw[:]
        raw.extend(numbers)
        return tuple(hint[_member_name(field, number)] for number in numbers)

    def _member(
        self, hint: Any, holder: Message, field: FieldDescriptor, *, optional: bool
    ) -> Enum | None:
        """Return the member of an enumeration: its name is that in the contract."""
        raw = getattr(holder, field.name)
        if field.enum_type is None:  # The contract has the value, as a string.
            member: Enum = list(hint)[len(raw) % len(hint)]
            setattr(holder, field.name, member.value)
            return member
        if not raw and optional:
            return None
        if not raw and self._of_request and hint in DEFAULTS:
            return DEFAULTS[hint]
        if not raw:
            setattr(holder, field.name, raw := 1)
        named: Enum = hint[_member_name(field, raw)]
        return named


def _member_name(field: FieldDescriptor, number: int) -> str:
    """Return the name of a member without the prefix of its enumeration."""
    prefix = re.sub(r"(?<!^)(?=[A-Z])", "_", field.enum_type.name).upper()
    name: str = field.enum_type.values_by_number[number].name
    return name.removeprefix(f"{prefix}_")


def _fill(holder: Message, field: FieldDescriptor) -> None:
    if field.message_type:
        getattr(holder, field.name).SetInParent()
    elif not in_oneof(field):
        setattr(holder, field.name, getattr(holder, field.name))


def _attributes(hint: Any) -> tuple[str, ...]:
    """Return the names of what a dataclass or named tuple holds; empty for others."""
    if dataclasses.is_dataclass(hint):
        return tuple(each.name for each in dataclasses.fields(hint))
    return tuple(getattr(hint, "_fields", ()))


def _place(name: str, message: Message) -> tuple[Message, FieldDescriptor] | None:
    """Return the field for an attribute, and the message that holds it."""
    for candidate in (name, *RENAMED.get(name, ()), name.replace("_ms", "")):
        holder = message
        *path, last = candidate.split(".")
        for step in path:
            if step not in holder.DESCRIPTOR.fields_by_name:
                break
            holder = getattr(holder, step)
            holder.SetInParent()
        else:
            if last in holder.DESCRIPTOR.fields_by_name:
                return holder, holder.DESCRIPTOR.fields_by_name[last]
    return None


def _names(message: Message) -> Iterator[str]:
    for field, content in message.ListFields():
        yield field.full_name
        if field.message_type and not field.message_type.full_name.startswith("google"):
            for each in content if field.is_repeated else [content]:
                yield from _names(each)


def _empty(hint: Any) -> Any:
    """Return the empty value of a type: the contract has nothing for it."""
    if isinstance(hint, type) and issubclass(hint, Enum):
        return next(iter(hint))
    kind = typing.get_origin(hint) or getattr(hint, "__supertype__", hint)
    return None if kind in (types.NoneType, Any) else kind()


def _link(values: Values, request: Any, _: Any) -> Link | None:
    values.use(request, "username", "no_user")
    if request.WhichOneof("link") is None:
        if request.DESCRIPTOR.name.startswith("Update"):
            return None
        request.username = "must be set"
    return Link(request.username)  # Empty: no user.


def _policy_values(values: Values, request: Any, _: Any) -> dict[str, Any]:
    values.use(request, "policy")
    policy = values.record(request.policy, Policy)
    return {
        each: getattr(policy, each)
        for each in _attributes(Policy)
        if each != "version"
        and request.policy.HasField(_place(each, request.policy)[1].name)
    }


def _denied(values: Values, message: Any, hint: Any) -> Any:
    mark = CertificateMark.FINGERPRINT
    if message.serial_number:
        message.fingerprint, mark = "", CertificateMark.SERIAL_NUMBER
    return values.record(message, hint, mark=mark, value=getattr(message, mark.value))


def _member(values: Values, message: Any, hint: Any) -> Any:
    role = message.DESCRIPTOR.fields_by_name["role"].enum_type.values[message.role].name
    message.reachable = role != "MEMBER_ROLE_UNSPECIFIED"
    primary, voter = role == "MEMBER_ROLE_PRIMARY", role != "MEMBER_ROLE_LEARNER"
    if not message.reachable:  # A voter's role is then unspecified, whatever is known.
        primary = bool(message.term % 2)
    elif not voter:  # A learner's is known.
        message.reachable = bool(message.lag % 2)
    return values.record(message, hint, is_primary=primary, votes=voter)


def _last_backup(values: Values, message: Any, hint: Any) -> Any:
    if message.HasField("last_backup_time"):
        return values.record(message, hint)
    message.last_backup_index = 0
    return None


def _issued(values: Values, message: Any, hint: Any) -> Any:
    if "code" not in message.DESCRIPTOR.fields_by_name:
        return values.record(message, hint)
    codes = (ShownCode(ordinal=1, code=message.code),) if message.code else ()
    return values.record(message, hint, codes=codes)


def _saved(values: Values, message: Any, hint: Any) -> Any:
    del message.warnings[:]
    message.commit.node_id = NODE
    return values.record(message, hint)


def _ticket(values: Values, message: Any, hint: Any) -> Any:
    ticket = values.record(message, hint, node_id="n4", secret=b"s")
    message.ticket = to_text(ticket)
    return ticket


def _policy(values: Values, message: Any, hint: Any) -> Any:
    message.lifetime_max.SetInParent()
    message.audit_retention.SetInParent()
    policy = values.record(message, hint)
    return dataclasses.replace(
        policy,
        lifetime_ms_max=policy.lifetime_ms_max or None,
        audit_retention_ms=policy.audit_retention_ms or None,
    )


def _imported(values: Values, message: Any, hint: Any) -> Any:
    row = values.record(message, hint)
    message.reason = message.reason.upper()
    return row


SPECIAL: Mapping[Any, Callable[[Values, Any, Any], Any]] = {
    DeniedCertificateView: _denied,
    EmergencyAccessSaved: _saved,
    ImportedRow: _imported,
    ImportedUser: _imported,
    IssuedCodes: _issued,
    JoinTicket: _ticket,
    LastBackup: _last_backup,
    Link: _link,
    Mapping[str, Any]: _policy_values,
    MemberView: _member,
    Policy: _policy,
}
"""The classes that differ from the contract in more than names."""
