# SPDX-License-Identifier: Apache-2.0
"""
Every command of `sparecode-node` in a pipe: its output, its errors, and its JSON.

As tests/client/test_cli_every_command.py does for `sparecode`. Each command runs on a copy
of a machine that `setup` has made, whose node has not started.
tests/docs/test_commands.py reads every help.
"""

import dataclasses
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from sparecode_node.__main__ import app
from sparecode_node.tool import recovery_tool, terminal

ADDRESS = "127.7.7.1"
"""No node of another test has it."""
SETUP = ("n1", ADDRESS, "--administrator=admin", "--password-file=password")
BUNDLE = ("--bundle", "the.bundle", "--key", "backup.key")
DONE: dict[str, tuple[str, ...]] = {
    "audit-keys": (),
    "authority restore": BUNDLE,
    "backup keygen": ("new.key",),
    "bundle": ("new.bundle", "--passphrase-file", "password"),
    "certificates": ("made", "--member", "n1", "--agent", "vpn"),
    "check-config": (),
    "doctor": (),
    "draw-ring": ("new.json",),
    "renew-certificate": (),
    "rewrap-ring": (),
}
"""Commands that have something to do there, with arguments."""
REFUSED: dict[str, tuple[str, ...]] = {
    "authority export": ("new",),
    "backup show": ("the.bundle",),
    "backup verify": ("the.bundle", "--key", "backup.key"),
    "init": ("--administrator", "admin", "--password-file", "password"),
    "recover": (),
    "reset-administrator": ("admin", "--password-file", "password"),
    "restore": ("the.bundle", *BUNDLE),
    "setup": ("n1", ADDRESS, "--folder", "n1"),
    "skip-entry": (),
}
"""Commands that a machine refuses whose wrapping key is lost."""
RUN = ""
"""Without a command, the node runs: tests/test_daemon.py."""
JSON = {"doctor", "backup show", "backup verify"}
"""Commands with output for programs."""
WITHOUT_CONFIG = {
    *("backup keygen", "backup show", "backup verify"),
    *("certificates", "draw-ring", "setup"),
}
COLUMNS = 80


