# SPDX-License-Identifier: Apache-2.0
"""
Why elections happen in an overload: `make bench-elections`.

Three nodes with production hashing, each in a session of its own, as services are, and
256 clients for a minute: without other programs, and beside twice as many busy ones as
there are cores, in turn. With `SESSIONS=both`, as many minutes follow with all nodes in
one session, where the priorities of threads hold between the nodes.

Each node writes down when it was late, and what the thread of its engine, or of its event
loop, did meanwhile by the kernel's account: it ran, or it was ready and waited for a core.
The rest is a sync, or a wait for the interpreter's lock. For each election this tells how
late the candidate and the primary were in the silence before it.
"""

import argparse
import contextlib
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.bench.alone import measure_alone
from tests.bench.estate import Estate
from tests.bench.harness import HASHED_PER_S, MANY, Bench
from tests.bench.load import must_have_lasted
from tests.bench.node_numbers.sitecustomize import MOMENTS
from tests.bench.numbers import watched
from tests.bench.overload import BUSY, busy_programs
from tests.bench.population import CODES_EACH
from tests.bench.report import Report
from tests.results import ROOT

MINUTES = 6
SECONDS = 60.0
OWN, BOTH = "own", "both"
"""Whether each node has a session of its own; or that, and then all share one."""
LED_BEFORE_S = 2.0
"""How far back a primary is looked at that has lost its majority."""
WORDS = {
    "tick": "between two ticks of its engine",
    "beat": "between two beats of its event loop",
    "sync": "in one sync",
}
THREADS = ("tick", "beat")
"""The waits whose thread has an account."""
"""The waits of a node that delay its messages, or its reading of them."""


@dataclass(frozen=True, kw_only=True)
class Moment:
    """What a node has written down."""

    node: str
    what: str
    """One of `WORDS`, or `silence`, `campaigns`, `leads` and `follows`."""
    at_s: float
    """By the clock of the machine; of a wait, its end."""
    seconds: float = 0.0
    """How long it waited; of a candidate, since when it had not heard the primary."""
    ran_s: float = 0.0
    core_s: float = 0.0
    """Between two ticks or beats: how long that thread ran, and waited for a core."""


def read(files: Mapping[str, Path]) -> list[Moment]:
    """Return what all nodes have written down, in its order."""
    moments = [
        Moment(node=node, **json.loads(line))
        for node, path in files.items()
        for line in path.read_text().splitlines()
    ]
    return sorted(moments, key=lambda each: each.at_s)


def explained(moments: Sequence[Moment]) -> list[str]:
    """Return for each election what kept the candidate and the primary, in order."""
    return [
        _sentence(each, _primary_before(moments, each), moments)
        for each in moments
        if each.what == "campaigns"
    ]


def _primary_before(moments: Iterable[Moment], election: Moment) -> str | None:
    led = [
        each.node
        for each in moments
        if each.what == "leads" and each.at_s < election.at_s
    ]
    return led[-1] if led else None


def _sentence(election: Moment, primary: str | None, moments: Sequence[Moment]) -> str:
    if primary == election.node:
        return " ".join(
            [
                f"{primary}, which led until it heard no majority, asked for votes again.",
                _lateness(
                    primary, moments, election.at_s - LED_BEFORE_S, election.at_s
                ),
            ]
        )
    silence = (
        f"{election.node} asked for votes after {election.seconds:.2f} s without a "
        f"message of the primary"
    )
    if primary is None:
        return f"{silence}, which is not known."
    since_s = election.at_s - election.seconds
    return " ".join(
        [
            f"{silence}, {primary}.",
            _lateness(primary, moments, since_s, election.at_s),
            _lateness(election.node, moments, since_s, election.at_s),
        ]
    )


def _lateness(
    node: str, moments: Iterable[Moment], since_s: float, until_s: float
) -> str:
    """Return how late a node was at most in this time, in words."""
    longest: dict[str, Moment] = {}
    for each in moments:
        if each.node != node or each.what not in WORDS:
            continue
        if each.at_s > since_s and each.at_s - each.seconds < until_s:
            latest = longest.get(each.what)
            if latest is None or latest.seconds < each.seconds:
                longest[each.what] = each
    if not longest:
        return f"{node} was on time."
    waits = ", ".join(_wait(what, each) for what, each in longest.items())
    return f"{node} was late: {waits}."


