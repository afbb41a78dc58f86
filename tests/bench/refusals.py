# SPDX-License-Identifier: Apache-2.0
"""
Compare the time of refusals of every kind, alternating (A6): they must be equal.

`make bench-refusals`: on three nodes, through the agents' gRPC. `make bench-doors` does so
by RADIUS and HTTP.
"""

import argparse
import contextlib
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from local_cluster.cluster import AGENT
from rich.console import Console

from sparecode_client import Admin, Agent, NewToken
from sparecode_client.values.tokens import TokenAlgorithm
from tests.bench import paired
from tests.bench.estate import Estate
from tests.bench.page import write_report
from tests.bench.population import PIN, Population
from tests.bench.report import Report, Target
from tests.results import ROOT

ROUNDS = 200
SEED = 20_261_125
BOUND_MS = 1.0
WRONG_PIN = "9999"
WRONG_CODE = "WRNGCDE7"
TOKENS = {
    "unknown user": 0,
    "no token": 0,
    "one SecurID token": 1,
    "three SecurID tokens": 3,
}
"""Kinds of users, and the tokens of each: the primary searches their tokencodes."""
USERS_OF_A_KIND = 480
WAITS_S = (1.1, 1.1, 5.1, 5.1, 0)
"""Before the second attempt and the following ones. The fifth locks the user (L1)."""
BY_CHANCE_MAX = 2
"""
Random tokencodes that may be right: one in about thirty runs.

A user with three tokens has nine in the window, of a million. More than these come from
a fault.
"""


@dataclass(frozen=True)
class Kind:
    """One kind of refusal: a username and a passcode."""

    name: str
    username: str
    passcode: str
    before: bool
    """Whether to send it once before, so that the code is used or the user waits."""


def kinds(estate: Estate, number: int) -> list[Kind]:
    """Return one request of each kind, for users that no other round uses."""
    people = estate.population
    users = [people.users - 1 - each for each in range(number * 8, number * 8 + 8)]
    users = [each for each in users if people.has_codes(each)][:4]
    names = [people.username(each) for each in users]
    codes = [people.code(each, 1) for each in users]
    return [
        Kind("unknown user", f"nobody{number}", PIN + codes[0], before=False),
        Kind("wrong PIN", names[0], WRONG_PIN + codes[0], before=False),
        Kind("wrong code", names[1], PIN + WRONG_CODE, before=False),
        Kind("used code", names[2], PIN + codes[2], before=True),
        Kind("locked", names[3], PIN + WRONG_CODE, before=True),
    ]


def timed_ms(call: Callable[[], bool]) -> tuple[float, bool]:
    """Return the time of a call, and its answer."""
    began = time.perf_counter()
    answer = call()
    return (time.perf_counter() - began) * 1000, answer


def measure(estate: Estate, report: Report, *, rounds: int = ROUNDS) -> None:
    """Send every kind once per round, in random order, and compare the medians."""
    chance = random.Random(SEED)
    took: dict[str, list[float]] = {}
    with agent_of(estate) as agent:
        for number in range(rounds):
            order = kinds(estate, number)
            for kind in order:
                if kind.before:
                    agent.authenticate(kind.username, kind.passcode)
            for kind in chance.sample(order, len(order)):
                ms, accepted = timed_ms(
                    lambda kind=kind: (
                        agent.authenticate(kind.username, kind.passcode).accepted
                    )
                )
                if accepted:
                    raise ValueError(f"{kind.name} was accepted")
                took.setdefault(kind.name, []).append(ms)
    for name, values in took.items():
        p50_ms = round(statistics.median(values), 2)
        report.add("refused, alternating", kind=name, p50_ms=p50_ms)
    found = paired.spread(took)
    report.targets.append(
        Target(
            name="(A6)",
            words="refusals: the most that two kinds differ in a round",
            value=found.median,
            target=BOUND_MS,
            at_least=False,
            unit=" ms",
            interval=(found.low, found.high),
        )
    )


