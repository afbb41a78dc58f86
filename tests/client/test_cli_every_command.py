# SPDX-License-Identifier: Apache-2.0
"""
Output and errors of every command in a pipe: text of 80 columns, without colors.

tests/docs/test_commands.py reads every help; test_cli_json_everywhere.py reads the JSON.
"""

import json
import re
import traceback
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from typer.testing import Result

from tests.client.conftest import Cli, Pki
from tests.client.every_command import (
    ALL,
    TYPED,
    answer_everything,
)
from tests.client.fakes import Failure

LOCAL = {"explain", "notices channels new-secret", "audit verify"}
"""They ask no node."""
VALUES = {
    FieldDescriptor.TYPE_STRING: "a word",
    FieldDescriptor.TYPE_BYTES: b"bytes",
    FieldDescriptor.TYPE_BOOL: True,
    FieldDescriptor.TYPE_DOUBLE: 7.5,
    FieldDescriptor.TYPE_FLOAT: 7.5,
    FieldDescriptor.TYPE_ENUM: 1,
}
UNSET = {
    "next_page_token",
    "stale",
    "code_withheld",
    "codes_withheld",
    "broken_sequence",
}
"""Fields that mean another page, or another exit code."""
STYLE = re.compile(r"\x1b\[[\d;?]*[a-zA-Z]")
COLOR = re.compile(r"\x1b\[(?:\d+;)*(?:[349][0-7]|10[0-7]|[34]8;)")
AT = Timestamp(seconds=1_800_000_000)
DEPTH_MAX = 4
REFUSED = Failure(
    grpc.StatusCode.FAILED_PRECONDITION, "TOKEN_DISABLED", "the token is disabled"
)


def filled(message: Message, depth: int = 0) -> Message:
    """Fill every field of a message; a repeated one has two items."""
    for each in message.DESCRIPTOR.fields:
        if each.containing_oneof is not None and message.WhichOneof(
            each.containing_oneof.name
        ):
            continue
        if each.message_type is not None and depth == DEPTH_MAX:
            continue
        if each.message_type is not None:
            parts = (
                [getattr(message, each.name).add() for _ in range(2)]
                if each.is_repeated
                else [getattr(message, each.name)]
            )
            for part in parts:
                if isinstance(part, Timestamp):
                    part.CopyFrom(AT)
                else:
                    filled(part, depth + 1)
        elif each.is_repeated:
            getattr(message, each.name).extend([VALUES.get(each.type, 7)] * 2)
        elif each.name not in UNSET:
            setattr(message, each.name, VALUES.get(each.type, 7))
    return message


@pytest.fixture
def run(
    cli: Cli, pki: Pki, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Result]:
    """Return a function that runs a command, whose requests are all answered alike."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NO_COLOR", "1")

    def run(name: str, make: Callable[[Message], object], *options: str) -> Result:
        words = answer_everything(name, cli, pki, make)
        return cli(*words, *options, text=TYPED)

    return run


@pytest.mark.parametrize("name", sorted(ALL))
def test_every_command_prints_text_of_80_columns_without_color(
    run: Callable[..., Result], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A terminal that shows colors, of a person who wants none."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    result = run(name, filled)

    assert result.exit_code == 0, (
        result.stderr,
        traceback.format_exception(result.exception),
    )
    assert not COLOR.search(result.output)
    text = STYLE.sub("", result.stdout)
    assert text.strip()
    assert "\t" not in text
    assert "\x1b" not in text
    for line in text.splitlines():
        # A sentence is one line in a pipe: `grep` finds it. Only tables are folded.
        assert len(line) <= 80 or "  " not in line.strip(), line


@pytest.mark.parametrize("name", sorted(set(ALL) - LOCAL))
def test_every_command_reports_a_refusal(run: Callable[..., Result], name: str) -> None:
    """The message and the next step on stderr, or one line of JSON; no output."""
    result = run(name, lambda _: REFUSED)

    assert result.exit_code == 1
    assert not result.stdout.strip()  # Line ends of hidden prompts.
    assert "\x1b" not in result.stderr
    assert result.stderr.endswith(
        "sparecode: the token is disabled\nEnable it: sparecode tokens enable SERIAL\n"
    )

    result = run(name, lambda _: REFUSED, "--output", "json")

    assert result.exit_code == 1
    assert not result.stdout.strip()
    # Typer's runner does not end the line of a hidden prompt, as a terminal does.
    error = json.loads(re.sub(r"^[^{]*", "", result.stderr.splitlines()[-1]))
    assert (error["reason"], error["exit_code"]) == ("TOKEN_DISABLED", 1)
    assert error["message"] == "the token is disabled"
