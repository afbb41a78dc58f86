# SPDX-License-Identifier: Apache-2.0
"""Every method of the contract, from its request to the use case and back."""

import asyncio
import dataclasses
import re
import typing
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from sparecode.v1 import (
    administrators_pb2,
    administrators_pb2_grpc,
    emergency_access_pb2,
    emergency_access_pb2_grpc,
    policy_pb2,
)
from sparecode_node.domain.agents import Certificate
from sparecode_node.rpc.policy import policy_values
from sparecode_node.services.context import (
    AgentCaller,
    Anonymous,
    SessionCaller,
)
from sparecode_node.services.errors import InvalidFieldError
from sparecode_node.services.tokens.row_import import Import
from sparecode_node.services.use_cases import Services
from sparecode_node.statemachine.results import EmergencyAccessSaved
from tests.rpc.contract import ID, public
from tests.rpc.edge import AGENT, BEARER, RecordedCall, failure, running_edge
from tests.rpc.round_trip import Values, messages

SERVICES = {
    "AdministratorService": "administrators",
    "AgentService": "agents",
    "AuditService": "audit",
    "AuthenticationService": "authentication",
    "ClusterService": "membership",
    "EmergencyAccessService": "emergency",
    "MoveService": "user_moves",
    "NoticeService": "channels",
    "PolicyService": "policies",
    "SessionService": "sessions",
    "TokenService": "tokens",
    "UserService": "users",
}
"""The field of `Services` for each service of the contract; see also `USE_CASES`."""
USE_CASES = {
    "AdministratorService/Approve": "approvals.approve",
    "AdministratorService/ConfirmSecondFactor": "second_factors.confirm",
    "AdministratorService/EnrollSecondFactor": "second_factors.enroll",
    "AdministratorService/ListApprovals": "approvals.list",
    "AdministratorService/Reject": "approvals.reject",
    "AdministratorService/RemoveSecondFactor": "second_factors.remove",
    "AgentService/RegisterRadiusClient": "radius_clients.register",
    "AgentService/RotateRadiusSecret": "radius_clients.rotate_secret",
    "AgentService/CreateAgentKey": "agent_keys.create",
    "AgentService/UpdateRadiusClient": "radius_clients.update",
    "AuditService/ExportAuditEvents": "audit.export",
    "AuditService/GetCheckpoint": "audit.checkpoint",
    "AuditService/ListAuditEvents": "audit.list",
    "AuthenticationService/ContinueAuthentication": (
        "continuation.continue_authentication"
    ),
    "MoveService/ActivateMove": "user_moves.activate",
    "MoveService/CancelMove": "user_moves.cancel",
    "MoveService/DeleteMovedUsers": "user_moves.delete",
    "MoveService/EndMove": "user_moves.end",
    "MoveService/ExportMovedUsers": "user_moves.export",
    "MoveService/FreezeUsers": "user_moves.freeze",
    "MoveService/GetMoveKey": "user_moves.key",
    "MoveService/ImportMovedUsers": "user_moves.import_piece",
    "MoveService/ListMoves": "user_moves.list",
    "MoveService/PrepareMove": "user_moves.prepare",
    "MoveService/ReclaimMove": "user_moves.reclaim",
    "NoticeService/CreateChannel": "channels.create",
    "NoticeService/ListChannels": "channels.list",
    "NoticeService/ListNotices": "channels.notices",
    "NoticeService/PreviewNotices": "notice_previews.write",
    "NoticeService/RemoveChannel": "channels.remove",
    "NoticeService/SendNoticesAgain": "channels.send_again",
    "NoticeService/TestChannel": "channels.test",
    "NoticeService/UpdateChannel": "channels.update",
    "ClusterService/CreateBackup": "backups.create",
    "ClusterService/GetReview": "epoch_review.review",
    "ClusterService/GetStatus": "cluster.status",
    "ClusterService/ListMembers": "cluster.members",
    "ClusterService/OpenCluster": "epoch_review.open",
    "ClusterService/RotateKeys": "rotation.rotate",
    "ClusterService/WatchStatus": "cluster.watch",
    "EmergencyAccessService/BulkIssueTokencodes": "bulk.issue",
    "SessionService/CollectBrowserLogin": "browser_logins.collect",
    "SessionService/EndSession": "open_sessions.end",
    "SessionService/ListSessions": "open_sessions.list",
    "SessionService/StartBrowserLogin": "browser_logins.start",
    "TokenService/ImportTokenFile": "token_import.begin",
    "UserService/ExplainUser": "explanations.explain",
    "UserService/ImportUsers": "user_import.begin",
}
NOUNS = re.compile(
    "_(administrator|agent|certificate|emergency_access|policy|token|tokencode|user)s?$"
)
"""Nouns at the end of a method's name that its use case's name omits."""
WITHOUT_SESSION = {
    "SessionService/Login",
    "SessionService/StartBrowserLogin",
    "SessionService/CollectBrowserLogin",
}
STREAMED = "TokenService/ImportTokens"
"""The method whose request is a stream; see test_imports."""
CLASSES = {field.name: field.type for field in dataclasses.fields(Services)}
METHODS = {name: each for name, each in public().items() if name != STREAMED}


