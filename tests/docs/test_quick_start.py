# SPDX-License-Identifier: Apache-2.0
"""docs/quick-start.md, followed to the letter by a shell in an empty folder."""

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


def taken() -> list[str]:
    """Name what of the page's addresses somebody else listens on."""
    found = []
    for host in ADDRESSES:
        for port in PORTS:
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind((host, port))
                except OSError:
                    found.append(f"{host}:{port}")
    return found


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.timeout(280)
def test_commands_of_the_page_do_what_it_says(tmp_path: Path):
    """
    All of them in one shell that stops at the first that fails.

    Only the line that says where the checkout is is another one: the reader's too.
    """
    if others := taken():
        pytest.skip(f"somebody else uses {', '.join(others)}")
    script = "".join(COMMANDS.findall(PAGE.read_text()))
    assert SOURCE in script
    assert not re.search(r"^ *cp ", script, re.MULTILINE), "no key is carried by hand"
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
        # The nodes have the shell's output, too: it ends with them, not with it.
        said, _ = shell.communicate(f"{script}\nkill $(jobs -p); wait\n", timeout=240)
    finally:
        with contextlib.suppress(ProcessLookupError):  # All may have ended.
            os.killpg(shell.pid, signal.SIGKILL)
    assert shell.returncode == 0, said
    assert "ACCEPTED" in said
    assert "REFUSED" in said
    assert "quorum reached" in said
    for node in ("n2", "n3"):
        assert f"{node} was admitted to cluster" in said
        assert (tmp_path / node / "keys/keyring.json").exists()
