# SPDX-License-Identifier: Apache-2.0
"""
What it costs to tell shed callers soon: `make bench-shed`.

Three nodes with production hashing on the cores of one machine, in three ways: each in a
session of its own, as services are; the same with half the hashing threads; and all in one
session, where the priorities of threads hold between the nodes. Each hashes for 64 clients,
and sheds most calls of 256. How long the threads of a node wait for a core, as the kernel
tells, says where the time of a shed call goes.
"""

import argparse
import statistics
import sys
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from local_cluster.cluster import LocalNode

from tests.bench import limits
from tests.bench.alone import measure_alone
from tests.bench.authentication import EVALUATIONS
from tests.bench.cpu_profile import Thread, py_spy, since, threads_of
from tests.bench.estate import Estate, Run, hash_with
from tests.bench.harness import CORES, HASHED_PER_S, MANY, Bench, ratio
from tests.bench.population import CODES_EACH
from tests.bench.report import Report
from tests.results import ROOT

HALF = max(1, CORES // 2)
CLIENTS = 64
ROUNDS = 3
SECONDS = 4.0
SHARE, SHED_MS = 0.75, 50
"""The targets (a) and (e)."""
IDLE_SHARE_MAX = 1.1
"""Nodes hash no larger share than this: then other programs ran beside the ceiling."""
TURNS_MIN = 100
"""Turns of threads whose waits are reported."""


@dataclass(frozen=True, kw_only=True)
class Setup:
    """How the nodes run."""

    words: str
    threads: int | None = None
    """For hashing, on each node; None: one for each core."""
    own_sessions: bool = True

    def prepare(self, node: LocalNode) -> None:
        """Make a node run so from its next start on."""
        node.own_session = self.own_sessions
        hash_with(node, self.threads)


SETUPS = (
    Setup(words="separate sessions"),
    Setup(words=f"separate sessions, hashing threads: {HALF}", threads=HALF),
    Setup(words="one session", own_sessions=False),
)


@dataclass
class Seen:
    """What the rounds of one setup have measured."""

    busy: list[Run] = field(default_factory=list)
    crowds: list[Run] = field(default_factory=list)
    waits: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    """Kind of thread -> how long it waits for a core in one turn, in ms."""


def compare(
    bench: Bench, estate: Estate, spy: str, *, rounds: int = ROUNDS
) -> dict[str, Seen]:
    """Measure all setups in turn, and what all cores can hash; report both targets."""
    seen = {setup.words: Seen() for setup in SETUPS}
    ceilings: list[float] = []
    for number in range(rounds):
        for setup in SETUPS[:: -1 if number % 2 else 1]:
            estate.stop()
            if setup is SETUPS[0]:
                ceilings.append(limits.argon2id_per_s() / EVALUATIONS)
            for node in estate.cluster.nodes:
                setup.prepare(node)
            estate.start()
            each = seen[setup.words]
            each.busy.append(_load(estate, CLIENTS, bench.seconds))
            before = _threads(estate, spy)
            each.crowds.append(_load(estate, MANY, 1.5 * bench.seconds))
            for kind, wait_ms in waits_ms(before, _threads(estate, spy)).items():
                each.waits[kind].append(wait_ms)
    bench.report.add(
        "attempts that all cores can hash, between these loads",
        attempts_per_s=[round(each, 1) for each in ceilings],
    )
    for words, each in seen.items():
        _report(bench, words, each, ceilings)
    return seen


def _load(estate: Estate, clients: int, seconds: float) -> Run:
    return estate.authenticate(
        clients=clients,
        seconds=seconds,
        calls=clients + int(seconds * HASHED_PER_S),
        patient=True,
    )


def _threads(estate: Estate, spy: str) -> dict[str, dict[str, Thread]]:
    return {node.node_id: threads_of(node, spy) for node in estate.cluster.nodes}


Threads = Mapping[str, Mapping[str, Thread]]
"""Node -> thread -> what it has done until now."""


def waits_ms(before: Threads, after: Threads) -> dict[str, float]:
    """Return how long each kind of thread has waited for a core in a turn, on average."""
    waited_s: dict[str, float] = defaultdict(float)
    turns: dict[str, int] = defaultdict(int)
    for node, threads in after.items():
        for number, thread in threads.items():
            each = since(before[node].get(number), thread)
            waited_s[each.name] += each.waited_s
            turns[each.name] += each.turns
    return {
        name: waited_s[name] * 1000 / turns[name]
        for name in turns
        if turns[name] >= TURNS_MIN
    }


def _report(bench: Bench, words: str, seen: Seen, ceilings: list[float]) -> None:
    for clients, runs in ((CLIENTS, seen.busy), (MANY, seen.crowds)):
        middle = sorted(runs, key=lambda each: each.measured.per_s)[len(runs) // 2]
        bench.report.add_load(
            f"authenticate, codes, production hashing, {words}",
            middle.measured,
            middle.cpu_ms,
            clients=clients,
        )
    shed_ms = [each.measured.shed_p95_ms for each in seen.crowds if shed_in(each)]
    bench.report.add(
        f"p95 until a shed call is answered, {words}, each round, in ms",
        rounds=[round(each, 1) for each in shed_ms],
    )
    bench.report.add(
        f"wait of a thread for a core in one turn, {words}, {MANY} clients, in ms",
        **{
            name: round(statistics.median(each), 2)
            for name, each in sorted(seen.waits.items())
            if len(each) == len(seen.crowds)
        },
    )
    share = ratio([run.measured.per_s for run in seen.busy], ceilings)
    bench.report.add(
        f"share of what all cores can hash, {words}", share=round(share, 2)
    )
    bench.target(
        "(a)",
        f"{words}, {CLIENTS} clients: share of what all cores can hash",
        share if share <= IDLE_SHARE_MAX else None,
        SHARE,
        at_least=True,
        needed=True,
    )
    bench.target(
        "(e)",
        f"{words}, {MANY} clients: p95 until a shed call is answered",
        # In each round calls must be shed: without them it shows nothing.
        statistics.median(shed_ms) if len(shed_ms) == len(seen.crowds) else None,
        SHED_MS,
        unit=" ms",
        needed=True,
    )


def shed_in(run: Run) -> int:
    """Return how many calls a load has had shed, those of its warm-up left out."""
    return run.measured.codes.get("RESOURCE_EXHAUSTED", 0)


def users(seconds: float, rounds: int = ROUNDS) -> int:
    """Return the number of users whose codes last for `compare`."""
    each = CLIENTS + MANY + int(2.5 * seconds * HASHED_PER_S)
    return 2 * (rounds * len(SETUPS) * each // CODES_EACH + 1)  # One of two has codes.


def main() -> int:
    """Compare the setups; return the exit code."""
    parser = argparse.ArgumentParser(prog="make bench-shed")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of each load")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--out", type=Path, default=ROOT / "var" / "bench-shed.json")
    arguments = parser.parse_args()
    return measure_alone(
        Report(path=arguments.out, command="make bench-shed"),
        arguments.seconds,
        users(arguments.seconds, arguments.rounds),
        "Three nodes in three ways",
        lambda bench, estate: compare(bench, estate, py_spy(), rounds=arguments.rounds),
    )


if __name__ == "__main__":
    sys.exit(main())
