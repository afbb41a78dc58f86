# SPDX-License-Identifier: Apache-2.0
"""Every method of every public gRPC service, called by every caller at every listener."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import grpc
from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from tests.rpc.contract import public, well_formed
from tests.rpc.edge import Failure, failure
from tests.security.callers import NO_APPROVAL, TIMEOUT_S, Administration, Caller
from tests.security.callers_table import (
    ABSENT,
    CLOSED,
    MAY,
    OWN,
    PASSWORD,
    ROLE,
    SIGN_IN,
    UNCLEAR,
    WORDS,
)
from tests.security.whole_node import WholeNode

CODE = grpc.StatusCode
REASONS = {
    "SESSION_ENDED": SIGN_IN,
    "ROLE": ROLE,
    "SESSION_UNKNOWN": ROLE,  # It is open, but another administrator's.
    "PASSWORD_CHANGE_NEEDED": PASSWORD,
    "SELF_SERVICE_FORBIDDEN": OWN,
}
UNCERTAIN = frozenset(
    {
        CODE.ABORTED,
        CODE.CANCELLED,
        CODE.DEADLINE_EXCEEDED,
        CODE.INTERNAL,
        CODE.RESOURCE_EXHAUSTED,
        CODE.UNAVAILABLE,
        CODE.UNKNOWN,
    }
)
"""Such an answer does not tell what the caller may do."""
LAST = (
    "ClusterService/RotateKeys",
    "SessionService/Logout",
    "SessionService/LogoutEverywhere",
)
"""Called last, because the others would meet their effect."""
ALICE = "alice"
"""The name in well-formed requests."""
FIELDS: Mapping[str, Mapping[str, Any]] = {
    "AdministratorService/Approve": {"approval_id": NO_APPROVAL},
    "AuthenticationService/ContinueAuthentication": {"new_pin": ""},
    "EmergencyAccessService/IssueTokencodes": {
        "by_message": False,
        "to_manager": False,
    },
    # Wrong passwords for a real name would make it wait.
    "SessionService/Login": {"administrator": ALICE, "second_factor": ""},
    "SessionService/Reauthenticate": {"second_factor": ""},
}
"""What differs from a well-formed request, which these would refuse as such."""


def methods() -> Mapping[str, MethodDescriptor]:
    """Return every method of a public service, in the order of the calls."""
    every = {
        **public(),
        **{
            f"{service.name}/{method.name}": method
            for file in (health_pb2, reflection_pb2)
            for service in file.DESCRIPTOR.services_by_name.values()
            for method in service.methods
        },
    }
    return dict(sorted(every.items(), key=lambda each: each[0] in LAST))


async def outcomes(
    node: WholeNode, root: Administration, caller: Caller
) -> Mapping[str, str]:
    """
    Return what happened to each call of a caller.

    It calls at each listener; the one that does most for it counts.
    """
    happened = {}
    async with _channels(node, caller) as channels:
        for name, method in methods().items():
            if name in LAST:
                caller = await root.signed_in(caller)
            request = await _request(name, method, root, caller)
            answers = [
                await _outcome(channel, method, request, caller) for channel in channels
            ]
            happened[name] = min(answers, key=[UNCLEAR, *WORDS].index)
    return happened


@asynccontextmanager
async def _channels(
    node: WholeNode, caller: Caller
) -> AsyncIterator[Sequence[grpc.aio.Channel]]:
    """Connect to every listener."""
    own = caller.certificate
    credentials = grpc.ssl_channel_credentials(
        node.file("members-ca.pem"),
        private_key=node.file(f"{own}.key") if own else None,
        certificate_chain=node.file(f"{own}.pem") if own else None,
    )
    place = node.place
    channels = [
        grpc.aio.secure_channel(address, credentials)
        for address in (place.admin_address, place.agents_address, place.peers_address)
    ]
    yield channels
    await asyncio.gather(*(each.close() for each in channels))


async def _request(
    name: str, method: MethodDescriptor, root: Administration, caller: Caller
) -> Message:
    """Return a well-formed request: it is refused for its caller, or for what exists."""
    if not method.full_name.startswith("sparecode."):
        return GetMessageClass(method.input_type)()
    request = _about(well_formed(method.input_type), caller.about)
    for field, value in FIELDS.get(name, {}).items():
        setattr(request, field, value)
    match name:
        case "AdministratorService/ChangePassword" if caller.name == "temporary":
            request.name = ""
        case "AdministratorService/Reject":
            request.approval_id = caller.approval_id
        case "EmergencyAccessService/SaveEmergencyAccess" if caller.draft:
            request.draft = caller.draft
        case "SessionService/EndSession":
            request.session_id = await root.open_session_of(caller)
        case "UserService/ImportUsers":
            request.content = f"username\n{caller.about}\n".encode()
            request.from_row = 0
    return request


def _about(message: Message, name: str) -> Message:
    """Put *name* in place of alice, in every field."""
    for field, value in message.ListFields():
        if field.message_type:
            for each in value if field.is_repeated else (value,):
                _about(each, name)
        elif field.type == FieldDescriptor.TYPE_STRING and field.is_repeated:
            value[:] = [name if each == ALICE else each for each in value]
        elif value == ALICE:
            setattr(message, field.name, name)
    return message


async def _outcome(
    channel: grpc.aio.Channel,
    method: MethodDescriptor,
    request: Message,
    caller: Caller,
) -> str:
    """Call a method, and return what happened, in a word."""
    begin = getattr(
        channel,
        f"{'stream' if method.client_streaming else 'unary'}_"
        f"{'stream' if method.server_streaming else 'unary'}",
    )(
        f"/{method.containing_service.full_name}/{method.name}",
        request_serializer=lambda each: each.SerializeToString(),
        response_deserializer=GetMessageClass(method.output_type).FromString,
    )
    call = begin(
        iter([request]) if method.client_streaming else request,
        timeout=TIMEOUT_S,
        metadata=caller.metadata,
    )
    try:
        answer = await (call.read() if method.server_streaming else call)
    except grpc.aio.AioRpcError as error:
        return _word(failure(error), method, caller)
    finally:
        call.cancel()
    row = getattr(answer, "user", answer)
    return REASONS.get(getattr(row, "reason", ""), MAY)


def _word(refusal: Failure, method: MethodDescriptor, caller: Caller) -> str:
    if refusal.code is CODE.UNIMPLEMENTED:
        return ABSENT
    if refusal.code is CODE.UNAVAILABLE and not refusal.reason:
        return CLOSED
    assert refusal.code not in UNCERTAIN, f"{method.full_name}: {refusal}"
    if refusal.code is CODE.INVALID_ARGUMENT and not caller.administrator:
        return UNCLEAR
    return REASONS.get(refusal.reason, MAY)
