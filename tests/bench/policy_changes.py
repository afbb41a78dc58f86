# SPDX-License-Identifier: Apache-2.0
"""How long a change of the policy holds answers, while clients call."""

import contextlib
import statistics
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from tests.bench import administration
from tests.bench.estate import Estate, Run
from tests.bench.harness import Bench
from tests.bench.node_numbers.sitecustomize import LATENESS
from tests.bench.numbers import NodeNumbers, counted

HELD_MS_MAX = 50
POLICY_ROUNDS = 5
CHANGE_CLIENTS = 8
CHANGE_CODES_PER_S = 800
"""More codes than these clients use in a second."""
CHANGE_TRIES = 4


def measure(bench: Bench, estate: Estate) -> None:
    """Measure how long a change of the policy holds answers, and count elections."""
    fields = {
        administration.COUNTING: "that weighs live codes",
        administration.OTHER: "of another kind",
    }
    seen: dict[str, list[Change]] = {field: [] for field in fields}
    with contextlib.ExitStack() as stack:
        numbers = stack.enter_context(counted(estate.cluster.nodes, LATENESS))
        estate.stop()
        estate.start()
        words = "elections while the policy changes"
        stack.enter_context(bench.no_election(estate, words, name="(million)"))
        # Loads of one length: the longest of many gaps is longer.
        first = change_under_load(
            estate, numbers, administration.COUNTING, 2 * bench.seconds
        )
        for number in range(POLICY_ROUNDS):
            for field in [*fields][:: -1 if number % 2 else 1]:
                change = change_under_load(estate, numbers, field, first.load_s)
                seen[field].append(change)
    for field, words in fields.items():
        bench.report.add(
            f"a policy change {words}, in ms",
            answered_after=[round(each.took_ms) for each in seen[field]],
            longest_time_without_an_answer=[
                round(each.gap_s * 1000) for each in seen[field]
            ],
            its_entry_applied_in=[round(each.entry_ms, 1) for each in seen[field]],
        )
    counting_ms, other_ms = (
        [each.gap_s * 1000 for each in seen[field]] for field in fields
    )
    bench.target(
        "(million)",
        f"longest time without an answer, {CHANGE_CLIENTS} clients, median of "
        f"{POLICY_ROUNDS} rounds: ms more during a change that weighs live codes than "
        f"during another one; it was {max(counting_ms):.0f} ms at most",
        held_ms(counting_ms, other_ms),
        HELD_MS_MAX,
        unit=" ms",
    )


def held_ms(counting: Sequence[float], other: Sequence[float]) -> float:
    """
    Return how much longer changes of one kind hold answers than those of another.

    The medians count. One long hold may be the machine's; most of them are the change's.
    """
    return max(0.0, statistics.median(counting) - statistics.median(other))


@dataclass(frozen=True, kw_only=True)
class Change:
    """A change of the policy while clients call."""

    gap_s: float
    """The longest time without an answer to any client."""
    took_ms: float
    """Until the administrator had the answer."""
    entry_ms: float
    """The longest that a node took to apply an entry of the change, with calls of clients."""
    load_s: float


def change_under_load(
    estate: Estate, numbers: NodeNumbers, field: str, seconds: float
) -> Change:
    """
    Change the policy during a load of these *seconds*, or of a longer one.

    The clients call before the change begins and after it has ended. Raises `RuntimeError`
    if it takes too long for that, or if no node has recorded how long the entry took.
    """
    for _ in range(CHANGE_TRIES):
        index = estate.commit_index()
        numbers.clear()
        with ThreadPoolExecutor(1) as pool:
            load = pool.submit(_changing_load, estate, seconds)
            while estate.commit_index() <= index + CHANGE_CLIENTS and not load.done():
                time.sleep(0.05)
            began = time.perf_counter()
            took_ms = administration.policy_change_ms(estate, field)
            ended = time.perf_counter()
            measured = load.result().measured
        entry_s = numbers.highest("policy_entry_s")
        if not entry_s:
            raise RuntimeError("no node has recorded an entry that changes the policy")
        if measured.began < began and ended < measured.began + measured.lasted_s:
            return Change(
                gap_s=measured.longest_gap_s,
                took_ms=took_ms,
                entry_ms=entry_s * 1000,
                load_s=seconds,
            )
        seconds *= 2
    raise RuntimeError(f"a change of {field} outlasts loads of {seconds / 2:.0f} s")


def _changing_load(estate: Estate, seconds: float) -> Run:
    return estate.authenticate(
        clients=CHANGE_CLIENTS,
        seconds=seconds,
        calls=int(seconds * CHANGE_CODES_PER_S),
    )
