# SPDX-License-Identifier: Apache-2.0
"""Proofs of faults: their effect, and problems that must not happen."""

import random
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from local_cluster.cluster import LocalCluster, LocalNode, Ports
from local_cluster.setup import node_settings

from sparecode_node.membership.node_file import node_toml
from tests.faults import nemesis, strikes
from tests.faults.bounds import ENDS_PROCESSES
from tests.faults.nemesis import FAULTS, NO_QUORUM
from tests.faults.newcomers import settings
from tests.faults.plans import SERIES
from tests.faults.receivers import Receivers
from tests.faults.striker import Proof
from tests.faults.strikes import Strikes


@dataclass
class FakeNode:
    """A process that stops with an exit code and restarts with another id."""

    node_id: str
    pid: int
    code: int | None = 0
    killed: int = 0

    def stop(self) -> int | None:
        return self.code

    def kill(self) -> None:
        self.killed += 1


@dataclass
class FakeSite:
    """Three nodes whose logs show how often a primary handed over."""

    nodes: list[FakeNode]
    handed_over: int = 1
    not_handed_over: int = 0
    renews: bool = True
    _counts: dict[str, int] = field(default_factory=dict)

    def count(self, event: str) -> int:
        """Return 0 at first, then the configured number."""
        before = self._counts.get(event, 0)
        self._counts[event] = getattr(self, event)
        return before

    def place(self, node: FakeNode) -> str:
        return node.node_id

    def start(self, node: FakeNode) -> None:
        node.pid += 100 if self.renews else 0

    def ready(self, _node: FakeNode) -> None:
        pass


def nodes(code: int | None = 0) -> list[FakeNode]:
    never = 2**30  # No such process.
    return [FakeNode(f"n{n}", never + n, code) for n in (1, 2, 3)]


def striking(
    site: Any,
    first_success: float | None = 0.5,
    receivers: Receivers | None = None,
) -> Strikes:
    return Strikes(
        site,
        random.Random(1),
        primary=lambda: site.nodes[0],
        offset_of=lambda _node: 0.0,
        newest_applied=lambda: 0,
        first_success=lambda _after, _but: first_success,
        receivers=receivers or Receivers(Path()),
    )


def test_a_rolling_restart_needs_new_processes_and_a_handover() -> None:
    proof = striking(FakeSite(nodes())).rolling_restart()
    assert proof.bit
    assert not proof.failure
    assert "1 primaries handed over" in proof.words


@pytest.mark.parametrize(
    ("site", "bit", "failure"),
    [
        (FakeSite(nodes(), handed_over=0), False, ""),
        (FakeSite(nodes(), renews=False), False, ""),
        (FakeSite(nodes(code=70)), True, "exit codes [70, 70, 70]"),
        (FakeSite(nodes(code=None)), True, "exit codes [None, None, None]"),
        (
            FakeSite(nodes(), not_handed_over=2),
            True,
            "2 primaries stopped without handing over",
        ),
    ],
    ids=["no handover", "same process", "failed", "killed", "stopped as primary"],
)
def test_an_incomplete_rolling_restart(site: FakeSite, bit: bool, failure: str) -> None:
    proof = striking(site).rolling_restart()
    assert (proof.bit, proof.failure) == (bit, failure)


@dataclass
class SiteWithAnElection(FakeSite):
    """The primary of the end had restarted before it was elected."""

    starts: int = 0

    def start(self, node: FakeNode) -> None:
        self.starts += 1
        super().start(node)

    def count(self, event: str) -> int:
        return int(event == "handed_over" and self.starts > len(self.nodes))


def test_a_primary_that_was_elected_meanwhile_restarts_once_more() -> None:
    site = SiteWithAnElection(nodes())
    proof = striking(site).rolling_restart()
    assert proof.bit
    assert "1 primaries handed over" in proof.words
    assert site.starts == 4


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strikes, "SUCCESS_S", 0.0)
    monkeypatch.setattr(Strikes, "_last", lambda _self, least, _most: least)


@pytest.mark.usefixtures("hasty")
def test_silent_survivors_are_a_failure_and_not_part_of_the_median() -> None:
    proof = striking(FakeSite(nodes()), first_success=None).kill_primary()
    assert proof.bit
    assert proof.success_s is None
    assert proof.failure.startswith("no success at the survivors")


@pytest.mark.usefixtures("hasty")
def test_answering_survivors_are_timed() -> None:
    proof = striking(FakeSite(nodes()), first_success=0.5).kill_primary()
    assert (proof.success_s, proof.failure) == (0.5, "")


def test_the_moment_of_a_majority_is_not_that_of_all_nodes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The prober is excused until a majority serves, not until all nodes do."""
    monkeypatch.setattr(nemesis, "CALM_S", 0)
    moments = iter([1, 2, 3, 4])
    monkeypatch.setattr(nemesis.time, "monotonic_ns", lambda: next(moments))
    site: Any = FakeSite(nodes())
    site.waited = []
    site.majority_ready = lambda: site.waited.append("majority")
    site.ready = lambda: site.waited.append("all")
    for node in site.nodes:
        node.running = True
    attacker = nemesis.Nemesis(
        site,
        random.Random(1),
        session="",
        first_success=lambda _after, _but: None,
        receivers=Receivers(Path()),
    )
    monkeypatch.setattr(
        attacker._strikes, "kill_all", lambda: Proof(bit=True, words="gone")
    )
    struck = attacker._strike("kill_all")
    assert (struck.end_ns, struck.quorum_ns, struck.ready_ns) == (2, 3, 4)
    assert site.waited == ["majority", "all"]


def test_every_fault_exists_and_has_a_bound() -> None:
    for fault in FAULTS:
        assert callable(getattr(Strikes, fault))
    assert {*FAULTS} >= ENDS_PROCESSES >= NO_QUORUM
    for series in SERIES.values():
        assert {*FAULTS} >= {*series.faults}
    # The strikes with the longest proofs need not wait for their turn in a campaign.
    assert "starving" in SERIES["disks-and-links"].faults


def test_a_newcomer_has_another_id_and_files_of_its_own(tmp_path: Path) -> None:
    """It knows no member but itself; everything else stays."""
    ports = Ports(agents=7300, peers=7301, admin=7304)
    nodes = [
        LocalNode(name, tmp_path / name, ports, testing=True) for name in ("n1", "n2")
    ]
    cluster = LocalCluster(tmp_path, nodes, testing=True)
    second = nodes[1]
    second.directory.mkdir()
    before = node_settings(cluster, second, {"log_entries_max": 600})
    second.config.write_text(node_toml(before))
    after = tomllib.loads(settings(second, "n4"))
    expected = tomllib.loads(node_toml(before))
    tls = second.directory / "tls"
    expected["node"]["id"] = "n4"
    expected["cluster"]["members"] = {"n4": "127.0.0.1:7301"}
    for listener in ("agents", "peers", "admin"):
        expected[listener] |= {
            "certificate": f"{tls}/node.pem",
            "key": f"{tls}/node.key",
        }
    expected["agents"]["ca"] = f"{tls}/agents-ca.pem"
    expected["peers"]["ca"] = f"{tls}/members-ca.pem"
    assert after == expected
