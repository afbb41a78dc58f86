# SPDX-License-Identifier: Apache-2.0
"""`FakeCluster`: its nodes, and what it needs. tests/system compares its decisions."""

import contextlib
import socket
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path

import pytest

from sparecode_client import InvalidArgument
from sparecode_client.testing import FakeCluster

PIN = "4719"


def test_nodes_of_the_fake_cluster_share_one_state() -> None:
    with FakeCluster() as cluster:
        alice = cluster.add_user("alice", pin=PIN)
        [code, *_] = alice.issue_codes()
        first, second = (cluster.agent("vpn", nodes=[node]) for node in ("n1", "n3"))
        assert first.authenticate("alice", alice.passcode(code)).accepted
        assert not second.authenticate("alice", alice.passcode(code)).accepted

        with pytest.raises(KeyError):
            cluster.stop_node("n4")
        with pytest.raises(InvalidArgument):
            cluster.add_user("")


def listening_ports() -> set[int]:
    """Return the TCP ports on which this process listens."""
    opened = set()
    for descriptor in Path("/proc/self/fd").iterdir():
        # Other threads open and close files meanwhile.
        with contextlib.suppress(FileNotFoundError):
            opened.add(str(descriptor.readlink()))
    rows = [
        row.split()
        for table in ("tcp", "tcp6")
        for row in Path(f"/proc/self/net/{table}").read_text().splitlines()[1:]
    ]
    return {
        int(address.rpartition(":")[2], 16)
        for _, address, _, state, *_, inode in (row[:10] for row in rows)
        if state == "0A" and f"socket:[{inode}]" in opened
    }


def test_the_fake_cluster_listens_on_no_port(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its nodes have socket files, which are deleted at the end."""
    before = listening_ports()
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert listening_ports() - before == {server.getsockname()[1]}

    # The path of a socket file has at most 107 bytes: that of `tmp_path` may be longer.
    with tempfile.TemporaryDirectory() as place:
        monkeypatch.setattr(tempfile, "tempdir", place)
        with FakeCluster() as cluster:
            alice = cluster.add_user("alice", pin=PIN)
            assert cluster.agent("vpn").authenticate("alice", alice.passcode()).accepted
            assert listening_ports() <= before
            files = Path(place).rglob("*")
            sockets = [each.name for each in files if each.is_socket()]
            assert {"n1.agents", "n1.admin", "n3.agents"} <= set(sockets)
        assert not list(Path(place).iterdir())


def test_without_the_software_of_a_node_the_error_names_the_extra(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(metadata, "entry_points", lambda **_: ())
    with pytest.raises(ImportError, match=r'pip install "sparecode\[node\]"') as caught:
        FakeCluster()
    assert caught.value.__suppress_context__
    assert caught.value.__cause__ is None  # One traceback, not two.


def test_importing_the_module_imports_nothing_of_a_node() -> None:
    """An agent's program may import it without the extra; only `FakeCluster()` needs it."""
    script = (
        "import sys, sparecode_client.testing\n"
        "assert not any(name.startswith('sparecode_node') for name in sys.modules)\n"
        "print('ok')"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "ok\n", done.stderr
