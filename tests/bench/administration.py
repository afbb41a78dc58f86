# SPDX-License-Identifier: Apache-2.0
"""Work of administrators: issue, read, bulk issue, policy changes (c, h, i)."""

import asyncio
import contextlib
import dataclasses
import functools
import statistics
import threading
import time
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Self

from local_cluster.cluster import ADMINISTRATOR

from sparecode_client import AsyncAdmin, BulkIssueRow, OutcomeUnknown, Overloaded
from sparecode_node.services.load.rates import RateLimits
from tests.bench.estate import Estate, Run
from tests.bench.harness import ROUNDS, Bench

BULK_SETS = 1000
BULK_SETS_OF_PRODUCTION = 60
"""Fewer, because each hash costs a thousand times as much."""
BULK_CODES_PER_S = 4 * RateLimits().codes
BESIDE_MIN = 3
"""Loads that a bulk issue must outlast, for a median."""


def issuing(bench: Bench, estate: Estate) -> None:
    """Measure issuing sets of 10 and of 50 codes."""
    for count in (10, 50):
        for clients in (1, 8):
            bench.median_run(
                f"issue sets of {count}",
                lambda count=count, clients=clients: estate.issue(
                    clients=clients, seconds=min(3.0, bench.seconds), count=count
                ),
                clients=clients,
            )


def growth(bench: Bench, estates: Sequence[Estate]) -> None:
    """Measure issuing and reading on estates of different size."""
    seconds = min(2.0, bench.seconds)

    def at_each(work: str, load: Callable[[Estate], Run]) -> None:
        bench.alternate(
            {
                f"{work}, {estate.population.users} users": functools.partial(
                    load, estate
                )
                for estate in estates
            },
            clients=1,
        )

    at_each(
        "issue sets of 10",
        lambda estate: estate.issue(clients=1, seconds=seconds, count=10),
    )
    at_each(
        "read a token, linearizable",
        lambda estate: estate.read(clients=1, seconds=seconds, stale_ok=False),
    )
    at_each(
        "read a token, stale",
        lambda estate: estate.read(clients=1, seconds=seconds, stale_ok=True),
    )


def reading(bench: Bench, estate: Estate) -> None:
    """Measure reads, and the cost of a read on each node (h)."""
    for stale, name in ((False, "linearizable"), (True, "stale")):
        for clients in (1, 8, 64):
            bench.median_run(
                f"read a token, {name}",
                lambda stale=stale, clients=clients: estate.read(
                    clients=clients,
                    seconds=min(3.0, bench.seconds),
                    stale_ok=stale,
                ),
                clients=clients,
            )
        one = estate.replica()
        run = bench.median_run(
            f"read a token, {name}, only through a replica",
            lambda stale=stale, one=one: estate.read(
                clients=8,
                seconds=min(3.0, bench.seconds),
                stale_ok=stale,
                via=[one],
            ),
            clients=8,
        )
        others = max(ms for node, ms in run.cpu_ms.items() if node != one.node_id)
        primary = estate.primary().node_id
        third = set(run.cpu_ms) - {one.node_id, primary}
        bench.report.add(
            f"CPU of a {name} read on a replica, in ms",
            called=round(run.cpu_ms[one.node_id], 3),
            primary=round(run.cpu_ms[primary], 3),
            third=[round(run.cpu_ms[node], 3) for node in third],
        )
        bench.target(
            "(h)",
            f"{name} read on a replica: CPU of any other node, as a share of the replica's",
            others / run.cpu_ms[one.node_id],
            0.1 if stale else 0.5,
        )


def policies(bench: Bench, estate: Estate) -> None:
    """
    Check that policy changes cause no election, however much is stored (c).

    The thread that applies a change sends no heartbeat meanwhile. For some changes, the
    called node counts all live codes first.
    """
    users = estate.population.users
    words = f"elections while the policy changes, {users} users"
    with bench.no_election(estate, words, name="(c)"):
        counting, others = policy_changes_ms(estate)
    bench.report.add(
        f"policy changes, {users} users, p50 in ms",
        counting_live_codes=round(statistics.median(counting), 1),
        others=round(statistics.median(others), 1),
    )


REPEATS = 6
"""Of a change of the policy: each has the time of a call, ten seconds or so."""

COUNTING, OTHER = "factor_off_at_failures", "lock_from_failures"
"""A field whose changes are weighed against live codes, and one whose are not."""


def policy_changes_ms(estate: Estate) -> tuple[list[float], list[float]]:
    """Return how long changes take of how often codes may be guessed, and others."""
    taken: dict[str, list[float]] = {COUNTING: [], OTHER: []}
    for _ in range(ROUNDS):
        for field, each in taken.items():
            each.append(policy_change_ms(estate, field))
    return taken[COUNTING], taken[OTHER]


def policy_change_ms(
    estate: Estate, field: str, *, repeats: int = REPEATS, pause_s: float = 0.0
) -> float:
    """
    Raise a number of the policy by one; return how long that took.

    *pause_s*: after the sign-in and the change that comes before.
    """
    return asyncio.run(_policy_change_ms(estate, field, repeats, pause_s))


