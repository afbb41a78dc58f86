# SPDX-License-Identifier: Apache-2.0
"""
Measure the table of request ids with few rows and with the most that a policy allows.

`make bench-requests ROWS=5000000`. Each entry has one call. Steps of SQLite's virtual
machine do not depend on the machine; times do. At the end, a real node starts with the
full table.
"""

import argparse
import contextlib
import sqlite3
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from local_cluster.cluster import LocalCluster
from rich.console import Console

from sparecode_node.domain.policy import MINUTE_MS, Policy
from sparecode_node.statemachine.machine import StateMachine
from sparecode_node.statemachine.requests import PURGED_PER_ENTRY_MAX
from sparecode_node.statemachine.tables import request_counts
from tests.bench import recovery
from tests.bench.estate import Estate, cpu_s
from tests.bench.harness import Bench
from tests.bench.joining import folder_of, pid_of
from tests.bench.page import targets_of, write_part
from tests.bench.population import (
    Builder,
    Population,
    hand_over,
    index_names,
    settle,
    store_sealed,
)
from tests.bench.report import Report
from tests.results import ROOT, row
from tests.statemachine.steps import steps
from tests.statemachine.test_snapshots import FileWorld
from tests.statemachine.world import START_MS

FEW = 100_000
ENTRIES, DUE = 200, 60
"""Entries whose median counts; fewer of those that delete due rows."""
CALLERS = 7
USERS = 200
FILL = """
WITH RECURSIVE numbers (n) AS (
    SELECT 0 UNION ALL SELECT n + 1 FROM numbers WHERE n + 1 < :rows
)
INSERT INTO requests (caller, method, request_id, tag, at_ms, result)
SELECT 'agent:' || (n / (:rows / :callers + 1)), 'AuthenticationService/Authenticate',
    printf('%08x-0000-4000-8000-000000000000', n), 0,
    :begin + n * 7919 % :rows * :over / :rows, '{"type":"Applied","index":' || n || '}'
FROM numbers
"""
"""Ids in the order of the table, and times in another one, as after ten minutes of calls."""
COUNTED = 5
"""Entries whose steps are counted."""
START_S_MAX = 5.0
STEPS_RATIO_MAX = 1.05
"""A counter of the table is an integer, whose place in a row may be one step further."""
WORDS = {
    "new": "a call with a new id",
    "known": "a call whose id is known",
    "due": f"a call while others are due: {PURGED_PER_ENTRY_MAX} are deleted",
}


@dataclass(frozen=True, kw_only=True)
class Costs:
    """What a table of one size costs."""

    entries: dict[str, tuple[int, float]]
    """Kind of entry -> steps, and the median of its time in ms."""
    load_s: float
    count_s: float
    """The same if the ids have to be counted."""


def insert(db: sqlite3.Connection, rows: int, begin_ms: int, over_ms: int) -> None:
    """Let a state remember this number of requests of a time."""
    db.execute("PRAGMA synchronous = OFF")  # It can be built again.
    (size,) = db.execute("PRAGMA cache_size").fetchone()
    db.execute("PRAGMA cache_size = -1000000")  # The index by time is written anywhere.
    fields = {"rows": rows, "callers": CALLERS, "begin": begin_ms, "over": over_ms}
    db.execute(FILL, fields)
    db.execute(f"PRAGMA cache_size = {size}")
    request_counts.drop(db)


def fill(world: FileWorld, rows: int) -> None:
    """Let a cluster of feature level 2 remember this number of requests."""
    world.begin()
    world.handle("raise-feature-level", {"level": "2"})
    db = world.db
    db.execute("DELETE FROM requests")
    # With room for more: a full table sheds new calls, which costs less.
    db.execute(
        "UPDATE policy SET value = json_set(value, '$.requests_max', ?)", (2 * rows,)
    )
    over = Policy().request_retention_ms
    insert(db, rows, START_MS, over)
    world.machine = StateMachine(db)
    world.now_ms = START_MS + over // 2
    world.handle("create-user", {"name": "first"})
    world.machine.checkpoint()


def measure(world: FileWorld, *, entries: int = ENTRIES, due: int = DUE) -> Costs:
    """Measure entries of each kind, and a start."""
    known = world.call("create-user", {"name": "known"})
    world.apply(known)

    def create(number: int) -> None:
        world.handle("create-user", {"name": f"user-{number}"})

    load_s, count_s = starts(world)
    world.machine = StateMachine(world.db)
    create(-2)  # It writes the counts again.
    before = rows_of(world)
    seen = {"new": _entries(world, create, entries)}
    if rows_of(world) != before + entries + COUNTED:
        raise RuntimeError("a call with a new id was shed or refused")
    seen |= {
        "known": _entries(world, lambda _: world.apply(known), entries),
    }
    world.now_ms += Policy().request_retention_ms + MINUTE_MS
    create(-1)  # What else ends at that moment is gone.
    seen["due"] = _entries(world, lambda number: create(number + 1_000_000), due)
    return Costs(entries=seen, load_s=load_s, count_s=count_s)


