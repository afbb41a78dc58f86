# SPDX-License-Identifier: Apache-2.0
"""
A run that is cut off leaves nothing: no daemon, no rules, no bridge, no folder.

The tools are scripts here, which record how they are called. `make packages-test` uses
the real ones.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.packages.engine import INTERRUPTED, Engine

ROOT = Path(__file__).parents[2]
EMPTY = "*filter\n:FORWARD ACCEPT [0:0]\nCOMMIT\n"
CHANGED = "*filter\n:FORWARD DROP [0:0]\nCOMMIT\n*nat\n-A DOCKER -j RETURN\nCOMMIT\n"

TOOLS = {
    # It answers while its daemon runs.
    "docker": 'test "$1" != info || test -e "$PLACE/up"',
    "dockerd": """
        cp "$PLACE/changed" "$PLACE/rules"; echo 1 >"$PLACE/forwarding"
        touch "$PLACE/docker0" "$PLACE/up"
        trap 'rm "$PLACE/up"; exit 0' TERM
        while :; do sleep 0.02; done""",
    "iptables-save": 'cat "$PLACE/rules"',
    "iptables-restore": 'cat >"$PLACE/restored"',
    "ip6tables-save": ":",
    "ip6tables-restore": 'cat >"$PLACE/restored6"',
    "ip": """
        case "$2" in
        show) test -e "$PLACE/docker0";;
        delete) rm "$PLACE/docker0";;
        esac""",
}
PROGRAM = """
import signal
from pathlib import Path
from tests.packages import engine

place = Path({place!r})
engine.FORWARDING = place / "forwarding"
engine.exit_on_signals()
with engine.Engine(place / "engine"):
    (place / "ready").touch()
    signal.pause()
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Return a folder with the tools, and the state of a machine before the run."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for name, script in TOOLS.items():
        (tools / name).write_text(f"#!/bin/sh\n{script}\n")
        (tools / name).chmod(0o755)
    (tmp_path / "rules").write_text(EMPTY)
    (tmp_path / "changed").write_text(CHANGED)
    (tmp_path / "forwarding").write_text("0\n")
    return tmp_path


def run_program(place: Path) -> subprocess.Popen[bytes]:
    """Start a program that holds an engine of its own; return when it has it."""
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM.format(place=str(place))],
        cwd=ROOT,
        env={
            **os.environ,
            "PATH": f"{place}/bin:{os.environ['PATH']}",
            "PLACE": str(place),
            "DOCKER_HOST": "",
        },
    )
    deadline = time.monotonic() + 60
    while not (place / "ready").exists():
        assert process.poll() is None, "it has ended"
        assert time.monotonic() < deadline, "no engine"
        time.sleep(0.02)
    return process


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_leaves_the_machine_as_it_was(place: Path, number: signal.Signals):
    process = run_program(place)
    assert (place / "docker0").exists()
    process.send_signal(number)

    assert process.wait(timeout=60) == INTERRUPTED
    assert not (place / "up").exists(), "the daemon runs"
    assert not (place / "engine").exists()
    assert not (place / "docker0").exists()
    assert (place / "forwarding").read_text() == "0\n"
    # The table that did not exist before is emptied, and the other one put back.
    assert (place / "restored").read_text() == f"{EMPTY}*nat\nCOMMIT\n"
    assert not (place / "restored6").exists(), "nothing to restore"


def test_a_bridge_that_was_there_stays(place: Path):
    (place / "docker0").touch()
    process = run_program(place)
    process.send_signal(signal.SIGTERM)

    assert process.wait(timeout=60) == INTERRUPTED
    assert (place / "docker0").exists()


def test_the_engine_of_the_machine_is_used(
    place: Path, monkeypatch: pytest.MonkeyPatch
):
    """Its rules and its bridge are its own: nothing is restored."""
    (place / "up").touch()
    monkeypatch.setenv("PATH", f"{place}/bin:{os.environ['PATH']}")
    monkeypatch.setenv("PLACE", str(place))

    with Engine(place / "engine"):
        pass

    assert (place / "up").exists()
    assert not (place / "restored").exists()
