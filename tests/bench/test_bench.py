# SPDX-License-Identifier: Apache-2.0
"""The benchmark measures what it says: real calls, on an estate that is one."""

import io
import math
from pathlib import Path

import pytest
from rich.console import Console

from tests.bench import indistinguishable
from tests.bench.estate import Estate
from tests.bench.load import longest_gap, percentile
from tests.bench.population import Population
from tests.bench.report import Report, Target


def nothing_secret_in(report: Report, population: Population) -> bool:
    """Look for the estate's codes and seeds in what `make bench` writes and prints."""
    report.write()
    screen = Console(record=True, file=io.StringIO(), width=200)
    report.show(screen)
    said = (report.path.read_text() + screen.export_text()).upper()
    secrets = {
        secret
        for number in range(population.users)
        for secret in (
            population.seed(number).hex().upper(),
            *(population.code(number, ordinal).upper() for ordinal in range(1, 11)),
        )
    }
    return len(secrets) > 64 and not any(secret in said for secret in secrets)


@pytest.mark.parametrize(
    ("value", "at_least", "holds"),
    [(0.8, True, True), (0.79, True, False), (0.8, False, True), (0.81, False, False)],
)
def test_a_target_holds_at_its_bound(
    value: float, *, at_least: bool, holds: bool
) -> None:
    target = Target(name="x", words="", value=value, target=0.8, at_least=at_least)
    assert target.holds is holds


def test_what_was_not_measured_neither_holds_nor_fails() -> None:
    target = Target(name="x", words="", value=None, target=1, at_least=True)
    assert target.holds is None


def test_percentiles_and_gaps() -> None:
    values = [float(number) for number in range(1, 102)]
    assert percentile(values, 50) == pytest.approx(51)
    assert percentile(values, 99) == pytest.approx(100)
    assert percentile([7.0], 99) == pytest.approx(7)
    assert percentile([], 50) == 0
    assert longest_gap([1.0, 1.5, 4.0, 4.1]) == pytest.approx(2.5)
    assert longest_gap([1.0]) == 0


def test_an_estate_made_without_the_cluster_is_one(tmp_path: Path) -> None:
    """Each code is accepted, by whichever node; read, issued and counted it can be."""
    population = Population(users=64, profile="testing")
    with Estate(tmp_path / "cluster", population) as estate:
        run = estate.authenticate(clients=8, seconds=30, calls=200)
        measured = run.measured
        assert measured.codes == {"OK": measured.answered}
        assert measured.accepted == measured.answered > 150
        assert 0 < measured.p50_ms <= measured.p99_ms < math.inf
        assert 0 < run.entries <= 200
        assert min(run.cpu_ms.values()) > 0
        tokens = estate.authenticate(kind="token", clients=2, seconds=30, calls=8)
        assert tokens.measured.accepted == tokens.measured.answered
        stale = estate.read(clients=2, seconds=0.5, stale_ok=True)
        assert set(stale.measured.codes) == {"OK"}
        issued = estate.issue(clients=2, seconds=0.5, count=10)
        assert set(issued.measured.codes) == {"OK"}
        report = Report(path=tmp_path / "bench.json")
        indistinguishable.measure(estate, report, rounds=4)
        assert len(report.results) == 5
        assert [target.name for target in report.targets] == ["(A6)"]
        assert nothing_secret_in(report, population)
        members = estate.status().members
        assert len({m.digest for m in members}) == 1
