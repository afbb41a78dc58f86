# SPDX-License-Identifier: Apache-2.0
"""Import of users, through the library and the CLI."""

from collections.abc import Callable
from pathlib import Path

import grpc
import pytest

from sparecode.v1 import users_pb2
from sparecode_client import AsyncAdmin
from sparecode_client.connection.client import Client
from tests.client.conftest import Cli
from tests.client.fakes import OUTCOME_UNKNOWN, Failure, FakeNode

IMPORT = "UserService/ImportUsers"


def row(number: int, **fields: object) -> users_pb2.ImportUsersResponse:
    user = {"row": number, "username": f"user{number}", "imported": True} | fields
    return users_pb2.ImportUsersResponse(rows=2, user=users_pb2.ImportedUser(**user))


EXISTS = row(
    2, imported=False, reason="USER_EXISTS", problem="user user2 already exists"
)


@pytest.mark.asyncio
async def test_another_node_continues_under_the_same_request_id(
    connect: Callable[..., Client], nodes: list[FakeNode]
) -> None:
    """(Q1) Decided rows are not requested again."""
    admin = AsyncAdmin.over(connect(nodes[0].address, nodes[1].address))
    nodes[0].answer(IMPORT, ([row(1)], OUTCOME_UNKNOWN))
    nodes[1].answer(IMPORT, ([EXISTS], None))
    progress: list[int] = []

    imported = await admin.import_users(
        b"username\nuser1\nuser2\n",
        progress=lambda user, rows: progress.append(user.row),
    )

    (first,), (second,) = nodes[0].requests(IMPORT), nodes[1].requests(IMPORT)
    assert first.request_id == second.request_id != ""
    assert first.content == second.content == b"username\nuser1\nuser2\n"
    assert (first.from_row, second.from_row) == (1, 2)
    assert [user.imported for user in imported] == [True, False]
    assert progress == [1, 2]


def test_import_shows_the_result_of_every_row(cli: Cli, tmp_path: Path) -> None:
    """Exit code 1, because one of the two was not imported."""
    cli.node.answer(IMPORT, ([row(1), EXISTS], None))
    file = tmp_path / "people.csv"
    file.write_text("username,email\nuser1,\nuser2,\n")

    result = cli("users", "import", str(file))

    assert result.exit_code == 1
    assert result.stdout.splitlines() == [
        "Row  User name  Result",
        "  1  user1      imported",
        "  2  user2      NOT imported: user user2 already exists",
        "1 of 2 users imported.",
    ]


def test_complete_import_is_exit_code_0(cli: Cli, tmp_path: Path) -> None:
    cli.node.answer(IMPORT, ([row(1), row(2)], None))
    file = tmp_path / "people.csv"
    file.write_text("username\nuser1\nuser2\n")

    assert cli.json("users", "import", str(file)) == {
        "users": [
            {
                "row": number,
                "username": f"user{number}",
                "imported": True,
                "problem": "",
                "reason": "",
            }
            for number in (1, 2)
        ],
        "imported": 2,
    }


def test_broken_file_is_named(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "people.csv"
    file.write_text("name\n")
    cli.node.answer(
        IMPORT,
        (
            [],
            Failure(
                grpc.StatusCode.INVALID_ARGUMENT,
                "FIELD",
                "no column username",
                field="content",
            ),
        ),
    )

    result = cli("users", "import", str(file))

    assert result.exit_code == 2
    assert result.stderr == f"sparecode: {file}: no column username\n"