def rows_of(world: FileWorld) -> int:
    """Return how many requests are remembered."""
    (rows,) = world.db.execute("SELECT count(*) FROM requests").fetchone()
    return int(rows)


def _entries(
    world: FileWorld, work: Callable[[int], object], entries: int
) -> tuple[int, float]:
    took_ms = []
    for number in range(entries):
        began = time.perf_counter()
        work(number)
        took_ms.append((time.perf_counter() - began) * 1000)
    # Asked apart: counting steps takes longer than the steps.
    counts = [
        steps(world.db, lambda number=number: work(entries + number))
        for number in range(COUNTED)
    ]
    return round(statistics.median(counts)), statistics.median(took_ms)


def starts(world: FileWorld) -> tuple[float, float]:
    """Return the seconds to load the state, and if the ids had to be counted for it."""

    def load_s() -> float:
        began = time.perf_counter()
        StateMachine(world.db)
        return time.perf_counter() - began

    with_counts = load_s()
    request_counts.drop(world.db)
    return with_counts, load_s()


def full(rows: int) -> Callable[[LocalCluster, Population], None]:
    """Return what gives a node an estate whose table has this number of rows."""

    def build(cluster: LocalCluster, population: Population) -> None:
        path = cluster.directory / "estate.db"
        Builder(cluster, path, population).build()
        settle(cluster, path, population)
        store_sealed(path)
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
            over = Policy().request_retention_ms // 2
            insert(db, rows, time.time_ns() // 1_000_000 - over, over)
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        index_names(path)
        hand_over(cluster, path)

    return build


def node_start_s(bench: Bench, folder: Path, rows: int) -> float:
    """Return how long a node with a full table takes from start to ready."""
    population = Population(users=USERS, profile="testing")
    took, spent = [], []
    with Estate(folder, population, nodes=1, build=full(rows)) as estate:
        (node,) = estate.cluster.nodes
        for _ in range(3):
            node.stop()
            took.append(recovery.ready_s(estate, node))
            spent.append(cpu_s(pid_of(node)))
    bench.report.add(
        "start to ready with a full table, in s",
        rows=rows,
        each=[round(each, 2) for each in took],
        processor_time_of_each=[round(each, 2) for each in spent],
    )
    return statistics.median(took)


def compare(bench: Bench, folder: Path, rows: int) -> dict[int, Costs]:
    """Measure tables of both sizes, and a node with the larger one."""
    seen = {}
    for count in (FEW, rows):
        with bench.part(f"{count} rows"):
            world = FileWorld(folder / f"{count}.db")
            fill(world, count)
            seen[count] = measure(world)
            world.db.close()
            (folder / f"{count}.db").unlink()
            for kind, (each, ms) in seen[count].entries.items():
                bench.report.add(f"{WORDS[kind]}, {count} rows", steps=each, ms=ms)
    with bench.part("Targets"):
        few, many = seen[FEW], seen[rows]
        for kind, words in WORDS.items():
            bench.target(
                "(Q3)",
                f"{words}: steps of SQLite with {rows:,} rows, as a multiple of "
                f"{FEW:,} rows",
                many.entries[kind][0] / few.entries[kind][0],
                STEPS_RATIO_MAX,
            )
    with bench.part("Start of a node"):
        took = node_start_s(bench, folder / "node", rows)
        words = f"start of a node to ready with {rows:,} rows"
        bench.target("(Q3)", words, took, START_S_MAX, unit=" s")
    return seen


def table(report: Report, seen: dict[int, Costs]) -> Iterator[str]:
    """Yield the lines of the results page."""
    here = report.machine
    yield f"Measured {here['date']} by `{report.command}`, commit {here['commit']},"
    yield f"{here['machine']}; {here['hardware']}."
    yield ""
    yield row("", *(f"{rows:,} rows" for rows in seen))
    yield row("---", *("---:" for _ in seen))
    for kind, words in WORDS.items():
        costs = [each.entries[kind] for each in seen.values()]
        yield row(f"{words}: steps of SQLite", *(f"{count:,}" for count, _ in costs))
        yield row(f"{words}, ms", *(f"{ms:.2f}" for _, ms in costs))
    for words, figures in (
        ("loading the state at a start, s", [e.load_s for e in seen.values()]),
        (
            "the same where the ids have to be counted, s",
            [e.count_s for e in seen.values()],
        ),
    ):
        yield row(words, *(f"{figure:.3f}" for figure in figures))
    yield ""
    yield from targets_of(report.content())


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.requests")
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--page", action="store_true", help="write docs/performance.md")
    parser.add_argument(
        "--out", type=Path, default=ROOT / "var" / "bench-requests.json"
    )
    arguments = parser.parse_args()
    command = f"make bench-requests ROWS={arguments.rows}"
    console, report = Console(), Report(path=arguments.out, command=command)
    bench = Bench(report, None, 1.0, console)  # type: ignore[arg-type]
    with folder_of(None, "sparecode-requests-") as folder:
        seen = compare(bench, folder, arguments.rows)
    report.write()
    report.show(console)
    if arguments.page and len(seen) == 2:
        write_part("requests", table(report, seen))
    return report.exit_code()


if __name__ == "__main__":
    sys.exit(main())
