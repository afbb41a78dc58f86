# SPDX-License-Identifier: Apache-2.0
"""What administrators do: issue, read, and issue for many at once (h, i)."""

import asyncio
import statistics
import threading

from local_cluster.cluster import ADMINISTRATOR

from sparecode_client import AsyncAdmin, BulkIssueRow
from tests.bench.estate import Estate
from tests.bench.measuring import Bench

BULK_SETS = 1000


def issuing(bench: Bench, estate: Estate) -> None:
    """Measure sets of 10 and of 50 codes."""
    for count in (10, 50):
        for clients in (1, 8):
            bench.thrice(
                f"issue sets of {count}",
                lambda count=count, clients=clients: estate.issue(
                    clients=clients, seconds=min(3.0, bench.seconds), count=count
                ),
                clients=clients,
            )


def reading(bench: Bench, estate: Estate) -> None:
    """Measure reads, and what one costs each node (h)."""
    for stale, name in ((False, "linearizable"), (True, "stale")):
        for clients in (1, 8, 64):
            bench.thrice(
                f"read a token, {name}",
                lambda stale=stale, clients=clients: estate.read(
                    clients=clients,
                    seconds=min(3.0, bench.seconds),
                    stale_ok=stale,
                ),
                clients=clients,
            )
        one = estate.replica()
        run = bench.thrice(
            f"read a token, {name}, all through a replica",
            lambda stale=stale, one=one: estate.read(
                clients=8,
                seconds=min(3.0, bench.seconds),
                stale_ok=stale,
                via=[one],
            ),
            clients=8,
        )
        others = max(ms for node, ms in run.cpu_ms.items() if node != one.node_id)
        bench.report.add(
            f"CPU of a {name} read on a replica, in ms",
            asked=round(run.cpu_ms[one.node_id], 3),
            primary=round(run.cpu_ms[estate.primary().node_id], 3),
            others_at_most=round(others, 3),
        )
        bench.target(
            "(h)",
            f"{name} read on a replica: CPU of any other node, as a share of its",
            others / run.cpu_ms[one.node_id],
            0.1 if stale else 0.5,
        )


def bulk(bench: Bench, estate: Estate) -> None:
    """See that authentication goes on beside a bulk issue (i)."""
    before = bench.thrice(
        "authenticate, codes, before a bulk issue",
        lambda: bench.codes(estate, 1),
        clients=1,
    ).measured.p50_ms
    ended = threading.Event()
    errors: list[BaseException] = []
    thread = threading.Thread(target=_bulk_issue, args=(estate, ended, errors))
    thread.start()
    beside: list[float] = []
    while not ended.is_set() and len(beside) < 3:
        beside.append(bench.codes(estate, 1).measured.p50_ms)
    thread.join()
    if errors:
        raise errors[0]
    during = statistics.median(beside)
    bench.report.add(
        f"p50 beside a bulk issue of {BULK_SETS} sets, in ms",
        without=round(before, 2),
        beside=round(during, 2),
        loads=len(beside),
    )
    bench.target(
        "(i)", "authentication's p50 beside a bulk issue", during / before, 1.5
    )


def _bulk_issue(
    estate: Estate, ended: threading.Event, errors: list[BaseException]
) -> None:
    """Issue many sets, as `sparecode emergency bulk` does from a file."""

    async def issue() -> None:
        population = estate.population
        async with AsyncAdmin(
            [node.admin_address for node in estate.cluster.nodes],
            ca=estate.cluster.members_ca,
        ) as admin:
            await admin.login(ADMINISTRATOR, estate.cluster.password)
            await admin.bulk_issue_tokencodes(
                [
                    BulkIssueRow(serial=population.serial(number % population.users))
                    for number in range(3, 4 * BULK_SETS, 4)
                ]
            )

    try:
        asyncio.run(issue())
    except BaseException as error:  # noqa: BLE001 - told in the thread that waits.
        errors.append(error)
    finally:
        ended.set()
