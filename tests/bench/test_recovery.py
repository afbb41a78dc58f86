# SPDX-License-Identifier: Apache-2.0
"""Reports on restarted nodes match what clients and logs show."""

import io
from pathlib import Path
from unittest.mock import Mock

import pytest
from rich.console import Console

from tests.bench import recovery
from tests.bench.harness import Bench
from tests.bench.limits import Limits
from tests.bench.load import Clients, Load
from tests.bench.recovery import must_outlast, snapshot_bytes
from tests.bench.report import Report

LOAD = Load(addresses=(), ca="", method="/x/Echo", requests=(), clients=1, seconds=30)


def clients(*answers: tuple[float, str]) -> Clients:
    """Return clients with these answers, started at 0."""
    seen = Clients(LOAD)
    for ended, code in answers:
        seen.record(ended=ended, took_s=0.1, code=code)
    return seen


def test_a_load_that_ends_within_the_outage_is_refused() -> None:
    good = [(0.5, "OK"), (1.0, "OK")]
    over = clients(*good, (2.5, "OK"), (3.9, "OK"), (4.1, "UNAVAILABLE"))
    measured = over.measured(begin=0)
    assert measured.silent_at_last_s == pytest.approx(0.2)
    must_outlast(measured, 4)
    lasting = clients(*good, (2.5, "UNAVAILABLE"), (4.1, "UNAVAILABLE"))
    with pytest.raises(RuntimeError, match=r"last 3\.1 s: the outage outlasted"):
        must_outlast(lasting.measured(begin=0), 4)
    spent = clients(*good, (1.7, "OK"), (1.8, "OK"))
    with pytest.raises(RuntimeError, match="all codes were spent in 2 s"):
        must_outlast(spent.measured(begin=0), 4)


def test_the_size_of_the_latest_snapshot_is_read_from_the_log() -> None:
    line = "2026-11-26T18:00:00.000Z INFO     snapshot_taken index={} bytes={}\n"
    assert snapshot_bytes(line.format(9, 400) + line.format(12, 4096)) == 4096
    with pytest.raises(ValueError, match="no snapshot was taken"):
        snapshot_bytes("2026-11-26T18:00:00.000Z INFO     ready index=7\n")


def test_the_highest_memory_of_any_node_counts(tmp_path: Path) -> None:
    """Even if the node uses less memory at the end."""
    limits = Limits(
        echo={},
        sync_ms=1,
        argon2id_per_s=1,
        argon2id_ms=1,
        argon2_cffi_per_s=1,
        argon2_cffi_ms=1,
        commits_per_s=1,
    )
    report = Report(path=tmp_path / "bench.json")
    bench = Bench(report, limits, 1, Console(file=io.StringIO()))
    estate = Mock()
    estate.population.users = 7
    run = estate.authenticate.return_value
    run.measured, run.cpu_ms = clients((1, "OK")).measured(begin=0), {}
    estate.memory_mb.side_effect = [
        {"n1": 90.0, "n2": 91.0},
        {"n1": 92.0, "n2": 151.0},
        {"n1": 93.0, "n2": 94.0},
    ]
    recovery.memory(bench, estate)
    (target,) = report.targets
    assert (target.value, target.holds) == (151, False)
    (row,) = (each for each in report.results if "n1" in each)
    assert (row["n1"], row["n2"]) == ([90, 92, 93], [91, 151, 94])
