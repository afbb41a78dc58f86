# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: T201 - it talks to a human.
"""
Faults on real processes: `python -m tests.faults --minutes 5`, as root.

Exits with 1 if a promise was broken, or if too little was shown to tell; with 2 if
it cannot run here. Report and history are in var/faults.
"""

import argparse
import asyncio
import fcntl
import random
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from local_cluster.cluster import LocalClusterError

from tests.faults import ghosts, report
from tests.faults.checker import check
from tests.faults.disks import FILESYSTEMS
from tests.faults.doors import Doors, Holder
from tests.faults.history import History, Kind, Operation, Result
from tests.faults.nemesis import FAULTS, POWER, Nemesis
from tests.faults.network import ToolError
from tests.faults.site import Site, SiteError, check_machine
from tests.faults.workload import Workload
from tests.system.estate import each

VAR = Path(__file__).parents[2] / "var" / "faults"
LOCK = Path("/run/lock/sparecode-faults")
WARM_UP_S = 3
READS_AT_ONCE = 32

SHOWS = {
    (Kind.ISSUE, Result.ISSUED): {Result.LIVE, Result.SPENT, Result.DEAD},
    (Kind.CONSUME, Result.ACCEPTED): {Result.SPENT},
    (Kind.REVOKE, Result.REVOKED): {Result.DEAD},
}
"""What a node may hold of a code after something was acknowledged for ever."""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faults")
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--ghosts", type=int, default=10, help="runs of that scenario")
    parser.add_argument("--seed", type=int, help="of what is chosen, not of what comes")
    parser.add_argument(
        "--faults", nargs="+", choices=FAULTS, default=FAULTS, metavar="FAULT"
    )
    parser.add_argument(
        "--power-cuts", type=int, metavar="N", help="N power cuts, nothing else"
    )
    parser.add_argument("--filesystem", choices=FILESYSTEMS, help="under every node")
    return parser.parse_args()


async def campaign(
    site: Site, history: History, wanted: argparse.Namespace, chance: random.Random
) -> report.Campaign:
    """Strike while clients work; then look at what is left."""
    async with Doors(site.cluster, history, chance) as doors:
        haunted = []
        if wanted.ghosts and not wanted.power_cuts:
            haunted = await ghosts.run(
                site, doors, chance, runs=wanted.ghosts, say=_say
            )
        nemesis = Nemesis(site, chance, session=doors.session)
        workload = Workload(doors, chance)
        begin_ns = time.monotonic_ns()
        working = asyncio.create_task(workload.run())
        try:
            await asyncio.sleep(WARM_UP_S)
            begin_ns = time.monotonic_ns()
            await asyncio.to_thread(_strike, nemesis, wanted)
            end_ns = time.monotonic_ns()
        finally:
            nemesis.end()
            workload.end()
            await working
        final = await _final(doors, history)
    return report.Campaign(
        span=report.Span(begin_ns=begin_ns, end_ns=end_ns),
        operations=history.operations,
        verdict=check(history.of_codes()),
        final=final,
        strikes=nemesis.struck,
        ghosts=haunted,
        errors=doors.errors,
        users=len(doors.holders),
        restarts=site.starts,
        bugs=site.bugs(),
    )


def _strike(nemesis: Nemesis, wanted: argparse.Namespace) -> None:
    if wanted.power_cuts:
        nemesis.cycles(POWER, count=wanted.power_cuts, say=_say)
    else:
        nemesis.campaign(wanted.faults, seconds=60 * wanted.minutes, say=_say)


async def _final(doors: Doors, history: History) -> report.Final:
    """Compare what every node holds with what was acknowledged."""
    try:
        digest = await ghosts.until_equal(doors)
    except TimeoutError:
        digest = ""
    promised: dict[str, list[set[Result]]] = {}
    for operation in history.operations:
        shown = SHOWS.get((operation.kind, operation.result or Result.ABSENT))
        if shown is not None:
            promised.setdefault(operation.code, []).append(shown)

    async def read(where: tuple[Holder, str]) -> list[tuple[str, Operation]]:
        return list((await doors.read_all_at(*where)).items())

    places = [(holder, node) for holder in doors.holders for node in doors.names]
    seen = await each(places, read, at_once=READS_AT_ONCE)
    lost = [
        f"{code} at {operation.node}: {operation.result}"
        for found in seen
        for code, operation in found
        if any(operation.result not in shown for shown in promised.get(code, ()))
    ]
    return report.Final(reads=sum(map(len, seen)), digest=digest, lost=tuple(lost))


def _say(words: str) -> None:
    print(f"{time.strftime('%H:%M:%S')}  {words}", flush=True)


def _run(wanted: argparse.Namespace) -> Sequence[str]:
    """Run a campaign; return why it has failed."""
    seed = random.SystemRandom().getrandbits(32) if wanted.seed is None else wanted.seed
    filesystems = [wanted.filesystem] if wanted.filesystem else FILESYSTEMS
    VAR.mkdir(parents=True, exist_ok=True)
    _say(f"seed {seed}: three nodes, each with a network and a disk of its own")
    history = History(VAR / "history.jsonl")
    with Site(VAR / "site", filesystems) as site:
        found = asyncio.run(campaign(site, history, wanted, random.Random(seed)))
        history.close()
        numbers = {"seed": seed, **report.figures(found)}
        why = report.failures(found, numbers)
        report.write(VAR, numbers, why)
        print(f"\n{report.text(numbers, why)}\n\n{VAR}/report.txt, report.json")
    return why


def main() -> int:
    wanted = arguments()
    try:
        check_machine()
        with LOCK.open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return 1 if _run(wanted) else 0
    except KeyboardInterrupt:
        print("given up", file=sys.stderr)
    except BlockingIOError:
        print("another campaign is running on this machine", file=sys.stderr)
    except (SiteError, ToolError, LocalClusterError) as error:
        print(error, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
