# SPDX-License-Identifier: Apache-2.0
"""`sparecode emergency bulk`: from a CSV file to a private file of codes."""

import csv
import stat
from pathlib import Path

import grpc
import pytest

from sparecode.v1 import emergency_access_pb2 as pb
from sparecode_client.cli.terminal.bulk_issue_files import COLUMNS
from tests.client import answers
from tests.client.conftest import Cli
from tests.client.fakes import Failure

BULK = "EmergencyAccessService/BulkIssueTokencodes"
NOT_PERMITTED = Failure(grpc.StatusCode.PERMISSION_DENIED, "ROLE", "may not")


def issued(
    row: int, serial: str, username: str = "alice"
) -> pb.BulkIssueTokencodesResponse:
    return pb.BulkIssueTokencodesResponse(
        row=row,
        serial=serial,
        username=username,
        saved=answers.SAVED.saved,
        codes=[
            pb.Tokencode(ordinal=1, code=f"K7PM-{serial}AA"),
            pb.Tokencode(ordinal=2, code=f"9HJT-{serial}BB"),
        ],
    )


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    path = tmp_path / "lost.csv"
    path.write_text("Serial,Name,count\n11,x,2\n22,y,\n\n")
    return path


def lines(path: Path) -> list[list[str]]:
    with path.open(newline="") as file:
        return list(csv.reader(file))


def test_codes_go_into_a_file_of_mode_0600(cli: Cli, token_file: Path) -> None:
    """(I9) And not to the terminal."""
    cli.node.answer(BULK, ([issued(1, "11"), issued(2, "22", "bob")], None))

    result = cli("emergency", "bulk", str(token_file), "--expires", "7d")

    assert result.exit_code == 0, result.output
    path = token_file.with_name("lost-codes.csv")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert lines(path) == [
        list(COLUMNS),
        ["11", "alice", "1", "2", "K7PM-11AA", "2026-12-01T12:00:00Z"],
        ["11", "alice", "2", "2", "9HJT-11BB", "2026-12-01T12:00:00Z"],
        ["22", "bob", "1", "2", "K7PM-22AA", "2026-12-01T12:00:00Z"],
        ["22", "bob", "2", "2", "9HJT-22BB", "2026-12-01T12:00:00Z"],
    ]
    assert "K7PM" not in result.output
    assert result.stdout.startswith("2 of 2 tokens have new codes, in ")
    (request,) = cli.node.requests(BULK)
    assert [row.count for row in request.rows] == [2, 0]
    assert not request.rows[1].HasField("count")
    assert request.lifetime.duration.ToTimedelta().days == 7


def test_refused_rows_are_shown_with_their_reasons(cli: Cli, token_file: Path) -> None:
    refused = pb.BulkIssueTokencodesResponse(
        row=2, serial="22", reason="TOKEN_EXPIRED", problem="token 22 has expired"
    )
    cli.node.answer(BULK, ([issued(1, "11"), refused], None))

    result = cli("emergency", "bulk", str(token_file))

    assert result.exit_code == 1
    assert "  2  22      -     token 22 has expired\n" in result.stdout
    assert "1 of 2 tokens have new codes" in result.stdout


def test_json_has_no_codes(cli: Cli, token_file: Path) -> None:
    cli.node.answer(BULK, ([issued(1, "11"), issued(2, "22")], None))
    answer = cli.json("emergency", "bulk", str(token_file))
    assert (answer["issued"], answer["refused"], answer["kept"]) == (2, 0, 0)
    assert answer["tokens"][0] == {
        "row": 1,
        "serial": "11",
        "username": "alice",
        "codes": 2,
        "end_time": "2026-12-01T12:00:00Z",
        "reason": "",
        "problem": "",
    }
    assert "K7PM" not in str(answer)


def test_no_cell_is_a_formula(cli: Cli, token_file: Path) -> None:
    """Usernames come from other people, and the file may be opened in a spreadsheet."""
    cli.node.answer(BULK, ([issued(1, "11", "=cmd|x"), issued(2, "22", "@x")], None))
    assert cli("emergency", "bulk", str(token_file)).exit_code == 0
    names = {line[1] for line in lines(token_file.with_name("lost-codes.csv"))[1:]}
    assert names == {"'=cmd|x", "'@x"}


def test_an_interrupted_run_is_resumed(cli: Cli, token_file: Path) -> None:
    """Completed tokens keep their codes; a token that was interrupted gets new ones."""
    cli.node.answer(BULK, ([issued(1, "11")], NOT_PERMITTED))
    result = cli("emergency", "bulk", str(token_file))
    assert result.exit_code == 4
    assert "1 of 2 tokens done" in result.stderr
    path = token_file.with_name("lost-codes.csv")
    complete = path.read_bytes()
    path.write_bytes(complete + b"22,bob,1,2,K7PM-OLD\r\n")

    assert cli("emergency", "bulk", str(token_file)).exit_code == 2  # It exists.
    cli.node.answer(BULK, ([issued(1, "22")], None))
    result = cli("emergency", "bulk", str(token_file), "--resume")

    assert result.exit_code == 0, result.output
    assert "1 kept the codes of the earlier run" in result.stdout
    (*_, request) = cli.node.requests(BULK)
    assert [row.serial for row in request.rows] == ["22"]
    assert path.read_bytes().startswith(complete)
    assert [line[4] for line in lines(path)[1:]] == [
        "K7PM-11AA",
        "9HJT-11BB",
        "K7PM-22AA",
        "9HJT-22BB",
    ]


def test_a_codes_file_that_others_can_read_is_not_resumed(
    cli: Cli, token_file: Path
) -> None:
    path = token_file.with_name("lost-codes.csv")
    path.write_text(",".join(COLUMNS) + "\n")
    path.chmod(0o644)
    result = cli("emergency", "bulk", str(token_file), "--resume")
    assert result.exit_code == 2
    assert "can be read by other users" in result.stderr


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "must have a column named serial"),
        ("name\nx\n", "must have a column named serial"),
        ("serial\n", "has 0 tokens"),
        ("serial,count\n11,x\n", "line 2: count must be a number"),
        ("serial,count\n,3\n", "line 2: no serial"),
        ("serial\n11\n11\n", "token 11 occurs 2 times"),
        ('serial\n"11\n', "unexpected end"),
    ],
)
def test_a_wrong_file_is_named_with_its_line(
    cli: Cli, tmp_path: Path, content: str, words: str
) -> None:
    path = tmp_path / "wrong.csv"
    path.write_text(content)
    result = cli("emergency", "bulk", str(path))
    assert result.exit_code == 2
    assert words in result.stderr
    assert not cli.node.requests(BULK)
    assert not path.with_name("wrong-codes.csv").exists()
