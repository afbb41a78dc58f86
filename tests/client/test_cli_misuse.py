# SPDX-License-Identifier: Apache-2.0
"""Careless input gets a message, never a traceback."""

import io
import sys

import grpc
import pytest

from sparecode_client.cli.app import app
from tests.client.conftest import Cli
from tests.client.fakes import Failure

SERIAL = "000123456789"
FAR = "9999999d"
HUGE = "9" * 30
NOT_TEXT = "a\udcff"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["tokens", "expire", SERIAL, "--at", FAR], ["--at", FAR, "longer than"]),
        (["tokens", "expire", SERIAL, "--at", "0001-01-01"], ["--at"]),
        (["emergency", "list", "--ends-before", FAR], ["--ends-before", FAR]),
        (["emergency", "issue", SERIAL, "--expires", FAR], ["--expires", FAR]),
        (["audit", "list", "--since", FAR], ["--since", FAR]),
        (["audit", "list", "--from", HUGE], ["--from"]),
        (["approvals", "approve", HUGE], ["NUMBER", "less than"]),
        (["tokens", "enroll", SERIAL, "--counter", HUGE], ["--counter"]),
        (["policy", "update", "--set", f"requests_max={HUGE}"], ["requests_max"]),
        (["policy", "update", "--set", "requests_max=-1"], ["requests_max"]),
        (["policy", "update", "--set", f"lock={FAR}"], ["lock", FAR]),
        (["users", "show", NOT_TEXT], ["not text in UTF-8"]),
        (["users", "create", "x", "--email", NOT_TEXT], ["not text in UTF-8"]),
        (["--ca", NOT_TEXT, "users", "list"], ["not text in UTF-8"]),
    ],
    ids=lambda value: ascii(" ".join(value)),
)
def test_impossible_values_are_wrong_usage(
    cli: Cli, args: list[str], message: list[str]
) -> None:
    """Exit code 2 and a message; no node is called."""
    result = cli(*args)
    assert isinstance(result.exception, SystemExit)
    assert result.exit_code == 2
    for words in message:
        assert words in result.stderr
    assert cli.node.calls == []


@pytest.mark.parametrize(
    "count", [HUGE, "\u0663", "1e3", "-1", "9" * 5000], ids=range(5)
)
def test_wrong_count_names_the_line(cli: Cli, tmp_path, count: str) -> None:
    """A bulk issue starts only with a valid file."""
    file = tmp_path / "lost.csv"
    file.write_text(f"serial,count\n{SERIAL},{count}\n", encoding="utf-8")
    result = cli("emergency", "bulk", str(file))
    assert result.exit_code == 2
    assert "line 2: count must be a number" in result.stderr
    assert len(result.stderr) < 300
    assert cli.node.calls == []


@pytest.mark.parametrize("what", ["users", "tokens"])
def test_too_large_file_is_not_sent(cli: Cli, tmp_path, what: str) -> None:
    """Every node would refuse it with an unhelpful message of gRPC."""
    file = tmp_path / "people.csv"
    file.write_bytes(b"x" * (1024 * 1024 + 1))
    result = cli(what, "import", str(file))
    assert result.exit_code == 2
    assert "has 1048577 bytes; at most 1048576" in result.stderr
    assert cli.node.calls == []


def test_too_large_request_is_wrong_usage(cli: Cli) -> None:
    """Nothing was done, and no other node would accept it."""
    cli.node.answer(
        "UserService/CreateUser",
        Failure(
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            words="SERVER: Received message larger than max (2000044 vs. 65536)",
        ),
    )
    result = cli("users", "create", "x")
    assert result.exit_code == 2
    assert "larger than a node accepts" in result.stderr
    assert len(cli.node.calls) == 1


class Terminal(io.StringIO):
    """A terminal."""

    def isatty(self) -> bool:
        return True


def test_wrong_value_fits_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Typer's messages are wrapped at word boundaries, too."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(sys, "stderr", screen := Terminal())
    with pytest.raises(SystemExit) as end:
        app(["admins", "create", "carol", "--role", "nope"])
    assert end.value.code == 2
    text = screen.getvalue()
    assert max(map(len, text.splitlines())) <= 80
    assert "Invalid value for '--role': 'nope' is not one of" in text
    assert " ".join(text.split()).endswith(
        "'super-admin', 'help-desk', 'auditor', 'operator'."
    )
