# SPDX-License-Identifier: Apache-2.0
"""A reader follows docs/quick-start.md to the letter, in an empty folder."""

import contextlib
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/quick-start.md"
COMMANDS = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
ASSIGNMENTS = re.compile(r"(?:[A-Z0-9]+=\S+ *)+(?:#.*)?")
START = re.compile(r"^Start it:\n(.*)$", re.MULTILINE)
CODE = re.compile(r"^ +1  (\S+)$", re.MULTILINE)
SOURCE = "SOURCE=$HOME/sparecode "
ADDRESSES = ("127.0.0.11", "127.0.0.12", "127.0.0.13")
PORTS = range(7300, 7305)


def addresses_in_use() -> list[str]:
    """Return those addresses of the page that another process listens on."""
    used = []
    for host in ADDRESSES:
        for port in PORTS:
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind((host, port))
                except OSError:
                    used.append(f"{host}:{port}")
    return used


@dataclass
class Reader:
    """Types the commands of the page, one after the other, in one folder."""

    folder: Path
    names: str
    output: str = ""
    nodes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def environment(self) -> dict[str, str]:
        return {
            "HOME": str(self.folder),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "XDG_RUNTIME_DIR": str(self.folder),
        }

    def run(self, command: str, typed: str = "") -> int:
        """Run a command of the page; then start a node, if it says how."""
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", f"{self.names}\n{command}"],
            cwd=self.folder,
            env=self.environment,
            input=typed,
            text=True,
            capture_output=True,
            check=False,
            timeout=240,
            start_new_session=True,  # Without a terminal, prompts read stdin.
        )
        self.output += f"$ {command}\n{done.stdout}{done.stderr}"
        if start := START.search(done.stdout):
            self._start(start[1])
        return done.returncode

    def _start(self, command: str) -> None:
        """Start a node in a terminal of its own, and wait until it is ready."""
        with (self.folder / f"node{len(self.nodes)}.log").open("wb") as lines:
            process = subprocess.Popen(
                ["bash", "-c", f"{self.names}\nexec {command}"],
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=lines,
            )
        host = ADDRESSES[len(self.nodes)]
        self.nodes.append(process)
        deadline = time.monotonic() + 120
        while True:
            assert process.poll() is None, self.output
            assert time.monotonic() < deadline, f"not ready: {command}\n{self.output}"
            with (
                contextlib.suppress(OSError),
                urllib.request.urlopen(f"http://{host}:7303/readyz", timeout=5),
            ):
                return
            time.sleep(0.2)

    def until(self, command: str, words: str) -> None:
        """Repeat a command until it shows some words."""
        deadline = time.monotonic() + 120
        while self.run(command) or words not in self.output.rpartition("$ ")[2]:
            assert time.monotonic() < deadline, self.output
            time.sleep(0.2)

    def kill(self) -> None:
        for process in self.nodes:
            process.kill()
            process.wait()


def commands_of(page: str) -> tuple[str, list[str]]:
    """Return the variables of the page, and its commands in their order."""
    names, *blocks = COMMANDS.findall(page)
    assert all(ASSIGNMENTS.fullmatch(line) for line in names.splitlines())
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return names, [" ".join(line.split()) for line in lines]


def test_page_reaches_an_accepted_code_in_twelve_commands():
    """Installing counts once for each of the three machines."""
    _, commands = commands_of(PAGE.read_text())
    (first, *_) = [n for n, each in enumerate(commands) if "authenticate" in each]
    needed = commands[: first + 1]
    installations = [each for each in needed if each.startswith("make ")]
    assert len(installations) == 1
    assert len(needed) + 2 * len(installations) <= 12
    assert "in twelve commands" in PAGE.read_text()


@pytest.mark.long
@pytest.mark.timeout(600)
def test_commands_of_the_page_set_up_a_cluster(tmp_path: Path):
    """
    A reader runs all commands and stops at the first that fails.

    The test changes only the line with the path of the checkout, as a reader does, starts
    the nodes as `setup` says, and types the code that the page issues.
    """
    if used := addresses_in_use():
        pytest.skip(f"another process uses {', '.join(used)}")
    names, commands = commands_of(PAGE.read_text())
    assert SOURCE in names
    assert not any(each.startswith("cp ") for each in commands), "a key is copied"
    reader = Reader(tmp_path, names.replace(SOURCE, f"SOURCE={ROOT} "))
    typed = ""
    spent = False
    try:
        for command in commands:
            code = reader.run(command, typed)
            # Another node refuses a code that is spent.
            assert code == (1 if "authenticate" in command and spent else 0), (
                reader.output
            )
            if "setup --join" in command:
                # It catches up, and then votes: a reader types slower than this test.
                count = len(reader.nodes)
                reader.until(
                    "sparecode cluster status",
                    f"{count} of {count} voters can be reached",
                )
            spent = spent or "authenticate" in command
            if issued := CODE.search(reader.output):
                typed = f"4719{issued[1]}\n"
        reader.until("sparecode cluster status", "1 further loss")
    finally:
        reader.kill()
    output = reader.output
    for words in ("ACCEPTED", "REFUSED", "Start it:"):
        assert words in output
    for node in ("n2", "n3"):
        assert f"{node} was admitted to cluster" in output
        assert (tmp_path / node / "keys/keyring.json").exists()
