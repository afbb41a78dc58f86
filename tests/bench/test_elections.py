# SPDX-License-Identifier: Apache-2.0
"""Elections in an overload are counted, and explained by what the nodes wrote down."""

import contextlib
import io
import json
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
from local_cluster.setup import set_up
from rich.console import Console

from tests.bench import elections
from tests.bench.elections import Moment, explained, minutes, read
from tests.bench.estate import Run
from tests.bench.harness import Bench
from tests.bench.load import Clients, Load
from tests.bench.node_numbers.sitecustomize import MOMENTS, TO
from tests.bench.numbers import watched
from tests.bench.report import Report

LOAD = Load(addresses=(), ca="", method="/x/Echo", requests=(), clients=1, seconds=30)
LED = Moment(node="n1", what="leads", at_s=1)


def campaign(node: str = "n2", at_s: float = 10, seconds: float = 0.5) -> Moment:
    """Return an election, by default of n2 after half a second of silence."""
    return Moment(node=node, what="campaigns", at_s=at_s, seconds=seconds)


def late(node: str, what: str, at_s: float, seconds: float, **times: float) -> Moment:
    """Return a wait that ended at this time."""
    return Moment(node=node, what=what, at_s=at_s, seconds=seconds, **times)


def test_an_election_is_explained_by_the_lateness_of_its_primary() -> None:
    moments = [
        LED,
        late("n1", "tick", 9.0, 3.0),  # Before the silence.
        late("n1", "tick", 9.7, 0.15, core_s=0.1),
        late("n1", "sync", 10.2, 0.4),
        late("n1", "beat", 10.2, 0.5, core_s=0.3, ran_s=0.1),
        late("n1", "tick", 10.2, 0.6, core_s=0.45, ran_s=0.02),
        campaign(),
        late("n1", "beat", 11.0, 0.3),  # Began after it.
    ]
    (why,) = explained(sorted(moments, key=lambda each: each.at_s))
    assert why == (
        "n2 asked for votes after 0.50 s without a message of the primary, n1. "
        "n1 was late: 0.60 s between two ticks of its engine (its thread waited 0.45 s "
        "for a core and ran 0.02 s), 0.40 s in one sync, 0.50 s between two beats of its "
        "event loop (its thread waited 0.30 s for a core and ran 0.10 s). "
        "n2 was on time."
    )


def test_the_primary_is_who_led_last() -> None:
    moments = [LED, Moment(node="n3", what="leads", at_s=5), campaign()]
    (why,) = explained(moments)
    assert "of the primary, n3. n3 was on time. n2 was on time." in why
    (why,) = explained([LED, late("n1", "tick", 9.0, 0.5), campaign("n1", seconds=9)])
    assert why.startswith("n1, which led until it heard no majority, asked for votes")
    assert "0.50 s between two ticks" in why
    assert "is not known" in explained([campaign(at_s=0.5), LED])[0]


class Nodes:
    """Nodes that hold an election in their second minute of load."""

    def __init__(self) -> None:
        self.node = SimpleNamespace(node_id="n2", environment={})
        self.cluster = SimpleNamespace(nodes=[self.node])
        self.loads = 0
        self.shared_after: int | None = None

    def stop(self) -> None:
        """Do nothing."""

    def start_in_one_session(self) -> None:
        """Share one session from the next start on."""
        self.shared_after = self.loads

    def start(self) -> None:
        """Write as a node that leads from its start on."""
        self._write(what="leads", at_s=1)
        self._write(what="campaigns", at_s=1, seconds=9)

    def term(self) -> int:
        """Return 1, and 2 from the second minute on."""
        return 1 if self.loads < 2 else 2

    def authenticate(self, **_: object) -> Run:
        """Last long enough, and be late twice."""
        self.loads += 1
        if self.loads == 2:
            self._write(what="campaigns", at_s=12, seconds=0.5)
        self._write(what="tick", at_s=10 * self.loads, seconds=0.25 * self.loads)
        clients = Clients(LOAD)
        clients.record(ended=60, took_s=1, code="OK")
        return Run(measured=clients.measured(begin=0), cpu_ms={}, entries=0)

    def _write(self, **line: object) -> None:
        with Path(self.node.environment[TO]).open("a") as file:
            file.write(json.dumps(line) + "\n")


def test_each_minute_is_reported_with_its_elections_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    beside = Mock(side_effect=contextlib.nullcontext)
    monkeypatch.setattr(elections, "busy_programs", beside)
    report = Report(path=tmp_path / "bench.json", command="make bench-elections")
    console = Console(file=io.StringIO(), width=300)
    bench = Bench(report, None, 60, console)  # type: ignore[arg-type]
    minutes(bench, Nodes(), 2, 60)  # type: ignore[arg-type]
    first, second = report.targets
    assert (first.value, first.holds, second.value, second.holds) == (0, True, 1, False)
    assert beside.call_count == 1
    whys = [each for each in report.results if "why" in each]
    assert [each["name"] for each in whys] == [
        second.words.replace("elections", "election")
    ]
    assert whys[0]["why"].startswith("n2, which led until it heard no majority")
    waits = [each["tick"] for each in report.results if "tick" in each]
    assert waits == [0.25, 0.5]


def test_as_many_minutes_follow_in_one_session(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their elections are counted apart."""
    beside = Mock(side_effect=contextlib.nullcontext)
    monkeypatch.setattr(elections, "busy_programs", beside)
    report = Report(path=tmp_path / "bench.json", command="make bench-elections")
    bench = Bench(report, None, 60, Console(file=io.StringIO()))  # type: ignore[arg-type]
    nodes = Nodes()
    minutes(bench, nodes, 2, 60, one_session=True)  # type: ignore[arg-type]
    assert (nodes.loads, nodes.shared_after, beside.call_count) == (4, 2, 2)
    words = [each.words for each in report.targets]
    assert [", one session" in each for each in words] == [False, False, True, True]
    assert len(set(words)) == 4
    assert elections.users(2, 60, one_session=True) > 1.9 * elections.users(2, 60)


def test_nodes_write_who_campaigns_and_leads(tmp_path: Path) -> None:
    cluster = set_up(tmp_path / "cluster", testing=True)
    with watched(cluster.nodes, MOMENTS) as files:
        try:
            cluster.start()
        finally:
            cluster.stop()
        seen = read(files)
    first = next(each for each in seen if each.what == "leads")
    assert any(
        each.what == "campaigns" and each.node == first.node and each.at_s < first.at_s
        for each in seen
    )
