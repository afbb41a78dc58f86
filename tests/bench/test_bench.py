# SPDX-License-Identifier: Apache-2.0
"""The benchmark measures real calls on a usable estate, and reports them correctly."""

import contextlib
import io
import math
import platform
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any
from unittest.mock import AsyncMock, Mock

import pytest
from rich.console import Console

from sparecode.v1 import authentication_pb2
from sparecode_client import Policy
from tests.bench import administration, authentication, overload, refusals
from tests.bench import estate as estates
from tests.bench.estate import Estate, Run
from tests.bench.harness import ROUNDS, Bench, ratio
from tests.bench.limits import Limits
from tests.bench.load import Clients, Load, answered, longest_gap, percentile
from tests.bench.node_numbers.sitecustomize import TO, Numbers
from tests.bench.numbers import NodeNumbers
from tests.bench.population import CODES_EACH, PIN, Population
from tests.bench.probes import NOTE_MS, Syncs, syncs_in
from tests.bench.recovery import first_kept, must_fall_within
from tests.bench.report import Report, Target


def nothing_secret_in(report: Report, population: Population) -> bool:
    """Return whether the output of `make bench` contains no code or seed of the estate."""
    report.write()
    screen = Console(record=True, file=io.StringIO(), width=200)
    report.show(screen)
    output = (report.path.read_text() + screen.export_text()).upper()
    secrets = {
        secret
        for number in range(population.users)
        for secret in (
            population.seed(number).hex().upper(),
            *(population.code(number, ordinal).upper() for ordinal in range(1, 11)),
        )
    }
    return len(secrets) > 64 and not any(secret in output for secret in secrets)


@pytest.mark.parametrize(
    ("value", "at_least", "holds"),
    [(0.8, True, True), (0.79, True, False), (0.8, False, True), (0.81, False, False)],
)
def test_a_target_holds_at_its_bound(
    value: float, *, at_least: bool, holds: bool
) -> None:
    target = Target(name="x", words="", value=value, target=0.8, at_least=at_least)
    assert target.holds is holds


def test_a_target_without_a_value_is_missed_only_if_it_is_needed() -> None:
    target = Target(name="x", words="", value=None, target=1, at_least=True)
    assert target.holds is None
    assert replace(target, needed=True).holds is False


@pytest.mark.parametrize(("needed", "holds"), [(True, False), (False, None)])
def test_a_crowd_of_which_no_call_is_shed_shows_nothing(
    tmp_path: Path, *, needed: bool, holds: bool | None
) -> None:
    """With cheap hashing, nodes may be fast enough for all of them."""
    measuring = bench(tmp_path)
    authentication.check_shedding(measuring, run_of(2), "x", needed=needed)
    assert [each.holds for each in measuring.report.targets] == [holds, holds]


@pytest.mark.parametrize(
    ("value", "interval", "code"),
    [
        (1.0, None, 0),
        (None, None, 0),
        (1.1, None, 1),
        (0.9, (0.8, 1.2), 1),  # Too noisy to tell.
    ],
)
def test_a_bound_that_is_not_met_gives_exit_code_1(
    tmp_path: Path,
    value: float | None,
    interval: tuple[float, float] | None,
    code: int,
) -> None:
    measuring = bench(tmp_path)
    measuring.target("x", "", value, 1, interval=interval)
    assert measuring.report.exit_code() == code
    with measuring.part("A part"):
        raise ValueError
    assert measuring.report.exit_code() == 1


def test_percentiles_and_gaps() -> None:
    values = [float(number) for number in range(1, 102)]
    assert percentile(values, 50) == pytest.approx(51)
    assert percentile(values, 99) == pytest.approx(100)
    assert percentile([7.0], 99) == pytest.approx(7)
    assert percentile([], 50) == 0
    assert longest_gap([1.0, 1.5, 4.0, 4.1]) == pytest.approx(2.5)
    assert longest_gap([1.0]) == 0


LOAD = Load(addresses=(), ca="", method="/x/Echo", requests=(), clients=1, seconds=30)


