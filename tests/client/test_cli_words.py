# SPDX-License-Identifier: Apache-2.0
"""Output on a terminal of 80 columns."""

import io

import pytest

from sparecode_client.cli.terminal.cluster_status import summary
from sparecode_client.cli.terminal.exit_codes import AS_JSON, ExitCode, fail
from sparecode_client.cli.terminal.output import Output, OutputFormat
from sparecode_client.cli.terminal.words import wrap
from sparecode_client.errors import InvalidArgument
from sparecode_client.values.cluster import ClusterStatus

LONG = (
    "the policy names nobody who could open a backup: make a key with "
    "`sparecode-node backup keygen`, and put its public half there with "
    "`sparecode policy update --set backup_recipients=age1...`"
)

WATCH = (
    "The new key is active, and the cluster goes on by itself. Watch it with: "
    "sparecode cluster rotate-keys"
)


class Terminal(io.StringIO):
    """A terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def eighty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


@pytest.mark.parametrize(
    ("words", "lines"),
    [
        ("short enough", ["short enough"]),
        (
            LONG,
            [
                "the policy names nobody who could open a backup: make a key with",
                "`sparecode-node backup keygen`, and put its public half there with",
                "`sparecode policy update --set backup_recipients=age1...`",
            ],
        ),
        (
            WATCH,
            [
                "The new key is active, and the cluster goes on by itself. Watch it with:",
                "sparecode cluster rotate-keys",
            ],
        ),
        ("    sparecode-node --config node.toml init " + "x" * 80, None),
        ("x" * 100, None),
    ],
)
def test_sentences_are_wrapped_and_commands_are_not(
    words: str, lines: list[str] | None
) -> None:
    assert wrap(words, Terminal()).splitlines() == (lines or [words])


def test_a_message_to_a_file_is_one_line() -> None:
    """It is easier to search."""
    assert wrap(LONG, io.StringIO()) == LONG


def test_status_of_a_cluster_is_wrapped(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cluster's id alone takes half a line."""
    terminal = Terminal()
    monkeypatch.setattr("sys.stdout", terminal)
    status = ClusterStatus(
        node_id="node-1",
        cluster_id="6f1c1c9e-2d1f-4b8e-9f55-0d3a3f6e7a10",
        primary="node-1",
        quorum=True,
        members=(),
    )
    Output(OutputFormat.TABLE).say(summary(status))
    assert terminal.getvalue().splitlines() == [
        "Cluster 6f1c1c9e-2d1f-4b8e-9f55-0d3a3f6e7a10, seen from node-1: primary node-1,",
        "quorum reached.",
    ]


def test_refusal_is_wrapped_and_its_advice_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    AS_JSON.set(False)
    fail(ExitCode.REFUSED, LONG, "Name one: sparecode policy update --set x=KEY")
    lines = terminal.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[-1] == "Name one: sparecode policy update --set x=KEY"


@pytest.mark.parametrize(
    ("field", "description", "words"),
    [
        ("count", "must be 1 to 50, not 99", "count: must be 1 to 50, not 99"),
        ("lock", "lock must be 1m to 1d, not 1s", "lock must be 1m to 1d, not 1s"),
        ("", "what it is", "what it is"),
        ("lock", "lock_max is less", "lock: lock_max is less"),
    ],
)
def test_wrong_field_is_named_once(field: str, description: str, words: str) -> None:
    """(I4) And it is always named."""
    assert InvalidArgument(field, description).words == words
