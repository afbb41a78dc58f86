# SPDX-License-Identifier: Apache-2.0
"""Error messages of `sparecode-node`, on a terminal and elsewhere."""

import io

import pytest
import typer

from sparecode_node.tool.terminal import fail

LONG = (
    "the backup is of cluster 6f1c1c9e-2d1f-4b8e-9f55-0d3a3f6e7a10, but the bundle is of "
    "0af76519-16cd-43dd-8448-eb211c80319c"
)


class Terminal(io.StringIO):
    """A terminal."""

    def isatty(self) -> bool:
        return True


def error_text(
    message: str, stream: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> str:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr("sys.stderr", stream)
    with pytest.raises(typer.Exit):
        fail(message)
    return stream.getvalue()


def test_line_is_wrapped_only_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In a file it stays one line, for searching."""
    assert error_text(LONG, io.StringIO(), monkeypatch) == f"sparecode-node: {LONG}\n"
    lines = error_text(LONG, Terminal(), monkeypatch).splitlines()
    assert len(lines) == 2
    assert max(map(len, lines)) <= 80
    assert " ".join(lines) == f"sparecode-node: {LONG}"


@pytest.mark.parametrize(
    "command", ["`sparecode-node recover`", "chmod 600 /etc/sparecode/backup.password"]
)
def test_command_to_copy_is_not_wrapped(
    command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be at any place in the line."""
    for filling in range(20, 80):
        message = f"{'word ' * (filling // 5)}{'x' * (filling % 5)}: {command}"
        assert command in error_text(message, Terminal(), monkeypatch)
