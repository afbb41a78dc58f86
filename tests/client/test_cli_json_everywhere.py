# SPDX-License-Identifier: Apache-2.0
"""
`--output` of every command for programs, and wrong usage of every command.

One value of JSON or YAML, or rows of CSV, on stdout, and nothing else.
"""

import csv
import io
import json
from pathlib import Path

import pytest
import yaml

from tests.client.conftest import Cli, Pki
from tests.client.every_command import (
    ALL,
    INPUT,
    OPTIONS,
    TYPED,
    WITHOUT_QUORUM,
    answer_everything,
)


def test_commands_with_arguments_of_their_own_exist() -> None:
    assert WITHOUT_QUORUM | set(OPTIONS) | set(INPUT) <= set(ALL)


@pytest.mark.parametrize("form", ["json", "yaml", "csv"])
@pytest.mark.parametrize("name", sorted(ALL))
def test_every_command_prints_only_what_a_program_reads(
    cli: Cli,
    pki: Pki,
    name: str,
    form: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A script reads exactly one value, or rows of equal length, even for an empty answer."""
    monkeypatch.chdir(tmp_path)
    words = answer_everything(name, cli, pki, lambda empty: empty)
    result = cli(*words, "--output", form, text=TYPED)
    assert result.exit_code == (3 if name in WITHOUT_QUORUM else 0), result.stderr
    if form == "json":
        assert isinstance(json.loads(result.stdout), dict)
    elif form == "yaml":
        assert isinstance(next(yaml.safe_load_all(result.stdout)), dict)
    else:
        # Typer's runner puts line ends of hidden prompts there, as no terminal does.
        text = result.stdout.lstrip()
        rows = list(csv.reader(io.StringIO(text), strict=True))
        assert len({len(row) for row in rows}) <= 1


@pytest.mark.parametrize("name", sorted(ALL))
def test_every_misuse_points_to_the_help_or_is_json(cli: Cli, name: str) -> None:
    misuse = (*name.split(), "--no-such-option")

    told = cli(*misuse)
    assert (told.exit_code, told.stdout) == (2, "")
    assert f"Try 'sparecode {name} -h' for help." in " ".join(told.stderr.split())
    assert max(map(len, told.stderr.splitlines())) <= 80

    told = cli(*misuse, "-o", "json")
    assert (told.exit_code, told.stdout) == (2, "")
    (line,) = told.stderr.splitlines()
    error = json.loads(line)
    assert (error["reason"], error["exit_code"]) == ("USAGE", 2)
    assert "--no-such-option" in error["message"]
    assert cli.node.calls == []
