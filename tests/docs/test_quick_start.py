# SPDX-License-Identifier: Apache-2.0
"""A shell runs the commands of docs/quick-start.md, unchanged, in an empty folder."""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/quick-start.md"
COMMANDS = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
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


@pytest.mark.skipif(
    shutil.which("curl") is None, reason="curl is missing: make system-packages"
)
@pytest.mark.timeout(280)
def test_commands_of_the_page_set_up_a_cluster(tmp_path: Path):
    """
    One shell runs all commands and stops at the first that fails.

    The test changes only the line with the path of the checkout, as a reader does.
    """
    if used := addresses_in_use():
        pytest.skip(f"another process uses {', '.join(used)}")
    script = "".join(COMMANDS.findall(PAGE.read_text()))
    assert SOURCE in script
    assert not re.search(r"^ *cp ", script, re.MULTILINE), (
        "the page copies a key by hand"
    )
    script = script.replace(SOURCE, f"SOURCE={ROOT} ")
    environment = {
        "HOME": str(tmp_path),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "XDG_RUNTIME_DIR": str(tmp_path),
    }
    shell = subprocess.Popen(
        ["bash", "-euo", "pipefail"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=tmp_path,
        env=environment,
        text=True,
        start_new_session=True,
    )
    try:
        # The nodes inherit the shell's output: it ends when they end.
        output, _ = shell.communicate(f"{script}\nkill $(jobs -p); wait\n", timeout=240)
    finally:
        with contextlib.suppress(ProcessLookupError):  # No process may be left.
            os.killpg(shell.pid, signal.SIGKILL)
    assert shell.returncode == 0, output
    assert "ACCEPTED" in output
    assert "REFUSED" in output
    assert "quorum reached" in output
    for node in ("n2", "n3"):
        assert f"{node} was admitted to cluster" in output
        assert (tmp_path / node / "keys/keyring.json").exists()
