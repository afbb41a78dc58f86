# SPDX-License-Identifier: Apache-2.0
"""What would make a million users fail is seen: holds, silences, overlapping snapshots."""

import contextlib
import io
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
from local_cluster.cluster import LocalCluster
from rich.console import Console

from sparecode.v1 import authentication_pb2
from sparecode_node.replication.settings import RaftSettings
from tests.bench import (
    administration,
    million,
    mixed,
    page,
    policy_changes,
    snapshot_turns,
)
from tests.bench.estate import Estate, OtherEstateError, Run
from tests.bench.harness import Bench
from tests.bench.joining import kept
from tests.bench.load import Clients, Load, Measurement
from tests.bench.mixed import Streams, longest_gap_s
from tests.bench.population import CODES_EACH, Population
from tests.bench.report import ALL_OF_IT, Report
from tests.bench.snapshot_turns import (
    Course,
    Snapshot,
    entries_apart,
    most_at_once,
    overlaps,
    snapshots_in,
    turn_entries,
)

LOAD = Load(
    addresses=(),
    ca="",
    method="/x/Echo",
    requests=(),
    clients=1,
    seconds=30,
    keeps_answers=True,
)

TAKEN = (
    "2026-12-01T10:00:{second}.500Z INFO     "
    "snapshot_taken index={index} bytes=4 seconds={seconds}\n"
)
COURSE = Course(
    since=0,
    entries_per_s=50,
    settings=RaftSettings(),
    alone_s=7,
    are_turns_short=False,
)


def run_of(begin: float, *ended: float) -> Run:
    """Return a run that began then, with answers at these moments."""
    clients = Clients(LOAD)
    for each in ended:
        clients.record(ended=each, took_s=0.1, code="OK")
    return Run(measured=clients.measured(begin=begin), cpu_ms={}, entries=0)


def bench(tmp_path: Path) -> Bench:
    report = Report(path=tmp_path / "million.json")
    return Bench(report, None, 1, Console(file=io.StringIO()))  # type: ignore[arg-type]


def test_two_long_holds_of_three_are_a_hold() -> None:
    assert policy_changes.held_ms([20, 900, 900], [20, 21, 22]) == pytest.approx(879)
    assert policy_changes.held_ms([20, 22, 900], [20, 21, 22]) == pytest.approx(1)
    assert policy_changes.held_ms([20, 20, 20], [30, 30, 30]) == 0


