# SPDX-License-Identifier: Apache-2.0
"""`--output json` of every command: one value on stdout, and nothing else."""

import json
from pathlib import Path

import pytest

from tests.client.conftest import Cli
from tests.client.every_command import (
    ALL,
    ELSEWHERE,
    OPTIONS,
    TYPED,
    WITHOUT_QUORUM,
    answer_everything,
    words_of,
)


@pytest.fixture
def answering(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Return a node that answers every request with an empty answer."""
    monkeypatch.chdir(tmp_path)
    answer_everything(cli.node, tmp_path, lambda empty: empty)
    return cli


def test_commands_tested_elsewhere_exist() -> None:
    assert ELSEWHERE | WITHOUT_QUORUM | set(OPTIONS) <= set(ALL)


@pytest.mark.parametrize("name", sorted(set(ALL) - ELSEWHERE))
def test_every_command_prints_only_json(answering: Cli, name: str) -> None:
    """A script reads exactly one value, even for an empty answer."""
    result = answering(*words_of(name), "--output", "json", text=TYPED)
    assert result.exit_code == (3 if name in WITHOUT_QUORUM else 0), result.stderr
    assert isinstance(json.loads(result.stdout), dict)
