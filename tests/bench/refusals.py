# SPDX-License-Identifier: Apache-2.0
"""Compare the time of refusals of every kind, alternating (A6): they must be equal."""

import random
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

from local_cluster.cluster import AGENT

from sparecode_client import Agent
from tests.bench.estate import Estate
from tests.bench.population import PIN
from tests.bench.report import Report, Target

ROUNDS = 200
SEED = 20_261_125
BOUND_MS = 1.0
WRONG_PIN = "9999"
WRONG_CODE = "WRNGCDE7"


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
    certificates = estate.cluster.certificates
    with Agent(
        [estate.replica().agents_address],
        ca=estate.cluster.members_ca,
        certificate=certificates / f"{AGENT}.pem",
        key=certificates / f"{AGENT}.key",
    ) as agent:
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
    medians = {name: statistics.median(values) for name, values in took.items()}
    for name, median_ms in medians.items():
        report.add("refused, alternating", kind=name, p50_ms=round(median_ms, 2))
    report.targets.append(
        Target(
            name="(A6)",
            words="refusals: slowest median minus fastest median",
            value=max(medians.values()) - min(medians.values()),
            target=BOUND_MS,
            at_least=False,
            unit=" ms",
        )
    )