async def _policy_change_ms(
    estate: Estate, field: str, repeats: int, pause_s: float
) -> float:
    async with _administrator(estate) as admin:
        policy = await admin.get_policy()
        # More guesses are weighed against live codes; fewer are not.
        fewer = {field: getattr(policy, field) - 1}
        await admin.update_policy(dataclasses.replace(policy, **fewer))
        policy = await admin.get_policy()
        as_before = {field: getattr(policy, field) + 1}
        await asyncio.sleep(pause_s)
        began = time.perf_counter()
        request_id = str(uuid.uuid4())
        for left in reversed(range(repeats)):
            try:
                await admin.update_policy(
                    dataclasses.replace(policy, **as_before), request_id=request_id
                )
                break
            except (Overloaded, OutcomeUnknown):
                # A count of live codes may take longer than a call; the next one takes it.
                if not left:
                    raise
        return (time.perf_counter() - began) * 1000


@contextlib.asynccontextmanager
async def _administrator(estate: Estate) -> AsyncIterator[AsyncAdmin]:
    """Yield a signed-in administrator that is connected to all nodes."""
    async with AsyncAdmin(
        [node.admin_address for node in estate.cluster.nodes],
        ca=estate.cluster.members_ca,
    ) as admin:
        await admin.login(ADMINISTRATOR, estate.cluster.password)
        yield admin


def bulk(bench: Bench, estate: Estate) -> None:
    """Check that authentication stays fast during a bulk issue (i)."""
    _beside_a_bulk(
        bench, estate, BULK_SETS, "cheap hashing", lambda: bench.codes(estate, 1)
    )


def bulk_of_production(bench: Bench, estate: Estate) -> None:
    """Check the same with production hashing (i)."""
    seconds = min(3.0, bench.seconds)
    _beside_a_bulk(
        bench,
        estate,
        BULK_SETS_OF_PRODUCTION,
        "production hashing",
        lambda: estate.authenticate(
            clients=1, seconds=seconds, calls=int(seconds * 40)
        ),
    )


def _beside_a_bulk(
    bench: Bench, estate: Estate, sets: int, words: str, load: Callable[[], Run]
) -> None:
    for node in estate.cluster.nodes:
        text = node.config.read_text()
        rate = f"codes_per_s = {BULK_CODES_PER_S}\n"
        node.config.write_text(text.replace("codes_per_s = 1000000\n", rate))
        node.stop()
        node.start()
        estate.cluster.wait_ready(node)
    before = bench.median_run(
        f"authenticate, codes, {words}, before a bulk issue",
        load,
        clients=1,
    ).measured.p50_ms
    runs = []
    began = time.monotonic()
    with _BulkIssue(estate, sets) as issuing:
        while not issuing.ended:
            runs.append(load())
        took_s = issuing.ended_at - began
    if issuing.issued != sets:
        raise RuntimeError(f"{issuing.issued} sets were issued, not {sets}")
    complete = runs[:-1]  # The bulk issue ends during the last run.
    if len(complete) < BESIDE_MIN:
        raise RuntimeError(f"the bulk issue ended after {len(complete)} loads")
    complete.sort(key=lambda run: run.measured.p50_ms)
    middle = complete[(len(complete) - 1) // 2]
    bench.report.add_load(
        f"authenticate, codes, {words}, during a bulk issue",
        middle.measured,
        middle.cpu_ms,
        clients=1,
    )
    during = statistics.median(run.measured.p50_ms for run in complete)
    bench.report.add(
        f"a bulk issue of {sets} sets, {words}",
        issued=issuing.issued,
        seconds=round(took_s, 1),
        p50_ms_before=round(before, 2),
        p50_ms_during=round(during, 2),
    )
    bench.target(
        "(i)",
        f"{words}: p50 during a bulk issue of {sets:,} sets, as a multiple of p50 before",
        during / before,
        1.5,
    )


class _BulkIssue:
    """
    Issues many sets in another thread, as `sparecode emergency bulk` does from a file.

    The rate is four times an administrator's default, so that it finishes in time.
    """

    def __init__(self, estate: Estate, sets: int) -> None:
        self._estate = estate
        self._sets = sets
        self._loop = asyncio.new_event_loop()
        self._task: asyncio.Task[None] | None = None
        self._begun = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.ended = False
        self.ended_at = 0.0
        self.issued = 0

    def __enter__(self) -> Self:
        self._thread.start()
        self._begun.wait(30)
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join()

    def _run(self) -> None:
        self._task = self._loop.create_task(self._issue())
        try:
            self._loop.run_until_complete(self._task)
        finally:
            self.ended_at = time.monotonic()
            self.ended = True
            self._begun.set()

    async def _issue(self) -> None:
        population = self._estate.population
        async with _administrator(self._estate) as admin:
            rows = [
                BulkIssueRow(serial=population.serial(number % population.users))
                for number in range(3, 4 * self._sets, 4)
            ]
            self._begun.set()
            results = await admin.bulk_issue_tokencodes(rows)
            self.issued = sum(each.saved is not None for each in results)
