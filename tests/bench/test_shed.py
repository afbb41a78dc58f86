# SPDX-License-Identifier: Apache-2.0
"""Setups of nodes are compared in turn, and a crowd that is not shed shows nothing."""

import io
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from tests.bench import limits, shed
from tests.bench.cpu_profile import Thread
from tests.bench.estate import Estate, Run, hash_with
from tests.bench.harness import MANY, Bench
from tests.bench.load import Clients, Load
from tests.bench.report import Report
from tests.bench.shed import CLIENTS, SETUPS, compare, waits_ms

LOAD = Load(addresses=(), ca="", method="/x/Echo", requests=(), clients=1, seconds=30)


@pytest.mark.parametrize("setup", SETUPS)
def test_a_setup_changes_the_threads_and_the_session_of_a_node(
    tmp_path: Path, setup: shed.Setup
) -> None:
    node = node_in(tmp_path)
    hash_with(node, 77)
    setup.prepare(node)
    kdf = tomllib.loads(node.config.read_text())["kdf"]
    assert kdf == {"profile": "production"} | (
        {"threads": setup.threads} if setup.threads else {}
    )
    assert node.own_session is setup.own_sessions


@pytest.mark.parametrize(("cores", "threads"), [(2, 1), (3, 1), (4, 2), (8, 3)])
def test_nodes_of_one_machine_share_its_cores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cores: int, threads: int
) -> None:
    monkeypatch.setattr("tests.bench.estate.usable_cores", lambda: cores)
    node = node_in(tmp_path)
    cluster = SimpleNamespace(nodes=[node, node, node])
    Estate.share_cores(SimpleNamespace(cluster=cluster))  # type: ignore[arg-type]
    assert tomllib.loads(node.config.read_text())["kdf"]["threads"] == threads


def node_in(folder: Path) -> SimpleNamespace:
    """Return a node that hashes as the cluster's benchmarks do."""
    config = folder / "node.toml"
    config.write_text('[kdf]\nprofile = "production"\n')
    return SimpleNamespace(config=config, own_session=None, node_id="n1")


class Cluster:
    """An estate whose nodes hash 40 a second, and shed most calls of a crowd."""

    def __init__(self, folder: Path, *, sheds: bool) -> None:
        self.node = node_in(folder)
        self.cluster = SimpleNamespace(nodes=[self.node])
        self.turns: list[tuple[int | None, bool, int]] = []
        self._sheds = sheds

    def stop(self) -> None:
        """Do nothing."""

    def start(self) -> None:
        """Do nothing."""

    def authenticate(self, *, clients: int, **_: object) -> Run:
        kdf = tomllib.loads(self.node.config.read_text())["kdf"]
        self.turns.append((kdf.get("threads"), self.node.own_session, clients))
        caller = Clients(LOAD)
        for number in range(40):
            caller.record(ended=(number + 1) / 40, took_s=0.5, code="OK")
            if clients == MANY and self._sheds:
                caller.record(
                    ended=(number + 1) / 40, took_s=0.06, code="RESOURCE_EXHAUSTED"
                )
        return Run(measured=caller.measured(begin=0), cpu_ms={}, entries=0)


@pytest.mark.parametrize("sheds", [True, False])
def test_setups_take_turns_and_each_has_both_targets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, sheds: bool
) -> None:
    report, estate = Report(path=tmp_path / "shed.json"), Cluster(tmp_path, sheds=sheds)
    bench = Bench(report, None, 1, Console(file=io.StringIO()))  # type: ignore[arg-type]
    monkeypatch.setattr(limits, "argon2id_per_s", lambda: 100)
    monkeypatch.setattr(shed, "threads_of", lambda *_: {})
    compare(bench, estate, "py-spy")
    once = [
        (setup.threads, setup.own_sessions, clients)
        for setup in SETUPS
        for clients in (CLIENTS, MANY)
    ]
    reverse = [*once[4:], *once[2:4], *once[:2]]
    assert estate.turns == [*once, *reverse, *once]
    assert len(report.targets) == 2 * len(SETUPS)
    for share, soon in zip(report.targets[::2], report.targets[1::2], strict=True):
        assert (share.value, share.holds) == (pytest.approx(0.8, rel=0.2), True)
        assert soon.value == (pytest.approx(60) if sheds else None)
        assert soon.holds is False  # Too late, or nothing that was shed shows anything.
    assert report.exit_code() == 1


def test_a_ceiling_that_other_programs_have_lowered_meets_no_target(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report, estate = Report(path=tmp_path / "shed.json"), Cluster(tmp_path, sheds=True)
    bench = Bench(report, None, 1, Console(file=io.StringIO()))  # type: ignore[arg-type]
    monkeypatch.setattr(limits, "argon2id_per_s", lambda: 50)
    monkeypatch.setattr(shed, "threads_of", lambda *_: {})
    compare(bench, estate, "py-spy", rounds=1)
    for share in report.targets[::2]:
        assert (share.value, share.holds) == (None, False)


def test_waits_for_a_core_are_those_of_one_turn_since_before() -> None:
    def threads(waited_s: float, turns: int) -> dict[str, dict[str, Thread]]:
        loop = Thread(name="MainThread", waited_s=waited_s, turns=turns)
        rare = Thread(name="rare", waited_s=waited_s, turns=turns // 1000)
        return {"n1": {"1": loop, "2": rare}}

    # 1.5 s in 500 turns.
    assert waits_ms(threads(0.5, 1000), threads(2.0, 1500)) == {
        "MainThread": pytest.approx(3)
    }