def test_an_outage_until_the_end_is_a_gap_too() -> None:
    """Otherwise the worst case, no new primary at all, would look like no outage."""
    clients = Clients(LOAD)
    clients.record(ended=1.5, took_s=0.5, code="OK")
    clients.record(ended=2.0, took_s=0.5, code="OK")
    clients.record(ended=12.0, took_s=10.0, code="UNAVAILABLE")
    measured = clients.measured(begin=1.0)
    assert measured.longest_gap_s == pytest.approx(10)
    assert measured.lasted_s == pytest.approx(11)


def test_a_load_without_answers_is_refused() -> None:
    """Its latencies are 0 and it shows no election: every target would be met."""
    clients = Clients(LOAD)
    clients.record(ended=2.0, took_s=1.0, code="UNAVAILABLE")
    with pytest.raises(RuntimeError, match=r"no call was answered: .*UNAVAILABLE"):
        answered(clients.measured(begin=1.0))
    clients.record(ended=3.0, took_s=1.0, code="OK")
    assert answered(clients.measured(begin=1.0)).answered == 1


@pytest.mark.parametrize("kills", [[], [0.5], [4.5]])
def test_a_kill_outside_the_load_is_refused(
    kills: list[float],
) -> None:
    clients = Clients(LOAD)
    clients.record(ended=2.0, took_s=1.0, code="OK")
    clients.record(ended=4.0, took_s=1.0, code="OK")
    measured = clients.measured(begin=1.0)
    must_fall_within(measured, [1.5])
    with pytest.raises(RuntimeError, match="during"):
        must_fall_within(measured, kills)


def test_calls_shed_at_the_start_are_reported_separately() -> None:
    """The warm-up is not counted, but its shed calls are reported."""
    clients = Clients(LOAD)
    for number in range(20):
        took_s = 0.3 if number < 3 else 0.01
        clients.record(ended=number, took_s=took_s, code="RESOURCE_EXHAUSTED")
    measured = clients.measured(begin=0)
    assert measured.shed_p95_ms == pytest.approx(10)
    assert measured.shed_at_first_p95_ms == pytest.approx(300)


def bench(tmp_path: Path) -> Bench:
    limits = Limits(
        echo={},
        sync_ms=1,
        argon2id_per_s=1,
        argon2id_ms=1,
        argon2_cffi_per_s=1,
        argon2_cffi_ms=1,
        commits_per_s=1,
    )
    return Bench(
        report=Report(path=tmp_path / "bench.json"),
        limits=limits,
        seconds=1,
        console=Console(file=io.StringIO()),
    )


def run_of(p50_ms: float) -> Run:
    clients = Clients(LOAD)
    clients.record(ended=1, took_s=p50_ms / 1000, code="OK")
    return Run(measured=clients.measured(begin=0), cpu_ms={}, entries=0)


@pytest.mark.parametrize(("each", "own"), [(4, 16), (2, 32)])
def test_some_users_have_codes_and_the_others_tokens(each: int, own: int) -> None:
    population = Population(users=64, profile="testing", own_token_each=each)
    assert population.codes == (64 - own) * CODES_EACH
    # Loads that issue codes use tokens without codes.
    assert not any(map(population.has_codes, range(3, 64, 4)))


