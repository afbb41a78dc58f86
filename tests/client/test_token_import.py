# SPDX-License-Identifier: Apache-2.0
"""Import of tokens, through the library and the CLI (K4)."""

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import grpc
import pytest

from sparecode.v1 import tokens_pb2, types_pb2
from sparecode_client import (
    AsyncAdmin,
    InvalidArgument,
    OutcomeUnknown,
    PinRule,
    TokenFileFormat,
    Unavailable,
)
from sparecode_client.connection.client import Client
from sparecode_client.values.imports import token_file_format
from tests.client import answers
from tests.client.conftest import Cli
from tests.client.fakes import OUTCOME_UNKNOWN, Failure, FakeNode

IMPORT = "TokenService/ImportTokenFile"
REQUEST_ID = "0b7a3c52-6f5d-4f44-9a8e-2d8f0a3d9c11"
DATA = Path(__file__).parents[1] / "data"
BROKEN = Failure(
    grpc.StatusCode.INVALID_ARGUMENT, "FIELD", "not XML: line 1", field="content"
)


@pytest.fixture
def node(nodes: list[FakeNode]) -> FakeNode:
    return nodes[0]


@pytest.fixture
def admin(connect: Callable[..., Client], nodes: list[FakeNode]) -> AsyncAdmin:
    return AsyncAdmin.over(connect(nodes[0].address, nodes[1].address))


def row(number: int, rows: int = 3) -> tokens_pb2.ImportTokenFileResponse:
    return tokens_pb2.ImportTokenFileResponse(
        rows=rows,
        token=tokens_pb2.ImportedToken(row=number, serial=str(number), imported=True),
    )


@pytest.mark.asyncio
async def test_another_node_continues_under_the_same_request_id(
    admin: AsyncAdmin, nodes: list[FakeNode]
) -> None:
    """(K4, Q1) It also gets the whole file, and the row to continue from."""
    content = bytes(range(256)) * 600
    nodes[0].answer(IMPORT, ([row(1), row(2)], OUTCOME_UNKNOWN))
    nodes[1].answer(IMPORT, ([row(3)], None))
    progress: list[tuple[int, int]] = []

    imported = await admin.import_tokens(
        content,
        form=TokenFileFormat.SDTID,
        password="qwerty",
        default_pin_rule=PinRule.NONE,
        progress=lambda token, rows: progress.append((token.row, rows)),
    )

    (first,) = nodes[0].requests(IMPORT)
    (second,) = nodes[1].requests(IMPORT)
    assert (first.from_row, second.from_row) == (1, 3)
    first.from_row = second.from_row
    assert first == second
    assert first.request_id
    assert first.format == tokens_pb2.TOKEN_FILE_FORMAT_SDTID
    assert first.default_pin_rule == types_pb2.PIN_RULE_NONE
    assert (first.password, first.content) == ("qwerty", content)
    assert [token.row for token in imported] == [1, 2, 3]
    assert progress == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.asyncio
async def test_import_without_progress_is_an_error(
    admin: AsyncAdmin, nodes: list[FakeNode]
) -> None:
    """(A7) The error has the request id for another try."""
    for node in nodes:
        node.answer(IMPORT, ([], OUTCOME_UNKNOWN))

    with pytest.raises(OutcomeUnknown) as raised:
        await admin.import_tokens(
            b"serial,seed\n", request_id=REQUEST_ID, within=timedelta(seconds=3)
        )

    assert raised.value.request_id == REQUEST_ID


@pytest.mark.asyncio
async def test_missing_results_are_an_error(admin: AsyncAdmin, node: FakeNode) -> None:
    node.answer(IMPORT, ([row(1), row(2)], None), ([], None))

    with pytest.raises(Unavailable, match="sent no results"):
        await admin.import_tokens(b"serial,seed\n")


@pytest.mark.asyncio
async def test_broken_file_is_refused_whole(admin: AsyncAdmin, node: FakeNode) -> None:
    node.answer(IMPORT, ([], BROKEN))

    with pytest.raises(InvalidArgument, match="not XML"):
        await admin.import_tokens(b"<broken")


