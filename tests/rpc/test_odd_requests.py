# SPDX-License-Identifier: Apache-2.0
"""Random requests to every method never cause an internal error."""

import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor

from tests.rpc.contract import public
from tests.rpc.loopback_node import LoopbackNode, new_id, running_node

pytestmark = pytest.mark.asyncio

CALLS = 400
DEPTH_MAX = 3
ENDLESS = {"WatchStatus"}
OF_THE_SESSION = {"Logout", "LogoutEverywhere", "ChangePassword"}
"""They end the session that all other calls use."""

TEXTS = (
    *("", " ", "1", "alice", "ALICE", "root", "vpn", "-1", "999999999999999999999"),
    *("a" * 63, "a" * 65, "x" * 5000, "\ufdfa" * 60, "ß", "\U0010ffff", "\u202e"),
    *("\0", "\n", "%", "_", "'; DROP TABLE users;--", "=1+1", "2468", "123456"),
    *("age1" + "q" * 58, "10.0.0.4:7301", "[::1]:1", "sparecode://agent/vpn"),
)
BYTES = (
    *(b"", bytes(16), b"a seed of twenty byt", b"\xff" * 64, b"x" * 5000),
    *(b'username\nbob\n"', "\ufeffusername,email\r\n=cmd,x\r\n".encode(), b"<a/>"),
)
NUMBERS = (0, 1, -1, 2, 10, 50, 2**31 - 1, -(2**31))
LARGE = (*NUMBERS, 2**63 - 1, -(2**63), 253_402_300_799, -62_135_596_800)
UNSIGNED = (0, 1, 2**32 - 1)

SCALARS: dict[int, tuple[Any, ...]] = {
    FieldDescriptor.TYPE_STRING: TEXTS,
    FieldDescriptor.TYPE_BYTES: BYTES,
    FieldDescriptor.TYPE_BOOL: (True, False),
    FieldDescriptor.TYPE_ENUM: (0, 1, 2, 3, 99, -1),
    FieldDescriptor.TYPE_INT32: NUMBERS,
    FieldDescriptor.TYPE_INT64: LARGE,
    FieldDescriptor.TYPE_UINT32: UNSIGNED,
    FieldDescriptor.TYPE_UINT64: UNSIGNED,
}
LIKELY = {"serial": "1", "username": "alice", "node_id": "n" * 63}


class Odd:
    """Draws requests: some fields valid, some missing, most of them odd."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def method(self, methods: list[MethodDescriptor]) -> MethodDescriptor:
        return self._random.choice(methods)

    def message(self, kind: Descriptor, depth: int = 0) -> Any:
        message = message_factory.GetMessageClass(kind)()
        for field in kind.fields:
            if depth > DEPTH_MAX or self._random.random() < 0.3:
                continue
            if field.is_repeated:
                for _ in range(self._random.randrange(4)):
                    value = self._value(field, depth)
                    getattr(message, field.name).extend([value])
            elif field.type == field.TYPE_MESSAGE:
                getattr(message, field.name).CopyFrom(self._value(field, depth))
            else:
                setattr(message, field.name, self._value(field, depth))
        return message

    def _value(self, field: FieldDescriptor, depth: int) -> Any:
        if field.message_type is not None:
            return self.message(field.message_type, depth + 1)
        if field.name == "request_id" and self._random.random() < 0.9:
            return new_id()
        if field.name in LIKELY and self._random.random() < 0.6:
            return LIKELY[field.name]
        return self._random.choice(SCALARS[field.type])


def methods() -> list[MethodDescriptor]:
    return [
        method
        for method in public().values()
        if method.name not in ENDLESS | OF_THE_SESSION
    ]


async def answered(
    node: LoopbackNode,
    channel: grpc.aio.Channel,
    method: MethodDescriptor,
    requests: list[Any],
) -> grpc.StatusCode:
    """Return the status of a call, with all of its answers read."""
    kinds = [["unary_unary", "unary_stream"], ["stream_unary", "stream_stream"]]
    kind = kinds[method.client_streaming][method.server_streaming]
    call = getattr(channel, kind)(
        f"/{method.containing_service.full_name}/{method.name}",
        lambda request: request.SerializeToString(),
        message_factory.GetMessageClass(method.output_type).FromString,
    )

    async def stream() -> AsyncIterator[Any]:
        for request in requests:
            yield request

    responses = call(
        stream() if method.client_streaming else requests[0],
        timeout=60,
        metadata=node.bearer,
    )
    try:
        if method.server_streaming:
            async for _ in responses:
                pass
        else:
            await responses
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK


@pytest.mark.parametrize("seed", range(3))
async def test_random_requests_never_cause_an_internal_error(
    tmp_path: Path, seed: int
) -> None:
    """Invalid input gets a clear error. `INTERNAL` is only for bugs of the node."""
    odd, codes = Odd(seed), set()
    async with running_node(tmp_path) as node:
        await node.populate()
        async with node.admin() as admin, node.agents() as agents:
            for _ in range(CALLS):
                method = odd.method(methods())
                service = method.containing_service.name
                channel = agents if service == "AuthenticationService" else admin
                requests = [odd.message(method.input_type) for _ in range(2)]
                code = await answered(node, channel, method, requests)
                codes.add(code)
                assert code not in (
                    grpc.StatusCode.INTERNAL,
                    grpc.StatusCode.UNKNOWN,
                    grpc.StatusCode.DEADLINE_EXCEEDED,
                ), (method.full_name, requests)
        assert {grpc.StatusCode.OK, grpc.StatusCode.INVALID_ARGUMENT} <= codes