def test_compared_loads_take_turns(tmp_path: Path) -> None:
    """A machine that slows down meanwhile does not change the comparison."""
    calls: list[str] = []

    def load(name: str, ms: float) -> Callable[[], Run]:
        def do() -> Run:
            run = run_of(ms * (1 + len(calls) // 2))
            calls.append(name)
            return run

        return do

    measuring = bench(tmp_path)
    few, many = measuring.alternate(
        {"few": load("few", 2), "many": load("many", 3)}, clients=1
    )
    # Every second round in reverse.
    assert calls[:5] == ["few", "many", "many", "few", "few"]
    assert sorted(calls) == sorted(["few", "many"] * ROUNDS)
    result = ratio([each.p50_ms for each in many], [each.p50_ms for each in few])
    assert result == pytest.approx(1.5)
    assert [each["name"] for each in measuring.report.results] == ["few", "many"]


def test_nodes_are_measured_when_they_have_no_work_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spent = iter([0.0, 0.9, 0.9, 1.8, 1.8, 1.9])
    monkeypatch.setattr(estates, "IDLE_LOOK_S", 1.0)
    monkeypatch.setattr(estates, "cpu_s", lambda _: next(spent))
    monkeypatch.setattr("time.sleep", lambda _: None)
    estates.wait_idle([Mock(pid=1)])
    assert not list(spent), "it has looked until the node was idle"
    monkeypatch.setattr(estates, "IDLE_TIMEOUT_S", 0.0)
    with pytest.raises(TimeoutError, match="still work"):
        estates.wait_idle([Mock(pid=1)])


def test_the_first_entry_of_a_compacted_log_is_read_from_the_output() -> None:
    assert first_kept("2026-11-26T18:00:00.000Z INFO     ready index=7\n") == 0
    line = "2026-11-26T18:00:00.000Z INFO     log_compacted first={}\n"
    assert first_kept(line.format(90) + line.format(412)) == 412


@pytest.mark.parametrize("seen", [{"n1": 0, "n2": 0}, {"n1": 7, "n2": 0}, {}])
def test_syncs_that_strace_did_not_see_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seen: dict[str, int]
) -> None:
    """Where strace is not permitted, the target is missing instead of met."""

    @contextlib.contextmanager
    def counting(_: object) -> Iterator[Syncs]:
        yield Syncs(journal=seen)

    monkeypatch.setattr(authentication, "count_syncs", counting)
    measuring = bench(tmp_path)
    estate = Mock()
    estate.authenticate.return_value.entries = 7
    with pytest.raises(RuntimeError, match="strace"):
        authentication.syncs(measuring, estate)
    assert not measuring.report.targets


def test_journal_syncs_are_counted_once_and_apart_from_other_files() -> None:
    """A call interrupted by another thread has two lines."""
    trace = """\
11 fdatasync(9</data/n1/raft.journal>)  = 0
12 fdatasync(9</data/n1/raft.journal> <unfinished ...>
11 fsync(7</data/n1/state.db-wal>) = 0
12 <... fdatasync resumed>)               = 0
11 fdatasync(7</data/n1/state.db>)        = 0
"""
    assert syncs_in(trace) == (2, 2)


@pytest.mark.parametrize(
    ("rounds", "longest", "holds"),
    [
        # No recorded step means only that none took longer than the threshold.
        ([[]] * ROUNDS, NOTE_MS, True),
        # One long step counts, however many rounds have none.
        ([[], [(7.5, "x"), (2.5, "y")], *[[]] * (ROUNDS - 2)], 7.5, False),
    ],
)
def test_the_longest_step_of_any_round_counts(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    rounds: list[list[tuple[float, str]]],
    longest: float,
    *,
    holds: bool,
) -> None:
    measuring, estate = bench(tmp_path), Mock()
    estate.cluster.nodes = [Mock(node_id="n1", environment={})]
    seen = iter([[(9.0, "the start")], *rounds])
    monkeypatch.setattr(overload, "steps_of", lambda _: next(seen))
    overload.steps(measuring, estate, tmp_path)
    (target,) = measuring.report.targets
    assert (target.value, target.holds) == (longest, holds)
    (row,) = (r for r in measuring.report.results if "longest_of_each_round" in r)
    assert max(row["longest_of_each_round"]) == longest
    assert len(row["longest_of_each_round"]) == ROUNDS


def test_a_report_shows_the_machine_at_its_start(tmp_path: Path) -> None:
    """(5) And the commit at its start, which may change during the run."""
    report = bench(tmp_path).report
    assert report.content()["machine"] is report.machine
    assert {"date", "commit", "machine", "hardware", "libraries"} == set(report.machine)
    assert "grpcio " in report.machine["libraries"]
    assert f"Linux {platform.release().partition('-')[0]}" in report.machine["hardware"]
    assert "transparent huge pages: " in report.machine["hardware"]


def test_the_policy_is_changed_and_restored_and_elections_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing: dict[str, Any] = dict.fromkeys(each.name for each in fields(Policy))
    few = {"factor_off_at_failures": 9, "lock_from_failures": 5}
    versions = [Policy(**nothing | few)]
    admin = AsyncMock()
    admin.get_policy.side_effect = lambda: versions[-1]
    admin.update_policy.side_effect = lambda policy, **_: versions.append(policy)

    @contextlib.asynccontextmanager
    async def signed_in(_: object) -> AsyncIterator[AsyncMock]:
        yield admin

    monkeypatch.setattr(administration, "_administrator", signed_in)
    measuring, estate = bench(tmp_path), Mock()
    estate.population.users = 7
    estate.term.side_effect = [3, 5]
    administration.policies(measuring, estate)
    (target,) = measuring.report.targets
    assert (target.value, target.holds) == (2, False)
    assert versions[-1] == versions[0]
    changed = [
        (policy.factor_off_at_failures, policy.lock_from_failures)
        for policy in versions
    ]
    assert changed[1:5] == [(8, 5), (9, 5), (9, 4), (9, 5)]
    assert len(changed) == 1 + 4 * ROUNDS


def test_event_loops_without_recorded_steps_are_refused(tmp_path: Path) -> None:
    measuring, estate = bench(tmp_path), Mock()
    estate.cluster.nodes = [Mock(node_id="n1", environment={})]
    with pytest.raises(RuntimeError, match="not recorded"):
        overload.steps(measuring, estate, tmp_path)
    assert not measuring.report.targets


MINUTES = [
    overload.sustained_overload,
    overload.sustained_overload_of_production,
    overload.starved,
]


LATE = {"tick_s": 0.5, "beat_s": 0.25, "sync_s": 0.04, "silence_s": 0.75}


def crowded(lasted_s: float, late: dict[str, float] = LATE) -> Mock:
    """Return an estate whose load lasts this long, with two elections and a late node."""
    estate, clients = Mock(), Clients(LOAD)
    clients.record(ended=lasted_s, took_s=1, code="OK")
    nodes = [Mock(node_id=name, environment={}) for name in ("n1", "n2")]
    estate.cluster.nodes = nodes

    def record(times: float) -> None:
        if TO in nodes[1].environment:
            numbers = Numbers(Path(nodes[1].environment[TO]))
            for field, seconds in late.items():
                numbers[field] = seconds * times

    def load(**_: object) -> Run:
        record(1)
        return Run(measured=clients.measured(begin=0), cpu_ms={}, entries=0)

    estate.authenticate.side_effect = load
    estate.start.side_effect = lambda: record(9)  # Not during the load.
    estate.term.side_effect = [3, 5]
    return estate


def overloaded(
    measuring: Bench,
    estate: Mock,
    minute: Callable[[Bench, Estate, NodeNumbers], None],
) -> None:
    with overload.lateness_of(estate) as late:
        minute(measuring, estate, late)


@pytest.mark.parametrize("minute", MINUTES)
def test_a_minute_that_runs_out_of_codes_is_refused(
    tmp_path: Path, minute: Callable[[Bench, Estate, NodeNumbers], None]
) -> None:
    measuring = bench(tmp_path)
    with pytest.raises(RuntimeError, match="spent in 40 s"):
        overloaded(measuring, crowded(40), minute)
    assert not measuring.report.targets


@pytest.mark.parametrize("minute", MINUTES)
def test_elections_within_a_minute_are_counted(
    tmp_path: Path, minute: Callable[[Bench, Estate, NodeNumbers], None]
) -> None:
    measuring = bench(tmp_path)
    overloaded(measuring, crowded(60), minute)
    (target,) = measuring.report.targets
    assert (target.name, target.value, target.holds) == ("(4)", 2, False)


@pytest.mark.parametrize("minute", MINUTES)
def test_a_minute_tells_how_late_the_latest_node_was(
    tmp_path: Path, minute: Callable[[Bench, Estate, NodeNumbers], None]
) -> None:
    """No election shows little where no node was late. The start does not count."""
    measuring, estate = bench(tmp_path), crowded(60)
    overloaded(measuring, estate, minute)
    (row,) = (r for r in measuring.report.results if r["name"].startswith("how late"))
    assert list(row.values())[1:] == [*LATE.values()]
    assert [node.environment for node in estate.cluster.nodes] == [{}, {}]


def test_nodes_that_do_not_record_how_late_they_are_are_refused(tmp_path: Path) -> None:
    measuring, estate = bench(tmp_path), crowded(60, LATE | {"silence_s": 0.0})
    with pytest.raises(RuntimeError, match="not recorded how late"):
        overloaded(measuring, estate, overload.starved)


def test_elections_are_counted_after_all_nodes_have_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ceiling is measured with stopped nodes, whose start elects a primary."""
    estate, measuring = crowded(3), bench(tmp_path)
    steps = Mock()
    steps.attach_mock(estate.start, "start")
    steps.attach_mock(estate.term, "term")
    steps.attach_mock(estate.authenticate, "load")
    monkeypatch.setattr(authentication, "argon2id_per_s", lambda: 100)
    authentication._share_of_all_cores(measuring, estate, "here", (64, 256))
    called = [each[0] for each in steps.mock_calls]
    assert called == ["start", "term", *["load"] * 6, "term", "start"]
    (target,) = measuring.report.targets
    assert target.words == "elections, production hashing, here, up to 256 clients"
    assert (target.value, target.holds) == (2, False)


def test_too_few_tokencodes_for_a_load_wait_for_the_next_step(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In the next time step every token has a new tokencode."""
    now = [59.0]
    monkeypatch.setattr(time, "time", lambda: now[0])
    monkeypatch.setattr(time, "sleep", lambda s: now.append(now.pop() + s))
    estate = Estate.__new__(Estate)
    estate.population = Population(users=40, profile="testing")
    estate._shown, estate._owner_of = {}, {}
    estate._tokens = estate._all_tokens()
    assert len(estate.take("token", 8)) == 8
    assert len(estate.take("token", 8)) == 8
    assert now == [60]


def test_tokencodes_that_were_not_sent_are_used_in_the_same_step(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Otherwise most of a run would be waits for the next one."""
    monkeypatch.setattr(time, "time", lambda: 59.0)
    monkeypatch.setattr(time, "sleep", Mock(side_effect=AssertionError))
    estate = Estate.__new__(Estate)
    estate.population = Population(users=40, profile="testing")
    estate._shown, estate._owner_of = {}, {}
    estate._tokens = estate._all_tokens()
    first = estate.take("token", 8)
    estate.give_back("token", first[2:])
    second = estate.take("token", 8)
    names = [
        authentication_pb2.AuthenticateRequest.FromString(bytes.fromhex(each)).username
        for each in (*first[:2], *second)
    ]
    assert len(set(names)) == len(names) == 10


@pytest.mark.long
def test_an_estate_made_without_the_cluster_is_usable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Any node accepts its codes; reading and issuing work."""
    population = Population(users=64, profile="testing")
    with Estate(tmp_path / "cluster", population) as estate:
        run = estate.authenticate(clients=8, seconds=120, calls=200)
        measured = run.measured
        assert measured.codes == {"OK": measured.answered}
        assert measured.accepted == measured.answered > 150
        assert 0 < measured.p50_ms <= measured.p99_ms < math.inf
        assert 0 < run.entries <= 200
        assert min(run.cpu_ms.values()) > 0
        tokens = estate.authenticate(kind="token", clients=2, seconds=120, calls=8)
        assert tokens.measured.accepted == tokens.measured.answered
        stale = estate.read(clients=2, seconds=3, stale_ok=True)
        assert set(stale.measured.codes) == {"OK"}
        issued = estate.issue(clients=2, seconds=3, count=10)
        assert set(issued.measured.codes) == {"OK"}
        with pytest.raises(ValueError, match="unused codes left"):
            estate.authenticate(clients=8, seconds=120, calls=64 * CODES_EACH)
        again = estate._request(0, PIN + population.code(0, 1))
        monkeypatch.setattr(estate, "take", lambda *_, **__: (again,))
        with pytest.raises(ValueError, match="1 of 1 right passcodes were refused"):
            estate.authenticate(clients=1, seconds=1, calls=1)
        report = Report(path=tmp_path / "bench.json")
        refusals.measure(estate, report, rounds=4)
        assert len(report.results) == 5
        refusals.measure_attempts(estate, report, users=2, waits_s=(1.1,))
        assert len(report.results) == 5 + 2 * len(refusals.TOKENS)
        assert [target.name for target in report.targets] == ["(A6)", "(A6)"]
        assert nothing_secret_in(report, population)
        members = estate.status().members
        assert len({m.digest for m in members}) == 1
