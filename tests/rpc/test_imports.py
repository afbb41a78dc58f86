# SPDX-License-Identifier: Apache-2.0
"""Uploaded files of tokens and users: joined, limited, and answered by row."""

import asyncio
from collections.abc import AsyncGenerator

import grpc
import pytest

from sparecode.v1 import tokens_pb2, tokens_pb2_grpc, types_pb2, users_pb2
from sparecode.v1.users_pb2_grpc import UserServiceStub
from sparecode_node.domain.pins import PinRule
from sparecode_node.replication.errors import OutcomeUnknownError
from sparecode_node.services.files.token_files import TokenFile, TokenFileFormat
from sparecode_node.services.tokens.row_import import Import
from sparecode_node.services.tokens.token_import import ImportedRow
from tests.rpc.contract import ID
from tests.rpc.edge import BEARER, failure, running_edge

pytestmark = pytest.mark.asyncio

CODE = grpc.StatusCode
ROWS = (
    ImportedRow(row=1, serial="1", imported=True),
    ImportedRow(row=2, serial="2", imported=False, problem="it exists", reason="a_b"),
)
ON_THE_WIRE = [
    tokens_pb2.ImportedToken(row=1, serial="1", imported=True),
    tokens_pb2.ImportedToken(row=2, serial="2", problem="it exists", reason="A_B"),
]


def pieces(*parts: bytes) -> list[tokens_pb2.ImportTokensRequest]:
    header = tokens_pb2.ImportTokensHeader(
        request_id=ID,
        format=tokens_pb2.TOKEN_FILE_FORMAT_PSKC,
        password="pw",
        key=b"k",
        default_pin_rule=types_pb2.PIN_RULE_NONE,
    )
    return [
        tokens_pb2.ImportTokensRequest(header=header),
        *(tokens_pb2.ImportTokensRequest(content=part) for part in parts),
    ]


def one_file(content: bytes = b"<a>", **fields: object):
    return tokens_pb2.ImportTokenFileRequest(
        **{
            "request_id": ID,
            "format": tokens_pb2.TOKEN_FILE_FORMAT_SDTID,
            "password": "pw",
            "default_pin_rule": types_pb2.PIN_RULE_PREPENDED,
            "content": content,
            **fields,
        }
    )


def imported(*rows: ImportedRow, error: Exception | None = None) -> Import[ImportedRow]:
    async def results() -> AsyncGenerator[ImportedRow, None]:
        for row in rows:
            yield row
        if error is not None:
            raise error

    return Import(rows=len(rows), results=results())


async def test_parts_of_a_file_are_joined_and_answered_by_row():
    """A row has its reason in the same form as a status (K4)."""
    async with running_edge() as edge, edge.admin() as channel:
        edge.services["token_import"].answer = imported(*ROWS)
        stub = tokens_pb2_grpc.TokenServiceStub(channel)
        response = await stub.ImportTokens(
            iter(pieces(b"<a", b">")), timeout=60, metadata=BEARER
        )
    (recorded,) = edge.services["token_import"].calls
    assert recorded.context.method == "TokenService/ImportTokens"
    assert recorded.context.request_id == ID
    assert recorded.arguments["file"] == TokenFile(
        format=TokenFileFormat.PSKC,
        content=b"<a>",
        password="pw",
        key=b"k",
        default_pin_rule=PinRule.NONE,
    )
    assert list(response.tokens) == ON_THE_WIRE


async def test_results_arrive_before_the_error():
    """(A7) A retry with the same request ID returns the rest."""
    async with running_edge() as edge, edge.admin() as channel:
        edge.services["token_import"].answer = imported(
            ROWS[0], error=OutcomeUnknownError()
        )
        stub = tokens_pb2_grpc.TokenServiceStub(channel)
        call = stub.ImportTokenFile(one_file(), timeout=60, metadata=BEARER)
        first = await anext(aiter(call))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await anext(aiter(call))
    assert first.token == ON_THE_WIRE[0]
    assert failure(caught.value).reason == "OUTCOME_UNKNOWN"


async def test_admin_listener_accepts_more_than_64_kib_only_for_files():
    """One mebibyte in one part or in many, and not a byte more."""
    async with running_edge() as edge, edge.admin() as channel:
        users = UserServiceStub(channel)
        tokens = tokens_pb2_grpc.TokenServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await users.CreateUser(
                users_pb2.CreateUserRequest(email="7" * 65 * 1024),
                timeout=60,
                metadata=BEARER,
            )
        edge.services["token_import"].answer = imported()
        await tokens.ImportTokens(iter(pieces(b"7" * 2**20)), metadata=BEARER)
        edge.services["token_import"].answer = imported()
        call = tokens.ImportTokenFile(one_file(b"7" * 2**20), metadata=BEARER)
        assert [answer async for answer in call] == []
        call = tokens.ImportTokenFile(one_file(b"7" * 2**21), metadata=BEARER)
        with pytest.raises(grpc.aio.AioRpcError) as too_large:
            await anext(aiter(call))
    refusal = failure(caught.value)
    assert (refusal.code, refusal.field) == (CODE.INVALID_ARGUMENT, "request")
    assert too_large.value.code() is CODE.RESOURCE_EXHAUSTED
    recorded = edge.services["token_import"].calls
    assert [len(each.arguments["file"].content) for each in recorded] == [2**20, 2**20]


@pytest.mark.parametrize(
    ("requests", "field"),
    [
        ([], "header"),
        (pieces()[:1] * 2, "part"),
        ([tokens_pb2.ImportTokensRequest(content=b"x")], "part"),
        ([*pieces(), tokens_pb2.ImportTokensRequest(content=b"")], "part"),
        ([*pieces(), tokens_pb2.ImportTokensRequest()], "part"),
        (pieces(b"x" * 1024 * 1024, b"x"), "content"),
        (
            [
                tokens_pb2.ImportTokensRequest(
                    header=tokens_pb2.ImportTokensHeader(request_id=ID)
                )
            ],
            "format",
        ),
    ],
)
async def test_malformed_import_names_the_part(requests, field):
    """It reaches no use case."""
    async with running_edge() as edge, edge.admin() as channel:
        stub = tokens_pb2_grpc.TokenServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.ImportTokens(iter(requests), timeout=60, metadata=BEARER)
        assert not edge.services["token_import"].calls
    refusal = failure(caught.value)
    assert (refusal.code, refusal.field) == (CODE.INVALID_ARGUMENT, field)


@pytest.mark.parametrize(
    ("fields", "field"),
    [({"format": 0}, "format"), ({"default_pin_rule": 99}, "default_pin_rule")],
)
async def test_unknown_file_format_is_refused(fields, field):
    async with running_edge() as edge, edge.admin() as channel:
        stub = tokens_pb2_grpc.TokenServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await anext(
                aiter(stub.ImportTokenFile(one_file(**fields), metadata=BEARER))
            )
        assert not edge.services["token_import"].calls
    assert failure(caught.value).field == field


async def test_concurrent_imports_are_limited():
    """Each holds a file in memory before its session is checked."""
    async with running_edge() as edge, edge.admin() as channel:
        stub = tokens_pb2_grpc.TokenServiceStub(channel)
        open_calls = [stub.ImportTokens(metadata=BEARER) for _ in range(9)]
        refused, _ = await asyncio.wait(
            [asyncio.ensure_future(call.code()) for call in open_calls],
            return_when=asyncio.FIRST_COMPLETED,
            timeout=60,
        )
        assert [task.result() for task in refused] == [CODE.RESOURCE_EXHAUSTED]
        for call in open_calls:
            call.cancel()