def commands(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Yield every command of every group with its name."""
    for name, each in getattr(command, "commands", {}).items():
        yield from commands(each, (*path, name))
    if not hasattr(command, "commands"):
        yield " ".join(path), command


ALL = dict(commands(typer.main.get_command(app)))
ARGUMENTS = DONE | REFUSED | {RUN: ()}


def run(name: str, *arguments: str, config: str = "") -> Result:
    """Run a command in a pipe, for a person who wants no color."""
    environment = {"COLUMNS": str(COLUMNS), "NO_COLOR": "1", "FORCE_COLOR": "1"}
    words = [*(("--config", config) if config else ()), *name.split(), *arguments]
    return CliRunner(env=environment).invoke(app, words, prog_name="sparecode-node")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder as `setup` leaves it, with a key for backups and a bundle."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert run("setup", *SETUP, "--folder", "n1", "--no-start").exit_code == 0
        recipient = run("backup keygen", "backup.key").stdout.strip()
        config = "n1/node.toml"
        bundle = ("the.bundle", "--recipient", recipient)
        assert run("bundle", *bundle, config=config).exit_code == 0
        node_toml = Path(config)
        # Wherever the copy of the folder lies.
        node_toml.write_text(node_toml.read_text().replace(f"{folder}/", "../"))
    return folder


@pytest.fixture
def machine(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Enter a copy of it."""
    folder = tmp_path / "machine"
    shutil.copytree(made, folder)
    monkeypatch.chdir(folder)
    return folder


def is_plain(text: str) -> bool:
    """Return whether a text suits a pipe: 80 columns, but for sentences and keys."""
    return "\x1b" not in text and not any(
        len(line) > COLUMNS and "  " in line.strip() for line in text.splitlines()
    )


def config_of(name: str) -> str:
    return "" if name in WITHOUT_CONFIG else "n1/node.toml"


def test_every_command_is_known_here() -> None:
    assert {*ALL, RUN} == ARGUMENTS.keys()
    shown = {
        name
        for name, each in ALL.items()
        if any("--output" in parameter.opts for parameter in each.params)
    }
    assert shown == JSON


@pytest.mark.parametrize("name", sorted(DONE))
def test_every_command_prints_plain_text(machine: Path, name: str) -> None:
    done = run(name, *DONE[name], config=config_of(name))

    assert done.exit_code == 0, done.output
    assert done.stdout.strip()
    # The name of a file is not broken, however long it is.
    assert is_plain(done.output.replace(f"{machine}/", ""))


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_every_refusal_is_one_line(machine: Path, name: str) -> None:
    (machine / "n1/wrapping.key").unlink()
    done = run(name, *REFUSED[name], config=config_of(name))

    assert done.exit_code == 1, done.output
    assert isinstance(done.exception, SystemExit)
    assert not done.stdout
    assert re.fullmatch(r"sparecode-node: [^\n\x1b]+\n", done.stderr)


@pytest.mark.parametrize("name", sorted(ARGUMENTS.keys() - WITHOUT_CONFIG))
def test_every_command_names_what_is_wrong_in_the_configuration(
    machine: Path, name: str
) -> None:
    missing = run(name, *ARGUMENTS[name])
    assert missing.exit_code == 2
    assert "--config FILE or SPARECODE_NODE_CONFIG" in missing.stderr
    (machine / "broken.toml").write_text("[node]\nid = 7\n")

    done = run(name, *ARGUMENTS[name], config="broken.toml")

    assert done.exit_code == 2, done.output
    assert not done.stdout
    assert re.fullmatch(r"sparecode-node: broken\.toml: [^\n\x1b]+\n", done.stderr)


@pytest.mark.parametrize("name", sorted(ARGUMENTS))
def test_every_misuse_points_to_the_help(name: str) -> None:
    done = run(name, "--no-such-option")

    assert done.exit_code == 2
    assert not done.stdout
    lines = done.stderr.splitlines()
    command = f"sparecode-node {name}".strip()
    assert lines[0].startswith(f"Usage: {command} ")
    assert f"Try '{command} -h' for help." in lines
    assert "No such option" in lines[-1]
    assert is_plain(done.stderr)
    assert max(map(len, lines)) <= COLUMNS


@pytest.mark.parametrize("name", sorted(ARGUMENTS))
@pytest.mark.parametrize("option", [("-o", "json"), ("--output=json",)])
def test_every_misuse_is_json_for_programs(name: str, option: tuple[str, ...]) -> None:
    """Also of a command whose output is not for programs."""
    done = run(name, *option, "--no-such-option")

    assert done.exit_code == 2
    assert not done.stdout
    (line,) = done.stderr.splitlines()
    error = json.loads(line)
    assert (error["reason"], error["exit_code"]) == ("USAGE", 2)
    assert "No such option" in error["message"]


def test_the_configuration_may_be_named_anywhere(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the command, by the environment, or not at all where the unit has it."""
    runner = CliRunner(env={"SPARECODE_NODE_CONFIG": "n1/node.toml"})
    for words in (
        ["check-config", "--config", "n1/node.toml"],
        ["check-config", "--config=n1/node.toml"],
        ["--config", "n1/node.toml", "check-config"],
    ):
        assert CliRunner().invoke(app, words).stdout.startswith("n1/node.toml: OK")
    assert runner.invoke(app, ["check-config"]).stdout.startswith("n1/node.toml: OK")
    places = dataclasses.replace(terminal.SYSTEM, config=machine / "n1/node.toml")
    monkeypatch.setattr(terminal, "SYSTEM", places)
    done = run("check-config")
    assert done.stdout.startswith(f"{machine}/n1/node.toml: OK"), done.output


def test_a_node_runs_only_with_a_named_configuration(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slip must not start a second node on the files of the unit."""
    places = dataclasses.replace(terminal.SYSTEM, config=machine / "n1/node.toml")
    monkeypatch.setattr(terminal, "SYSTEM", places)
    done = run("")
    assert done.exit_code == 2
    assert "name the configuration to run a node" in done.stderr


def test_setup_restores_a_backup_on_a_machine_without_a_configuration(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In place of a `node.toml` by hand; the names of the files are checked first."""
    restored = []
    monkeypatch.setattr(
        recovery_tool,
        "restore_cluster",
        lambda config, *files, **options: restored.append((config, files, options)),
    )
    words = ("setup", "m1", ADDRESS, "--restore", "backup.key")
    assert run(*words).exit_code == 2
    assert run(*words, *BUNDLE, "--agent", "vpn").exit_code == 2
    missing = run(*words[:-1], "missing.backup", *BUNDLE)
    assert (missing.exit_code, (machine / "m1").exists()) == (1, False)
    assert "missing.backup does not exist" in missing.stderr

    done = run(*words, *BUNDLE, "--host", "auth.example.net", "--no-start")

    assert done.exit_code == 0, done.output
    ((config, files, options),) = restored
    assert (config.node.id, list(config.members)) == ("m1", ["m1"])
    assert files == (Path("backup.key"), Path("the.bundle"), Path("backup.key"))
    assert options["hosts"] == ["auth.example.net"]
    assert "Start it:\nsparecode-node --config m1/node.toml" in done.stdout


def test_setup_ignores_the_configuration_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It writes one; on the command line it would be a mistake."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SPARECODE_NODE_CONFIG", "elsewhere.toml")
    done = run("setup", *SETUP, "--folder", "n1", "--no-start")
    assert done.exit_code == 0, done.output
    refused = run("setup", *SETUP, "--folder", "n2", config="n2/node.toml")
    assert refused.exit_code == 2
    assert "use --folder instead of --config" in refused.stderr


def test_wrong_values_are_told_in_plain_words() -> None:
    done = run("doctor", "--output", "xml")
    assert done.exit_code == 2
    assert "'--output' / '-o': 'xml' is not one of 'text', 'json'" in done.stderr


@pytest.mark.parametrize("option", [("--output", "json"), ("-o", "json"), ("--json",)])
def test_doctor_prints_only_json_for_programs(
    machine: Path, option: tuple[str, ...]
) -> None:
    """`--json` is the option of release 0.1.0."""
    done = run("doctor", *option, config="n1/node.toml")

    assert done.exit_code == 0, done.output
    assert not done.stderr
    subjects = [each["subject"] for each in json.loads(done.stdout)]
    assert {"configuration", "disk", "key ring"} <= set(subjects)
    assert run("check-config", config="n1/node.toml").stdout.startswith("n1/node.toml")


@pytest.mark.parametrize("name", sorted(JSON))
def test_errors_are_json_for_programs(machine: Path, name: str) -> None:
    """With the keys that the errors of `sparecode` have; test_backup_tool.py has answers."""
    done = run(name, *ARGUMENTS[name], "-o", "json", config="missing.toml")

    assert not done.stdout
    (line,) = done.stderr.splitlines()
    error = json.loads(line)
    expected = ("REFUSED", 1) if name in WITHOUT_CONFIG else ("USAGE", 2)
    assert (error["reason"], error["exit_code"]) == expected
    assert error["exit_code"] == done.exit_code
    assert error["message"]