@pytest.mark.parametrize(
    ("content", "form"),
    [
        ((DATA / "tokens.pskcxml").read_bytes(), TokenFileFormat.PSKC),
        ((DATA / "hardware.sdtid").read_bytes(), TokenFileFormat.SDTID),
        ((DATA / "software.sdtid").read_bytes(), TokenFileFormat.SDTID),
        ("<TKNBatch/>".encode("utf-16"), TokenFileFormat.SDTID),
        (b"\xef\xbb\xbf<KeyContainer/>", TokenFileFormat.PSKC),
        (b"serial,seed\n1,AAAA<\n", TokenFileFormat.CSV),
        (b"\xef\xbb\xbfserial,seed\n", TokenFileFormat.CSV),
        (b"", TokenFileFormat.CSV),
    ],
)
def test_format_is_detected(content: bytes, form: TokenFileFormat) -> None:
    assert token_file_format(content) is form


def test_import_shows_the_result_of_every_row(cli: Cli, tmp_path: Path) -> None:
    """(K4) Exit code 1, because one of the two was not imported."""
    cli.node.answer(IMPORT, (answers.IMPORTED, None))
    file, password = tmp_path / "tokens.xml", tmp_path / "password"
    file.write_bytes(b"<KeyContainer/>")
    password.write_text("qwerty\n")

    result = cli("tokens", "import", str(file), "--password-file", str(password))

    assert result.exit_code == 1
    assert "NOT imported: a token with this serial exists" in result.stdout
    assert "1 of 2 tokens imported." in result.stdout
    (request,) = cli.node.requests(IMPORT)
    assert request.format == tokens_pb2.TOKEN_FILE_FORMAT_PSKC
    assert (request.password, request.content) == ("qwerty", b"<KeyContainer/>")


def test_long_import_lists_failures_and_reasons(cli: Cli, tmp_path: Path) -> None:
    wrong = [
        ("TOKEN_EXISTS", "token 101 already exists"),
        ("TOKEN_EXISTS", "token 102 already exists"),
        ("", "seed is not base32"),
    ]
    rows = [row(number, rows=103) for number in range(1, 101)]
    rows += [
        tokens_pb2.ImportTokenFileResponse(
            rows=103,
            token=tokens_pb2.ImportedToken(
                row=number, serial=str(number), reason=reason, problem=problem
            ),
        )
        for number, (reason, problem) in enumerate(wrong, start=101)
    ]
    cli.node.answer(IMPORT, (rows, None))
    file = tmp_path / "tokens.csv"
    file.write_bytes(b"serial,seed\n")

    result = cli("tokens", "import", str(file), "--format", "csv")

    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    assert lines == [
        "Row  Serial  Result",
        "101  101     NOT imported: token 101 already exists",
        "102  102     NOT imported: token 102 already exists",
        "103  103     NOT imported: seed is not base32",
        "",
        "Rows  Reason",
        "   2  TOKEN_EXISTS",
        "   1  NOT READABLE",
        "100 of 103 tokens imported.",
    ]


def test_import_as_json_has_every_row(cli: Cli, tmp_path: Path) -> None:
    cli.node.answer(IMPORT, (answers.IMPORTED, None))
    file = tmp_path / "tokens.csv"
    file.write_bytes(b"serial,seed\n")

    result = cli("tokens", "import", str(file), "--output", "json")

    assert result.exit_code == 1
    message = json.loads(result.stdout)
    assert message["imported"] == 1
    assert [token["reason"] for token in message["tokens"]] == ["", "TOKEN_EXISTS"]


def test_missing_token_file_is_reported(cli: Cli, tmp_path: Path) -> None:
    result = cli("tokens", "import", str(tmp_path / "none.xml"))

    assert result.exit_code == 2
    assert "none.xml: No such file or directory" in result.stderr


def test_broken_token_file_is_named(cli: Cli, tmp_path: Path) -> None:
    """The API calls it `content`; the message names the file."""
    file = tmp_path / "tokens.xml"
    file.write_bytes(b"<broken")
    cli.node.answer(IMPORT, ([], BROKEN))

    result = cli("tokens", "import", str(file))

    assert result.exit_code == 2
    assert result.stderr == f"sparecode: {file}: not XML: line 1\n"


def test_interrupted_import_says_how_to_continue(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "tokens.csv"
    file.write_bytes(b"serial,seed\n")
    lost = Failure(
        grpc.StatusCode.PERMISSION_DENIED, "ROLE", "the role help_desk may not"
    )
    cli.node.answer(IMPORT, ([row(1), row(2)], lost))

    result = cli("tokens", "import", str(file))

    assert result.exit_code == 4
    assert (
        f"2 rows of {file} done. To continue, import the file again." in result.stderr
    )
