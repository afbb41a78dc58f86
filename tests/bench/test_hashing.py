# SPDX-License-Identifier: Apache-2.0
"""Both libraries are compared in the same nodes, in turn, and each really hashes."""

import io
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock, call

import pytest
from rich.console import Console

from sparecode_node.services.secrets.kdf import PRODUCTION, KdfInput, Secret, hashed
from tests.bench import hashing, limits
from tests.bench.estate import Run
from tests.bench.harness import Bench
from tests.bench.limits import Limits
from tests.bench.load import Clients, Load
from tests.bench.report import Report

LOAD = Load(addresses=(), ca="", method="/x/Echo", requests=(), clients=1, seconds=30)
HASH = """
from nacl.pwhash import argon2id
from sparecode_node.services.secrets.kdf import PRODUCTION, KdfInput, Secret, hashed
each = KdfInput(secret=Secret.PIN, salt=bytes(16), text="4711")
print(hashed(PRODUCTION, each).hex(), argon2id.kdf.__module__)
"""


def test_a_node_with_the_folder_hashes_by_argon2_cffi() -> None:
    node = SimpleNamespace(environment=dict(os.environ))
    each = KdfInput(secret=Secret.PIN, salt=bytes(16), text="4711")
    expected = hashed(PRODUCTION, each).hex()
    for library, module in (
        ("argon2-cffi", "sitecustomize"),
        ("libsodium", "nacl.pwhash.argon2id"),
    ):
        hashing.choose(node, library)
        done = subprocess.run(
            [sys.executable, "-c", HASH],
            env=node.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.stdout.split() == [expected, module], done.stderr


def test_both_libraries_hash_the_same_for_the_ceilings() -> None:
    assert limits.libsodium() == limits.argon2_cffi()


def test_nodes_take_turns_and_the_ratios_are_of_each_round(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = Report(path=tmp_path / "bench.json")
    none = Limits(
        echo={},
        sync_ms=1,
        argon2id_per_s=1,
        argon2id_ms=1,
        argon2_cffi_per_s=1,
        argon2_cffi_ms=1,
        commits_per_s=1,
    )
    bench = Bench(report, none, 1, Console(file=io.StringIO()))
    node = SimpleNamespace(environment={})
    estate = Mock()
    estate.cluster.nodes = [node]
    turns: list[str] = []

    def load(**_: object) -> Run:
        older = "PYTHONPATH" in node.environment
        turns.append("argon2-cffi" if older else "libsodium")
        clients = Clients(LOAD)
        for number in range(40 if older else 80):
            clients.record(
                ended=(number + 1) / (40 if older else 80), took_s=0, code="OK"
            )
        return Run(measured=clients.measured(begin=0), cpu_ms={}, entries=0)

    estate.authenticate = load
    monkeypatch.setattr(limits, "argon2id_per_s", lambda: 200)
    hashing.compare(bench, estate)
    both = ["argon2-cffi", "libsodium"]
    assert turns == [*both, *reversed(both), *both]  # Every second round in reverse.
    estate.share_cores.assert_called_once_with()
    estate.take_all_cores.assert_called_once_with()
    assert estate.method_calls[-1] == call.start()  # The next load finds nodes.
    faster, share = report.targets
    assert faster.value == pytest.approx(2)
    assert share.value == pytest.approx(0.8)
    assert (faster.holds, share.holds) == (True, True)
    assert [each["clients"] for each in report.results if "per_s" in each] == [64, 64]