def _wait(what: str, moment: Moment) -> str:
    """Return one wait in words, with what its thread did meanwhile."""
    words = f"{moment.seconds:.2f} s {WORDS[what]}"
    if what not in THREADS:
        return words
    return (
        f"{words} (its thread waited {moment.core_s:.2f} s for a core and ran "
        f"{moment.ran_s:.2f} s)"
    )


def minutes(
    bench: Bench,
    estate: Estate,
    count: int,
    seconds: float,
    *,
    one_session: bool = False,
) -> None:
    """
    Overload the nodes this often; every second time beside busy programs.

    *one_session*: then as often with all nodes in one session.
    """
    with watched(estate.cluster.nodes, MOMENTS) as files:
        for words in ("", ", one session") if one_session else ("",):
            estate.stop()
            if words:
                estate.start_in_one_session()
            estate.start()
            for number in range(1, count + 1):
                busy = number % 2 == 0
                _minute(bench, estate, files, f"{number}{words}", seconds, busy=busy)


def _minute(
    bench: Bench,
    estate: Estate,
    files: Mapping[str, Path],
    words: str,
    seconds: float,
    *,
    busy: bool,
) -> None:
    words = f"{words}, {BUSY} busy programs" if busy else words
    with (
        _beside(busy=busy),
        bench.no_election(estate, f"elections in minute {words}"),
    ):
        before = len(read(files))
        run = estate.authenticate(
            clients=MANY,
            seconds=seconds,
            calls=_calls(seconds, busy=busy),
            patient=True,
        )
        must_have_lasted(run.measured, seconds)
        moments = read(files)
    bench.report.add_load(
        f"authenticate, minute {words}", run.measured, run.cpu_ms, clients=MANY
    )
    bench.report.add(
        f"longest waits of a node in minute {words}, in s",
        **{
            name: round(max(m.seconds for m in moments[before:] if m.what == name), 2)
            for name in (*WORDS, "silence")
            if any(each.what == name for each in moments[before:])
        },
    )
    earlier = len(explained(moments[:before]))
    for sentence in explained(moments)[earlier:]:
        bench.report.add(f"election in minute {words}", why=sentence)
        bench.console.print(sentence, highlight=False)


@contextlib.contextmanager
def _beside(*, busy: bool) -> Iterator[None]:
    with busy_programs() if busy else contextlib.nullcontext():
        yield


def _calls(seconds: float, *, busy: bool) -> int:
    share, waiting = (1.0, 3 * MANY) if busy else (1.6, MANY)
    return waiting + int(share * seconds * HASHED_PER_S)


def users(count: int, seconds: float, *, one_session: bool = False) -> int:
    """Return the number of users whose codes last for this many minutes, or twice as many."""
    calls = sum(_calls(seconds, busy=number % 2 == 1) for number in range(count))
    calls *= 2 if one_session else 1
    return 2 * (calls // CODES_EACH + 1)  # One of two has codes.


def main() -> int:
    """Overload three nodes, and explain each election; return the exit code."""
    parser = argparse.ArgumentParser(prog="make bench-elections")
    parser.add_argument("--minutes", type=int, default=MINUTES)
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of a minute")
    parser.add_argument(
        "--sessions",
        choices=(OWN, BOTH),
        default=OWN,
        help=f"{OWN}: one of each node; {BOTH}: then as many minutes in one for all",
    )
    parser.add_argument(
        "--out", type=Path, default=ROOT / "var" / "bench-elections.json"
    )
    arguments = parser.parse_args()
    one_session = arguments.sessions == BOTH
    return measure_alone(
        Report(path=arguments.out, command="make bench-elections"),
        arguments.seconds,
        users(arguments.minutes, arguments.seconds, one_session=one_session),
        "Three nodes in an overload",
        lambda bench, estate: minutes(
            bench,
            estate,
            arguments.minutes,
            arguments.seconds,
            one_session=one_session,
        ),
    )


if __name__ == "__main__":
    sys.exit(main())
