# SPDX-License-Identifier: Apache-2.0
"""Too many callers: nothing collapses, nobody is elected, no loop is held (e, 3, 4)."""

import itertools
from pathlib import Path

from tests.bench.authentication import check_shedding, check_throughput
from tests.bench.estate import Estate
from tests.bench.harness import CALLS_PER_S, HASHED_PER_S, MANY, ROUNDS, Bench
from tests.bench.load import must_have_lasted
from tests.bench.probes import NOTE_MS, steps_of, watch_steps

SUSTAINED_S = 60
STEP_MS_MAX = 5.0
"""Of the event loop: what computes for longer belongs into a thread."""


def crowd(bench: Bench, estate: Estate, best: float) -> None:
    """See that a crowd gets as much as a few do."""
    run = bench.median_run(
        "authenticate, codes",
        lambda: bench.codes(estate, MANY, patient=True),
        clients=MANY,
    )
    check_throughput(bench, run, best, "cheap hashing")
    check_shedding(bench, run, "cheap hashing")
    bench.median_run(
        "authenticate, TOTP", lambda: bench.tokencodes(estate, MANY), clients=MANY
    )


def sustained_overload(
    bench: Bench, estate: Estate, seconds: float = SUSTAINED_S
) -> None:
    """See that nobody is elected while a crowd calls for a minute, heeding no hint (4)."""
    _sustain(bench, estate, seconds, int(seconds * CALLS_PER_S), "cheap hashing")


def sustained_overload_of_production(
    bench: Bench, estate: Estate, seconds: float = SUSTAINED_S
) -> None:
    """
    See the same where cores are always busy with the production hashing (4).

    Each node is in a session of its own, and waits for what the others hash: of both
    set-ups, that is the one in which a heartbeat comes later.

    This crowd waits as it is told: who asks again at once spends a code each time, and
    to hash as many as that takes would last for longer than all loads together.
    """
    calls = MANY + int(seconds * 1.6 * HASHED_PER_S)
    words = "production hashing, separate sessions"
    _sustain(bench, estate, seconds, calls, words, patient=True)


def _sustain(
    bench: Bench,
    estate: Estate,
    seconds: float,
    calls: int,
    words: str,
    *,
    patient: bool = False,
) -> None:
    with bench.no_election(
        estate, f"elections, {words}, {MANY} clients for {seconds:g} s"
    ):
        run = estate.authenticate(
            clients=MANY, seconds=seconds, calls=calls, patient=patient
        )
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


def steps(bench: Bench, estate: Estate, folder: Path) -> None:
    """Watch the event loops for steps that compute for long."""
    notes = {}
    for node in estate.cluster.nodes:
        notes[node.node_id] = folder / f"{node.node_id}.steps"
        node.stop()
        watch_steps(node, notes[node.node_id])
        node.start()
        estate.cluster.wait_ready(node)
    for path in notes.values():
        if not steps_of(path):
            raise RuntimeError("nobody watches: the start itself has a long step")
        path.write_text("")  # Starting is no answering.
    seconds = min(3.0, bench.seconds)
    rounds = []
    for _ in range(ROUNDS):
        bench.codes(estate, 64)
        estate.read(clients=8, seconds=seconds, stale_ok=False)
        estate.issue(clients=8, seconds=seconds, count=50)
        rounds.append([step for path in notes.values() for step in steps_of(path)])
        for path in notes.values():
            path.write_text("")
    found = sorted(itertools.chain(*rounds), reverse=True)
    # Of a round without a long step it is known that none took as long as is noted.
    longest = [max((ms for ms, _ in each), default=NOTE_MS) for each in rounds]
    bench.report.add(
        "event-loop steps of 2 ms or more, in CPU ms",
        longest=[f"{ms:g} {name}" for ms, name in found[:8]],
        longest_of_each_round=longest,
        over_5_ms=sum(ms > STEP_MS_MAX for ms, _ in found),
    )
    bench.target(
        "(3)",
        f"longest event-loop step in {ROUNDS} rounds",
        # What others on the same host take from a core counts as this step's, too.
        max(longest),
        STEP_MS_MAX,
        unit=" ms",
    )