def use_case(method: str) -> tuple[str, str]:
    """Return the field of `Services` and the method that a method of the contract calls."""
    if method in USE_CASES:
        services, _, name = USE_CASES[method].partition(".")
        return services, name
    service, _, name = method.partition("/")
    words = re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()
    return SERVICES[service], NOUNS.sub("", words)


class SharedEdge:
    """One edge for all examples. Its event loop runs only during a call."""

    def __init__(self, runner: asyncio.Runner) -> None:
        self._runner = runner
        self._running = running_edge()
        self._edge = runner.run(self._running.__aenter__())
        self._admin = self._edge.admin()
        self._agents = self._edge.agents()

    def call(
        self, method: str, request: Message, answer: Any
    ) -> tuple[list[Message], list[tuple[str, RecordedCall]]]:
        """Call a method; return its responses and the calls of use cases."""
        for each in self._edge.services.values():
            each.answer = answer
            each.calls.clear()
        responses = self._runner.run(self._responses(method, request))
        return responses, [
            (name, call)
            for name, each in self._edge.services.items()
            for call in each.calls
        ]

    async def _responses(self, method: str, request: Message) -> list[Message]:
        is_agents = method.startswith("AuthenticationService/")
        channel = self._agents if is_agents else self._admin
        response = GetMessageClass(METHODS[method].output_type)
        open_method = (
            channel.unary_stream
            if METHODS[method].server_streaming
            else channel.unary_unary
        )
        call = open_method(
            f"/sparecode.v1.{method}",
            request_serializer=type(request).SerializeToString,
            response_deserializer=response.FromString,
        )(request, timeout=60, metadata=BEARER)
        if METHODS[method].server_streaming:
            return [each async for each in call]
        return [await call]

    def close(self) -> None:
        async def close() -> None:
            await self._admin.close()
            await self._agents.close()
            await self._running.__aexit__(None, None, None)

        self._runner.run(close())


@pytest.fixture(scope="module")
def edge() -> Iterator[SharedEdge]:
    with asyncio.Runner() as runner:
        edge = SharedEdge(runner)
        yield edge
        edge.close()


async def _stream(values: list[Any]) -> AsyncIterator[Any]:
    for value in values:
        yield value


def answer_for(
    method: MethodDescriptor, hint: Any, request: Message, responses: list[Message]
) -> Any:
    """Return the answer of the use case that leads to these responses."""
    values = Values(of_request=False)
    if method.full_name.endswith(".UpdatePolicy"):
        responses[0].version = request.policy.version + 1
    if method.full_name.endswith(".CollectBrowserLogin"):
        responses[0].session = responses[0].session or "s"
        (hint, _) = typing.get_args(hint)
    if not method.server_streaming:
        return values.answer(hint, responses[0])
    (item, *_) = typing.get_args(hint)
    if typing.get_origin(hint) is not Import:
        return _stream([values.answer(item, each) for each in responses])
    rows = []
    for each in responses:
        each.rows = len(responses)
        row = each.user if "user" in each.DESCRIPTOR.fields_by_name else each.token
        row.SetInParent()
        rows.append(values.value(item, row))
    return Import(rows=len(rows), results=_stream(rows))


