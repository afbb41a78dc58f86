# SPDX-License-Identifier: Apache-2.0
"""Too many callers: throughput holds, no election, no blocked event loop (e, 3, 4)."""

import contextlib
import itertools
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.bench.authentication import check_shedding, check_throughput
from tests.bench.estate import Estate
from tests.bench.harness import (
    CALLS_PER_S,
    CORES,
    HASHED_PER_S,
    MANY,
    ROUNDS,
    Bench,
)
from tests.bench.load import must_have_lasted
from tests.bench.node_numbers.sitecustomize import LATENESS
from tests.bench.numbers import NodeNumbers, counted
from tests.bench.probes import NOTE_MS, steps_of, watch_steps

SUSTAINED_S = 60
BUSY = 2 * CORES
"""Programs that take processor time from the nodes."""
LONGEST = {
    "tick_s": "between_two_ticks_of_the_engine",
    "beat_s": "between_two_beats_of_the_event_loop",
    "sync_s": "of_a_sync",
    "silence_s": "without_a_message_of_the_primary",
}
"""
How late nodes are. On time, an engine ticks every 20 ms, a loop beats every 50 ms, and a
replica hears the primary every 100 ms; after 400 ms of silence it may campaign.
"""
STEP_MS_MAX = 5.0
"""The longest allowed step of the event loop: longer work belongs in a thread."""


def crowd(bench: Bench, estate: Estate, best: float) -> None:
    """Check that a crowd gets the throughput of a few clients."""
    run = bench.median_run(
        "authenticate, codes",
        lambda: bench.codes(estate, MANY, patient=True),
        clients=MANY,
    )
    check_throughput(bench, run, best, "cheap hashing")
    check_shedding(bench, run, "cheap hashing", needed=False)
    bench.median_run(
        "authenticate, TOTP", lambda: bench.tokencodes(estate, MANY), clients=MANY
    )


@contextlib.contextmanager
def lateness_of(estate: Estate) -> Iterator[NodeNumbers]:
    """Start all nodes again; yield how late each is from then on."""
    with counted(estate.cluster.nodes, LATENESS) as numbers:
        estate.stop()
        estate.start()
        yield numbers


def sustained_overload(
    bench: Bench, estate: Estate, late: NodeNumbers, seconds: float = SUSTAINED_S
) -> None:
    """Check that no election happens while a crowd ignores retry hints for a minute (4)."""
    calls = int(seconds * CALLS_PER_S)
    _sustain(bench, estate, late, seconds, calls, "cheap hashing")


def sustained_overload_of_production(
    bench: Bench, estate: Estate, late: NodeNumbers, seconds: float = SUSTAINED_S
) -> None:
    """
    Check the same while production hashing keeps all cores busy (4).

    Each node has its own session and waits for the hashing of the others. Of both
    setups, this one delays heartbeats more.

    This crowd waits as long as its retry hints say. Otherwise each retry would need
    another code, and hashing that many takes longer than all loads together.
    """
    calls = MANY + int(seconds * 1.6 * HASHED_PER_S)
    words = "production hashing, separate sessions"
    _sustain(bench, estate, late, seconds, calls, words, patient=True)


def starved(
    bench: Bench, estate: Estate, late: NodeNumbers, seconds: float = SUSTAINED_S
) -> None:
    """
    Check the same while other programs take most of the processor time (4).

    Each is in its own session, and so is each node: a node gets its share of a core,
    whatever its threads' priorities are.
    """
    words = f"production hashing, separate sessions, {BUSY} busy programs beside"
    calls = 3 * MANY + int(seconds * HASHED_PER_S)
    with busy_programs():
        _sustain(bench, estate, late, seconds, calls, words, patient=True)


@contextlib.contextmanager
def busy_programs() -> Iterator[None]:
    """Run programs that only compute, each in its own session."""
    programs = [
        subprocess.Popen(
            (sys.executable, "-c", "while True: pass"), start_new_session=True
        )
        for _ in range(BUSY)
    ]
    try:
        yield
    finally:
        for program in programs:
            program.kill()
            program.wait()


def _sustain(
    bench: Bench,
    estate: Estate,
    late: NodeNumbers,
    seconds: float,
    calls: int,
    words: str,
    *,
    patient: bool = False,
) -> None:
    with bench.no_election(
        estate, f"elections, {words}, {MANY} clients for {seconds:g} s"
    ):
        late.clear()
        run = estate.authenticate(
            clients=MANY, seconds=seconds, calls=calls, patient=patient
        )
        _report_lateness(bench, late, f"{words}, {seconds:g} s")
        bench.report.add_load(
            f"authenticate, codes, {words}, for {seconds:g} s",
            run.measured,
            run.cpu_ms,
            clients=MANY,
        )
        must_have_lasted(run.measured, seconds)
    bench.report.add(
        f"longest time without an answer in {seconds:g} s, {words}, in s",
        seconds=round(run.measured.longest_gap_s, 2),
    )


def _report_lateness(bench: Bench, numbers: NodeNumbers, words: str) -> None:
    """
    Report how late the latest node was: no election says little if none was late.

    Raises `RuntimeError` if the nodes have not recorded it.
    """
    longest = {name: numbers.highest(name) for name in LONGEST}
    if not all(longest.values()):
        raise RuntimeError(f"nodes have not recorded how late they are: {longest}")
    bench.report.add(
        f"how late a node was at most, {words}, in s",
        **{name: round(longest[field], 2) for field, name in LONGEST.items()},
    )


def steps(bench: Bench, estate: Estate, folder: Path) -> None:
    """Measure the longest step of the event loops."""
    notes = {}
    for node in estate.cluster.nodes:
        notes[node.node_id] = folder / f"{node.node_id}.steps"
        node.stop()
        watch_steps(node, notes[node.node_id])
        node.start()
        estate.cluster.wait_ready(node)
    for path in notes.values():
        if not steps_of(path):
            raise RuntimeError("steps are not recorded: the start has a long one")
        path.write_text("")  # Drops the steps of the start.
    seconds = min(3.0, bench.seconds)
    rounds = []
    for _ in range(ROUNDS):
        bench.codes(estate, 64)
        estate.read(clients=8, seconds=seconds, stale_ok=False)
        estate.issue(clients=8, seconds=seconds, count=50)
        rounds.append([step for path in notes.values() for step in steps_of(path)])
        for path in notes.values():
            path.write_text("")
    results = sorted(itertools.chain(*rounds), reverse=True)
    # In a round without a recorded step, none took as long as the threshold.
    longest = [max((ms for ms, _ in each), default=NOTE_MS) for each in rounds]
    bench.report.add(
        "event-loop steps of 2 ms or more, in CPU ms",
        longest=[f"{ms:g} {name}" for ms, name in results[:8]],
        longest_of_each_round=longest,
        over_5_ms=sum(ms > STEP_MS_MAX for ms, _ in results),
    )
    bench.target(
        "(3)",
        f"longest event-loop step in {ROUNDS} rounds",
        # CPU time that other guests of the host take is part of the step too.
        max(longest),
        STEP_MS_MAX,
        unit=" ms",
    )
