# SPDX-License-Identifier: Apache-2.0
"""
How long a change of the policy holds answers, while clients call.

Three times are compared with the bound: what the entry of the change takes on the slowest
node, how much longer the calls take that are in flight while the nodes apply it than those
in flight at other moments of the same load, and the silence between two answers.
"""

import contextlib
import statistics
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from tests.bench import administration
from tests.bench.estate import Estate, Run
from tests.bench.harness import Bench
from tests.bench.load import Measurement
from tests.bench.node_numbers.sitecustomize import LATENESS
from tests.bench.numbers import NodeNumbers, counted

HELD_MS_MAX = 50
POLICY_ROUNDS = 5
CHANGE_CLIENTS = 8
CHANGE_CODES_PER_S = 800
"""More codes than these clients use in a second."""
CHANGE_TRIES = 4
PAUSE_S = 1.0
"""Before a change: calls in flight with the sign-in of the administrator wait for that."""
MOMENT_EACH_S = 0.05
APART_S = 0.5
"""Other moments are at least this far from the call that changes the policy."""
MOMENTS_MIN = 20
"""Fewer other moments say little: then the load is too short."""

Span = tuple[float, float]
"""When something began and ended, by the monotonic clock."""


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
    report(bench, {words: seen[field] for field, words in fields.items()})
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
    entry_cpu_ms: float
    """Processor time of it: without waiting for a core."""
    others_ms: float
    """The longest that a node took to apply any other entry."""
    in_flight_ms: float
    """The longest answer among the calls in flight while the nodes applied the change."""
    otherwise_ms: float
    """The median of that at other moments of the same load."""
    counting_ms: float
    """The same while the node that was called counts live codes, 0 if that takes no time."""
    load_s: float


def report(bench: Bench, changes: dict[str, list[Change]]) -> None:
    """Report the rounds of each kind of change, and compare its times with the bound."""
    for words, rounds in changes.items():
        entries_ms = [each.entry_ms for each in rounds]
        bench.report.add(
            f"a policy change {words}, in ms",
            answered_after=[round(each.took_ms) for each in rounds],
            longest_time_without_an_answer=[
                round(each.gap_s * 1000) for each in rounds
            ],
            its_entry_applied_in=[round(each, 1) for each in entries_ms],
            processor_time_of_that=[round(each.entry_cpu_ms, 1) for each in rounds],
            longest_other_entry=[round(each.others_ms, 1) for each in rounds],
            longest_answer_in_flight=[round(each.in_flight_ms) for each in rounds],
            the_same_without_a_change=[round(each.otherwise_ms) for each in rounds],
            while_codes_are_counted=[round(each.counting_ms) for each in rounds],
        )
        bench.target(
            "(million)",
            f"the entry of a policy change {words}: time in apply on the slowest node, "
            f"median of {len(rounds)} rounds; it was {max(entries_ms):.0f} ms at most",
            statistics.median(entries_ms),
            HELD_MS_MAX,
            unit=" ms",
        )
        more_ms = {
            f"while a policy change {words} is applied": [
                each.in_flight_ms - each.otherwise_ms for each in rounds
            ],
            f"while codes are counted for a policy change {words}": [
                each.counting_ms - each.otherwise_ms
                for each in rounds
                if each.counting_ms
            ],
        }
        for when, each_ms in more_ms.items():
            if each_ms:
                bench.target(
                    "(million)",
                    f"the longest answer in flight {when}, median of {len(each_ms)} "
                    "rounds: ms more than at moments of the same load without a change",
                    max(0.0, statistics.median(each_ms)),
                    HELD_MS_MAX,
                    unit=" ms",
                )


def change_under_load(
    estate: Estate, numbers: NodeNumbers, field: str, seconds: float
) -> Change:
    """
    Change the policy during a load of these *seconds*, or of a longer one.

    The clients call before the change begins and after it has ended, also for a while
    without a change. Raises `RuntimeError` if it takes too long for that, or if a node has
    not recorded the entry.
    """
    for _ in range(CHANGE_TRIES):
        index = estate.commit_index()
        numbers.clear()
        with ThreadPoolExecutor(1) as pool:
            load = pool.submit(_changing_load, estate, seconds)
            while estate.commit_index() <= index + CHANGE_CLIENTS and not load.done():
                time.sleep(0.05)
            began = time.perf_counter()
            took_ms = administration.policy_change_ms(estate, field, pause_s=PAUSE_S)
            ended = time.perf_counter()
            measured = load.result().measured
        applied = applied_in(estate, numbers)
        lasted_s = applied[1] - applied[0]
        others = other_moments(measured, (began, ended), lasted_s)
        counting = moments((ended - took_ms / 1000, ended), lasted_s)
        within = measured.began < began and ended < measured.began + measured.lasted_s
        if within and len(others) >= MOMENTS_MIN:
            return Change(
                gap_s=measured.longest_gap_s,
                took_ms=took_ms,
                entry_ms=numbers.highest("policy_entry_s") * 1000,
                entry_cpu_ms=numbers.highest("policy_cpu_s") * 1000,
                others_ms=numbers.highest("entry_s") * 1000,
                in_flight_ms=longest_in_flight_ms(measured, applied),
                otherwise_ms=_median_ms(measured, others),
                counting_ms=_median_ms(measured, counting),
                load_s=seconds,
            )
        seconds *= 2
    raise RuntimeError(f"a change of {field} outlasts loads of {seconds / 2:.0f} s")


def applied_in(estate: Estate, numbers: NodeNumbers) -> Span:
    """
    Return when the first node began to apply the last change, and when the last one ended.

    Raises `RuntimeError` if a node has not recorded it.
    """
    spans = []
    for node in estate.cluster.nodes:
        counts = numbers.of(node.node_id)
        if not counts["policy_at_s"]:
            raise RuntimeError(f"{node.node_id} has recorded no change of the policy")
        began_s = counts["policy_at_s"]
        spans.append((began_s, began_s + counts["policy_entry_s"]))
    return min(began for began, _ in spans), max(ended for _, ended in spans)


def _median_ms(measured: Measurement, spans: Sequence[Span]) -> float:
    """Return the median of the longest answers in flight in several spans, 0 without any."""
    longest = [longest_in_flight_ms(measured, each) for each in spans]
    return statistics.median(longest) if longest else 0.0


def longest_in_flight_ms(measured: Measurement, span: Span) -> float:
    """Return the longest answer among the calls that were in flight in a span of time."""
    return max(
        (
            (ended - began) * 1000
            for began, ended in measured.answers
            if began <= span[1] and ended >= span[0]
        ),
        default=0.0,
    )


def other_moments(measured: Measurement, call: Span, seconds: float) -> list[Span]:
    """
    Return spans of these *seconds* within a load and apart from a call.

    As long as the change took on all nodes: more calls are in flight in a longer span.
    """
    ended = measured.began + measured.lasted_s
    before = moments((measured.began, call[0]), seconds)
    return before + moments((call[1], ended), seconds)


def moments(span: Span, seconds: float) -> list[Span]:
    """Return spans of these *seconds* within a longer one, apart from both its ends."""
    first, last = span[0] + APART_S, span[1] - APART_S - seconds
    count = int((last - first) / MOMENT_EACH_S) + 1 if last >= first else 0
    begins = [first + number * MOMENT_EACH_S for number in range(count)]
    return [(begin, begin + seconds) for begin in begins]


def _changing_load(estate: Estate, seconds: float) -> Run:
    return estate.authenticate(
        clients=CHANGE_CLIENTS,
        seconds=seconds,
        calls=int(seconds * CHANGE_CODES_PER_S),
        keeps_answers=True,
    )
