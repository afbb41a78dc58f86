# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: T201 - it prints to a terminal.
"""
Run faults on real processes: `python -m tests.faults --minutes 5`, as root.

Exits with 1 if a promise was broken or the run was too short to judge, and with 2 if
it cannot run here. Report and history are in var/faults. Runs that are long enough
go to the results page.
"""

import argparse
import asyncio
import dataclasses
import fcntl
import os
import random
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from local_cluster.cluster import LocalClusterError

from tests.fault_points import record
from tests.faults import final_log, final_state, ghosts, page, plans, report
from tests.faults.archive_strikes import want_all_archives
from tests.faults.checker import check
from tests.faults.doors import Doors, Holder
from tests.faults.history import History, Operation
from tests.faults.nemesis import FAULTS, Nemesis
from tests.faults.network import ToolError
from tests.faults.plans import Plan
from tests.faults.probes import Prober, judge
from tests.faults.receivers import Receivers
from tests.faults.site import Site, SiteError, check_machine
from tests.faults.workload import CLIENTS, Workload
from tests.system.estate import each

VAR = Path(__file__).parents[2] / "var" / "faults"
LOCK = Path("/run/lock/sparecode-faults")
WARM_UP_S = 3
READS_AT_ONCE = 32


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faults")
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument(
        "--ghosts",
        type=int,
        default=plans.GHOSTS,
        help="runs of the scenario with a cut-off primary",
    )
    parser.add_argument(
        "--seed", type=int, help="seed of the choices; results still differ"
    )
    parser.add_argument(
        "--clients",
        type=int,
        default=CLIENTS,
        help="clients that work at once; fewer on a busy machine",
    )
    parser.add_argument(
        "--faults", nargs="+", choices=FAULTS, default=FAULTS, metavar="FAULT"
    )
    parser.add_argument(
        "--series", choices=plans.SERIES, help="a series of one kind of fault only"
    )
    parser.add_argument("--times", type=int, help="number of faults of the series")
    return parser.parse_args()


def plan_of(options: argparse.Namespace) -> Plan:
    """Return the plan for these options."""
    if options.series is None:
        return plans.campaign(options.minutes, options.faults, options.ghosts)
    plan = plans.SERIES[options.series]
    usual = plan.times or plan.ghosts
    times = options.times or usual
    return dataclasses.replace(
        plan,
        times=times if plan.times else 0,
        ghosts=times if plan.ghosts else 0,
        recorded=times >= usual,
    )


async def campaign(
    site: Site, history: History, plan: Plan, chance: random.Random, clients: int
) -> report.Campaign:
    """Strike while clients work, then compare the final states."""
    load = [os.getloadavg()[1]]
    async with (
        Receivers(VAR) as receivers,
        Doors(site.cluster, history, chance) as doors,
    ):
        await receivers.create_channels(doors.admin)
        await want_all_archives(doors.admin)
        begin_ns = time.monotonic_ns()
        ghost_runs = await ghosts.run(site, doors, chance, runs=plan.ghosts, say=_say)
        span = report.Span(begin_ns=begin_ns, end_ns=time.monotonic_ns())
        nemesis = Nemesis(
            site,
            chance,
            session=doors.session,
            first_success=history.first_success,
            receivers=receivers,
        )
        seen = None
        if plan.faults:
            prober = Prober(site.cluster, doors.session, VAR / "prober.jsonl")
            with prober:
                await asyncio.to_thread(prober.wait)
                workload = Workload(doors, chance, clients=clients)
                span = await _strike(nemesis, workload, plan)
            away = report.without_quorum(nemesis.struck)
            seen = judge(prober.calls(), span.begin_ns, span.end_ns, away)
        load.append(os.getloadavg()[1])
        end = await _final(doors, history)
        _say("comparing the audit log of every node with what receivers have")
        log = await final_log.look(doors, site, receivers, VAR)
    return report.Campaign(
        span=span,
        operations=history.operations,
        verdict=check(history.of_codes()),
        final=end,
        log=log,
        planned=plan.planned,
        strikes=nemesis.struck,
        ghosts=ghost_runs,
        errors=doors.errors,
        users=len(doors.holders),
        restarts=site.starts,
        bugs=site.bugs(),
        compactions=site.count_values("log_compacted", "first"),
        installed=site.count_values("snapshot_installed", "index"),
        probes=seen,
        load=tuple(load),
    )


async def _strike(nemesis: Nemesis, workload: Workload, plan: Plan) -> report.Span:
    """Strike while clients work; return the time span."""

    def strike() -> None:
        if plan.times:
            nemesis.cycles(plan.faults, count=plan.times, say=_say)
        else:
            nemesis.campaign(plan.faults, seconds=60 * plan.minutes, say=_say)

    working = asyncio.create_task(workload.run())
    try:
        await asyncio.sleep(WARM_UP_S)
        begin_ns = time.monotonic_ns()
        await asyncio.to_thread(strike)
        return report.Span(begin_ns=begin_ns, end_ns=time.monotonic_ns())
    finally:
        nemesis.end()
        workload.end()
        await working


async def _final(doors: Doors, history: History) -> report.Final:
    """Compare the final state of every node with what was acknowledged."""
    try:
        digest = await ghosts.until_equal(doors)
    except TimeoutError:
        digest = ""
    acknowledged = history.operations[:]

    async def read(where: tuple[Holder, str]) -> list[Operation]:
        return list((await doors.read_all_at(*where)).values())

    places = [(holder, node) for holder in doors.holders for node in doors.names]
    results = await each(places, read, at_once=READS_AT_ONCE)
    reads = [operation for result in results for operation in result]
    return report.Final(
        nodes=len(doors.names),
        reads=len(reads),
        digest=digest,
        lost=final_state.lost(acknowledged, reads),
    )


def _say(words: str) -> None:
    print(f"{time.strftime('%H:%M:%S')}  {words}", flush=True)


def _run(options: argparse.Namespace) -> Sequence[str]:
    """Run a campaign; return the reasons of its failure, if any."""
    seed = (
        random.SystemRandom().getrandbits(32) if options.seed is None else options.seed
    )
    plan = plan_of(options)
    VAR.mkdir(parents=True, exist_ok=True)
    _say(f"seed {seed}: three nodes, each with its own network and disk")
    history = History(VAR / "history.jsonl")
    with Site(VAR / "site", plan.filesystems) as site:
        chance = random.Random(seed)
        result = asyncio.run(campaign(site, history, plan, chance, options.clients))
        history.close()
        numbers = {"seed": seed, **report.figures(result)}
        why = report.failures(result, numbers)
        report.write(VAR, numbers, why)
        print(f"\n{report.text(numbers, why)}\n\n{VAR}/report.txt, report.json")
        strikes = site.points.strikes()
    if plan.recorded and options.clients >= CLIENTS:
        print(f"written to {page.record(plan, numbers, why)}")
        if plan.name == plans.POINTS_SERIES:
            verdict = "; ".join(why) or "passed"
            record.record("real processes", plan.command, strikes, verdict)
    return why


def main() -> int:
    options = arguments()
    try:
        check_machine()
        with LOCK.open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return 1 if _run(options) else 0
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
    except BlockingIOError:
        print("another campaign is running on this machine", file=sys.stderr)
    except (SiteError, ToolError, LocalClusterError) as error:
        print(error, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