def measure_attempts(
    estate: Estate,
    report: Report,
    *,
    users: int = USERS_OF_A_KIND,
    waits_s: Sequence[float] = WAITS_S,
) -> None:
    """
    Send one wrong tokencode after another for users of each kind, and compare the kinds.

    From the fourth attempt on, the primary searches more tokencodes (K1); the sixth
    meets a locked user.
    """
    chance = random.Random(SEED)
    names = _with_tokens(estate, users)
    right = 0
    spreads: list[paired.Estimate] = []
    with agent_of(estate) as agent:
        for attempt, wait_s in enumerate((0, *waits_s), start=1):
            time.sleep(wait_s)
            took: dict[str, list[float]] = {kind: [] for kind in TOKENS}
            for kind, name in chance.sample(names, len(names)):
                passcode = f"{PIN}{chance.randrange(10**6):06}"
                ms, accepted = timed_ms(
                    lambda name=name, passcode=passcode: (
                        agent.authenticate(name, passcode).accepted
                    )
                )
                if accepted:
                    right += 1
                    if right > BY_CHANCE_MAX:
                        raise ValueError(f"{right} random tokencodes were accepted")
                    names.remove((kind, name))  # It has no failures any more.
                    continue
                took[kind].append(ms)
            fewest = min(map(len, took.values()))
            took = {kind: values[:fewest] for kind, values in took.items()}
            # The kinds take turns at random, so equal places are close in time.
            error = paired.ERROR / (1 + len(waits_s))
            spreads.append(paired.spread(took, error=error))
            for kind, values in took.items():
                p50_ms = round(statistics.median(values), 2)
                report.add(f"refused, attempt {attempt}", kind=kind, p50_ms=p50_ms)
    found = paired.worst(spreads)
    report.targets.append(
        Target(
            name="(A6)",
            words="wrong tokencodes, attempts 1 to 6: the most that two kinds differ",
            value=found.median,
            target=BOUND_MS,
            at_least=False,
            unit=" ms",
            interval=(found.low, found.high),
        )
    )


@contextlib.contextmanager
def agent_of(estate: Estate) -> Iterator[Agent]:
    """Return an agent that calls a replica."""
    certificates = estate.cluster.certificates
    with Agent(
        [estate.replica().agents_address],
        ca=estate.cluster.members_ca,
        certificate=certificates / f"{AGENT}.pem",
        key=certificates / f"{AGENT}.key",
    ) as agent:
        yield agent


def _with_tokens(estate: Estate, users: int) -> list[tuple[str, str]]:
    """Create *users* users of each kind; return each kind and name."""
    names = []
    with Admin(
        [node.admin_address for node in estate.cluster.nodes],
        ca=estate.cluster.members_ca,
        session=estate.bearer,
    ) as admin:
        for kind, tokens in TOKENS.items():
            for number in range(users):
                # In letters: a PIN must not be a part of the name.
                letters = "".join("abcdefghij"[int(digit)] for digit in str(number))
                name = f"{kind} {letters}".replace(" ", "-")
                names.append((kind, name))
                if kind == "unknown user":
                    continue
                admin.create_user(name)
                for each in range(tokens):
                    serial = f"9{tokens}{each}{number:09}"
                    admin.enroll_token(
                        NewToken(
                            serial=serial,
                            seed=f"{serial}seed".encode(),
                            algorithm=TokenAlgorithm.SECURID,
                        )
                    )
                    admin.assign_token(serial, name)
                    admin.set_pin(serial, PIN)
    return names


def main() -> int:
    """Measure refusals; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.refusals")
    parser.add_argument("--page", action="store_true", help="write docs/performance.md")
    arguments = parser.parse_args()
    report = Report(path=ROOT / "var" / "refusals.json", command="make bench-refusals")
    with tempfile.TemporaryDirectory(prefix="sparecode-bench-") as folder:
        population = Population(users=2000, profile="testing")
        with Estate(Path(folder) / "refusals", population) as estate:
            measure(estate, report)
            measure_attempts(estate, report)
    report.finish()
    report.show(Console())
    if arguments.page:
        write_report("refusals", report)
    return report.exit_code()


if __name__ == "__main__":
    sys.exit(main())
