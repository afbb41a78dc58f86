# SPDX-License-Identifier: Apache-2.0
"""`FakeCluster`: its nodes, and what it needs. tests/system compares its decisions."""

import subprocess
import sys
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