@pytest.mark.parametrize("name", METHODS)
@settings(
    max_examples=20,
    deadline=None,
    derandomize=True,
    phases=(Phase.explicit, Phase.generate),
)
@given(data=st.data())
def test_every_field_arrives_under_its_name(edge, name, data):
    """
    Each field of a request reaches the use case, each field of its answer the caller.

    The test draws the responses, and builds the answer of the use case from them.
    """
    method = METHODS[name]
    services, called = use_case(name)
    hints = typing.get_type_hints(getattr(CLASSES[services], called))
    del hints["context"]
    if name == "SessionService/WhoAmI":
        del hints["stale_ok"]  # Only the console sets it.
    if name in ("SessionService/Login", "SessionService/Reauthenticate"):
        del hints["passkey"]  # Only browsers have one.
    if name == "AuthenticationService/ContinueAuthentication":
        del hints["client_address"], hints["resource"]  # Only RADIUS has them.
    if name.startswith("AuthenticationService/"):
        del hints["is_guess"]  # RADIUS has passwords that are none.
    answer_hint = hints.pop("return")
    request = data.draw(messages(method.input_type))
    count = 2 if method.server_streaming else 1
    responses = [data.draw(messages(method.output_type)) for _ in range(count)]
    arguments, unused = Values(of_request=True).arguments(hints, request)
    assert not unused, "no argument of the use case holds these fields"
    answer = answer_for(method, answer_hint, request, responses)

    received, calls = edge.call(name, request, answer)

    assert received == responses
    ((called_services, call),) = calls
    assert (called_services, call.name) == (services, called)
    assert _without_lists(call.arguments) == arguments
    assert call.context.method == name
    assert call.context.request_id == getattr(request, "request_id", "")
    assert call.context.device_cookie == getattr(request, "device_cookie", "")
    assert call.context.etag == getattr(request, "etag", "")
    assert 0 < call.context.deadline_s < 60
    assert call.context.peer == "127.0.0.1"
    assert call.context.caller == _caller(name)


def _without_lists(arguments: dict[str, Any]) -> dict[str, Any]:
    return {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in arguments.items()
    }


def _caller(method: str) -> AgentCaller | Anonymous | SessionCaller:
    if method.startswith("AuthenticationService/"):
        certificate = x509.load_pem_x509_certificate(AGENT.certificate)
        return AgentCaller(
            identity="sparecode://agent/vpn",
            certificate=Certificate(
                fingerprint=certificate.fingerprint(SHA256()).hex(),
                serial_number=f"{certificate.serial_number:x}",
            ),
        )
    if method in WITHOUT_SESSION:
        return Anonymous()
    return SessionCaller(bearer="s3cret-bearer")


@pytest.mark.asyncio
async def test_response_warns_of_codes_for_a_token_without_a_pin():
    """(R) Anyone who finds such codes can use them."""
    async with running_edge() as edge, edge.admin() as channel:
        edge.services["emergency"].answer = EmergencyAccessSaved(
            index=7,
            at_ms=1_000,
            set_id="s",
            codes=2,
            live_codes=3,
            voided_codes=4,
            ends_at_ms=None,
            pin_missing_warning=True,
        )
        stub = emergency_access_pb2_grpc.EmergencyAccessServiceStub(channel)
        request = emergency_access_pb2.SaveEmergencyAccessRequest(serial="1")
        response = await stub.SaveEmergencyAccess(request, metadata=BEARER)
    assert "no PIN" in response.saved.warnings[0]


def test_policy_duration_below_a_millisecond_is_not_zero():
    """(I7) A lifetime cap of 0 means that there is none."""
    tiny = policy_pb2.Policy(lifetime_max=Duration(nanos=1))
    with pytest.raises(InvalidFieldError, match="less than a millisecond"):
        policy_values(tiny)
    assert policy_values(policy_pb2.Policy(lifetime_max=Duration())) == {
        "lifetime_ms_max": 0
    }


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("method", "request_", "field"),
    [
        ("Create", {"role": 2}, "link"),
        ("Create", {"role": 2, "no_user": False}, "no_user"),
        ("Create", {"role": 2, "username": ""}, "username"),
        ("Create", {"no_user": True}, "role"),
        ("Update", {"role": 99}, "role"),
        ("Update", {"no_user": False}, "no_user"),
    ],
)
async def test_administrator_needs_a_role_and_a_link_or_no_user(
    method, request_, field
):
    """(I10) The link to a user must be set or explicitly refused, never forgotten."""
    name = f"{method}Administrator"
    message = getattr(administrators_pb2, f"{name}Request")(request_id=ID, **request_)
    async with running_edge() as edge, edge.admin() as channel:
        stub = administrators_pb2_grpc.AdministratorServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await getattr(stub, name)(message, timeout=60, metadata=BEARER)
        assert not edge.services["administrators"].calls
    assert failure(raised.value).field == field