def test_a_change_before_or_after_the_calls_is_measured_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Otherwise a change that ends before the clients begin would hold nothing."""
    estate, tries, numbers = Mock(), [], Mock()
    estate.cluster.nodes = [Mock()]
    numbers.highest.return_value = 0.002
    numbers.of = lambda _: {"policy_at_s": time.perf_counter(), "policy_entry_s": 0.002}
    index = iter(range(0, 1000, 50))
    estate.commit_index = lambda: next(index)

    def load(*, seconds: float, **_: object) -> Run:
        tries.append(seconds)
        now = time.perf_counter()
        if len(tries) == 1:
            return run_of(now - 9, now - 8)  # It has ended.
        if len(tries) == 2:
            return run_of(now + 60, now + 90)  # It has not begun.
        return run_of(now - 60, now, now + 0.5, now + 60)

    estate.authenticate = load
    monkeypatch.setattr(administration, "policy_change_ms", lambda *_, **__: 7.0)
    change = policy_changes.change_under_load(estate, numbers, "x", 2)
    assert (round(change.gap_s), change.took_ms, change.load_s) == (60, 7.0, 8)
    assert tries == [2, 4, 8]
    # The entries of each try count alone.
    assert change.entry_ms == 2
    assert [each[0] for each in numbers.mock_calls] == ["clear"] * 3 + ["highest"] * 3
    estate.authenticate = lambda **_: run_of(0, 1)
    numbers.of = lambda _: {"policy_at_s": 1.0, "policy_entry_s": 0.002}
    with pytest.raises(RuntimeError, match="a change of x outlasts loads of 16 s"):
        policy_changes.change_under_load(estate, numbers, "x", 2)
    numbers.of = lambda _: {"policy_at_s": 0.0, "policy_entry_s": 0.0}
    with pytest.raises(RuntimeError, match="recorded no change of the policy"):
        policy_changes.change_under_load(estate, numbers, "x", 2)


def answers(*spans: tuple[float, float]) -> Measurement:
    """Return a load from 0 s to 10 s whose calls began and ended then."""
    clients = Clients(LOAD)
    for began, ended in (*spans, (9.9, 10.0)):
        clients.record(ended=ended, took_s=ended - began, code="OK")
    return clients.measured(begin=0)


def test_calls_that_wait_for_a_change_are_seen_among_those_in_flight() -> None:
    """Other calls, however long, are not: they are compared with these."""
    measured = answers((0, 1.2), (1, 1.1), (4.9, 5.4), (5.005, 5.2), (5.5, 6.5))
    found = policy_changes.longest_in_flight_ms(measured, (5.0, 5.01))
    assert found == pytest.approx(500)
    assert policy_changes.longest_in_flight_ms(measured, (7, 8)) == 0
    refused = Clients(LOAD)
    refused.record(ended=1, took_s=1, code="UNAVAILABLE")
    assert refused.measured(begin=0).answers == ()


def test_moments_without_a_change_are_apart_from_its_call() -> None:
    """While codes are counted, and just after the change, answers may take longer."""
    measured, seconds = answers(), 0.1
    moments = policy_changes.other_moments(measured, (2, 6), seconds)
    apart = policy_changes.APART_S
    assert all(ended - began == pytest.approx(seconds) for began, ended in moments)
    assert min(began for began, _ in moments) == apart
    assert max(ended for _, ended in moments) <= 10 - apart
    gap = [each for each in moments if each[1] > 2 - apart and each[0] < 6 + apart]
    assert (gap, len(moments) > 60) == ([], True)
    assert policy_changes.other_moments(measured, (0, 10), seconds) == []


def test_a_change_that_holds_the_calls_in_flight_misses_its_bound(
    tmp_path: Path,
) -> None:
    """While it is applied, or while codes are counted, whatever its entry takes."""
    measuring = bench(tmp_path)
    good = policy_changes.Change(
        gap_s=0.1,
        took_ms=18_000,
        entry_ms=4,
        entry_cpu_ms=3,
        others_ms=5,
        in_flight_ms=90,
        otherwise_ms=60,
        counting_ms=80,
        load_s=40,
    )
    bad = replace(good, in_flight_ms=111)
    long = replace(good, entry_ms=51)
    slow = replace(good, counting_ms=111)
    uncounted = replace(good, counting_ms=0)
    policy_changes.report(
        measuring,
        {
            "a": [good, good, bad, slow],
            "b": [good, bad, bad],
            "c": [long],
            "d": [good, slow, slow],
            "e": [uncounted],
        },
    )
    assert [each.holds for each in measuring.report.targets] == [
        *(True, True, True),
        *(True, False, True),
        *(False, True, True),
        *(True, True, False),
        *(True, True),
    ]
    assert "51 ms at most" in measuring.report.targets[6].words


def test_snapshots_of_two_nodes_that_overlap_are_counted() -> None:
    line = "2026-12-01T10:00:{:02}.500Z INFO     snapshot_taken index=9 bytes=4 seconds={}\n"
    log = line.format(10, 4.5) + line.format(30, 2) + "2026-12-01T10:00:31.000Z other\n"
    first, second = snapshots_in("n1", log, since=0)
    assert second.began - first.began == pytest.approx(22.5)
    assert snapshots_in("n1", log, since=first.ended) == [second]
    between = Snapshot(began=first.ended, ended=second.began, node="n2", index=20)
    other = replace(between, began=first.ended - 0.1, ended=second.began + 0.1)
    assert overlaps([first, second, other]) == 2
    assert overlaps([first, second, between]) == 0
    assert most_at_once([first, second, between]) == 1
    assert most_at_once([first, second, other]) == 2
    assert most_at_once([first, other, replace(other, node="n3")]) == 3
    assert most_at_once([]) == 0


def test_the_silence_of_the_runs_within_a_time_counts() -> None:
    runs = [run_of(0, 1, 9, 10), run_of(10, 11, 13, 15), run_of(20, 21)]
    assert longest_gap_s(runs, 12, 19) == pytest.approx(2)
    assert longest_gap_s(runs, 0, 100) == pytest.approx(8)
    assert longest_gap_s(runs, 50, 60) == float("inf")


def test_a_load_that_fails_ends_all_loads() -> None:
    """A right passcode that was refused, for example."""
    calls = threading.Event()

    def good() -> Run:
        calls.set()
        return run_of(0, 1)

    def bad() -> Run:
        calls.wait(30)
        raise ValueError("1 of 1 right passcodes were refused")

    streams, beside = Streams(), Mock()
    with pytest.raises(ValueError, match="were refused"):
        streams.run(
            {"good": good, "bad": bad},
            lambda _: 1.0,
            seconds=300,
            pause_s=300,
            beside=beside,
        )
    assert streams.runs["good"]
    assert not beside.called, "no node joins for nothing"


def test_a_node_without_snapshots_and_a_long_silence_miss_their_bounds(
    tmp_path: Path,
) -> None:
    nodes = []
    for name, log in (
        ("n1", TAKEN.format(second=10, index=600, seconds=1)),
        ("n2", ""),
        ("joiner", ""),
    ):
        (tmp_path / name).write_text(log)
        nodes.append(SimpleNamespace(node_id=name, log=tmp_path / name))
    measuring = bench(tmp_path)
    streams = Streams()
    silent, steady = run_of(0, 1, 2.5, 3), run_of(0, 1, 1.5, 2)
    streams.runs = {"codes": [silent], "tokencodes": [steady, silent]}
    streams.runs |= {"reads": [steady], "issues": [silent]}
    streams.changes = [("x", 3.0)]
    mixed._report_streams(measuring, streams, 600)
    snapshot_turns.report(measuring, nodes, COURSE)  # type: ignore[arg-type]
    # Without two of them, it is not seen either that they are apart.
    assert [target.holds for target in measuring.report.targets] == [
        *(False, False, True),
        *(False, False),
    ]
    assert measuring.report.exit_code() == 1


def test_snapshots_that_begin_in_turns_hold_their_bound_though_they_overlap(
    tmp_path: Path,
) -> None:
    """A turn is a number of entries. A snapshot may last longer than one."""
    late = TAKEN.format(second=40, index=1390, seconds=9)
    for second_index, joiners, holds in ((1060, 700, True), (800, 700, False)):
        measuring, nodes = bench(tmp_path), []
        logs = {
            "n1": TAKEN.format(second=10, index=600, seconds=9) + late,
            "n2": TAKEN.format(second=12, index=second_index, seconds=9),
            "joiner": TAKEN.format(second=12, index=joiners, seconds=9),
        }
        for name, log in logs.items():
            (tmp_path / name).write_text(log)
            nodes.append(SimpleNamespace(node_id=name, log=tmp_path / name))
        snapshot_turns.report(measuring, nodes, COURSE)  # type: ignore[arg-type]
        assert [each.holds for each in measuring.report.targets] == [True, holds]
        turns = measuring.report.results[-1]
        assert turns["pairs_of_two_nodes_at_the_same_time"] == 3
        assert turns["nodes_at_the_same_time_at_most"] == 3
        assert (turns["entries_of_a_turn"], turns["seconds_of_a_turn"]) == (896, 17.9)
        short = replace(COURSE, are_turns_short=True)
        snapshot_turns.report(measuring, nodes, short)  # type: ignore[arg-type]
        assert measuring.report.targets[-1].holds is None


def test_entries_between_snapshots_of_one_node_do_not_count() -> None:
    indexes = (("n1", 10), ("n2", 30), ("n2", 31), ("n1", 90))
    snapshots = [
        Snapshot(began=0, ended=1, node=node, index=index) for node, index in indexes
    ]
    assert entries_apart([*reversed(snapshots)]) == [20, 59]
    assert [turn_entries(RaftSettings(), members) for members in (3, 4)] == [597, 448]


def test_the_page_shows_every_target_and_the_parts_that_failed(tmp_path: Path) -> None:
    measuring = bench(tmp_path)
    with measuring.part("A join"):
        raise ValueError("it failed")
    measuring.target("(million)", "at most this", 1, 2, unit=" s")
    measuring.target("(million)", "at least that", 1, 2, at_least=True)
    measuring.report.add(ALL_OF_IT, seconds=600)
    shown = "\n".join(page.table(measuring.report))
    assert "| (million) at most this | at most 2 s | 1.00 s | yes |" in shown
    assert "| (million) at least that | at least 2 | 1.00 | **no** |" in shown
    assert "**A join** has failed, so its targets are missing" in shown
    assert "took 10 minutes" in shown


def test_a_kept_estate_goes_on_with_the_codes_that_are_left(tmp_path: Path) -> None:
    """Each code works once, also in the next run."""
    users = Population(users=8, profile="testing")
    built: list[LocalCluster] = []

    def build(cluster: LocalCluster, _: Population) -> None:
        built.append(cluster)

    def estate(population: Population = users) -> Estate:
        return Estate(tmp_path / "one", population, nodes=1, build=build)

    first = estate()
    taken = first.take("code", 10)
    first.give_back("code", taken[7:])
    assert first.take("code", 3) == taken[7:]
    with pytest.raises(ValueError, match="unused codes left"):
        first.take("code", 6 * CODES_EACH)
    with first.cluster.nodes[0].config.open("a") as config:
        config.write("# changed by a run\n")
    again = estate()
    assert len(built) == 1
    left = 6 * CODES_EACH - 10
    later = again.take("code", left)
    assert len({_passcode(each) for each in (*taken, *later)}) == left + 10
    assert "changed by a run" not in again.cluster.nodes[0].config.read_text()
    with pytest.raises(OtherEstateError, match="an estate of 8 users, not 9"):
        estate(Population(users=9, profile="testing"))
    (tmp_path / "one/built.json").unlink()
    with pytest.raises(OtherEstateError, match="no complete estate"):
        estate()


def _passcode(request: str) -> tuple[str, str]:
    each = authentication_pb2.AuthenticateRequest.FromString(bytes.fromhex(request))
    return each.username, each.passcode


def test_a_recorded_command_names_its_options() -> None:
    assert kept(None) == ""
    assert kept(Path("/srv/estates")) == ' ARGS="--folder DIR"'
    both = kept(Path("/srv/estates"), "--profile production")
    assert both == ' ARGS="--profile production --folder DIR"'


def test_the_default_hashing_has_loads_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hashing usable codes takes long, and few of them are used."""
    seen: list[tuple[Path, Population]] = []
    monkeypatch.setattr(
        million,
        "Estate",
        lambda folder, population, **_: (
            seen.append((folder, population)) or contextlib.nullcontext()
        ),
    )
    monkeypatch.setattr(million, "ATTEMPTS_PER_S", 100)  # As with two cores, nearly.
    done: list[str] = []
    for part in ("memory", "mixed_load"):
        monkeypatch.setattr(million, part, lambda *_, part=part: done.append(part))
    million.memory_while_hashing(bench(tmp_path), tmp_path, 1_000_000, 10)
    ((folder, population),) = seen
    assert (folder.name, population.profile) == ("hashing", "production")
    assert population.usable is not None
    assert 0 < population.usable * CODES_EACH < 10_000
    assert done == ["memory", "mixed_load"]
