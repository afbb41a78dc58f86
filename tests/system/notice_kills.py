# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: T201 - it prints to a terminal.
"""
Kill the primary while it delivers notices: `python -m tests.system.notice_kills`.

Three real processes, and a real receiver that verifies each request with the library
of Standard Webhooks. Every committed event must arrive, none that was not committed,
repetitions under the same id, and the events of a subject in their order.
"""

import argparse
import asyncio
import random
import sys
import tempfile
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from local_cluster.cluster import LocalCluster, LocalNode
from local_cluster.setup import set_up

from sparecode_client import AuditEvent
from sparecode_client.values.notices import ChannelKind, EventClass, new_webhook_secret
from tests.results import FOLDER, ROOT, keep, now_and_here, row
from tests.services.receiver import AUTHORITY, receiver
from tests.system.arrivals import Arrivals, differences, wanted
from tests.system.estate import Estate, answered

PAGE = FOLDER / "notices.md"
EVENTS, KILLS = 5000, 20
"""Of a run that goes to the page."""
CHANGES = 4
"""Events about each user."""
WORKERS = 6
CHANNEL = "siem"
CLASSES = (EventClass.TOKENS, EventClass.ADMINISTRATION)
DRAIN_S = 180.0
DOWN_S = 120.0


@dataclass(frozen=True, kw_only=True)
class Run:
    """What a run has shown."""

    kills: int
    committed: int
    arrived: int
    repeated: int
    longest_gap_s: float
    seconds: float
    faults: tuple[str, ...]


class Load:
    """Creates and changes users, whatever happens to the primary."""

    def __init__(self, estate: Estate, events: int) -> None:
        self._estate = estate
        self._users = iter(range(events // CHANGES))
        self.events = 0
        self.limit = 0
        """Workers wait before further events, until it is raised."""
        self._more = asyncio.Condition()

    async def run(self) -> None:
        """Make all events."""
        async with asyncio.TaskGroup() as group:
            for _ in range(WORKERS):
                group.create_task(self._work())

    async def wake(self) -> None:
        """Let workers look at the limit again."""
        async with self._more:
            self._more.notify_all()

    async def until(self, events: int) -> None:
        """Return once there were that many events."""
        await self.wake()
        async with self._more:
            await self._more.wait_for(lambda: self.events >= events)

    async def _work(self) -> None:
        for number in self._users:
            name = f"told-{number:05}"
            await answered(partial(self._create, name))
            await self._count()
            for change in range(1, CHANGES):
                await answered(partial(self._rename, name, f"Name {change}"))
                await self._count()

    async def _create(self, name: str, request_id: str) -> None:
        await self._estate.admin.create_user(name, request_id=request_id)

    async def _rename(self, name: str, display_name: str, request_id: str) -> None:
        await self._estate.admin.update_user(
            name, display_name=display_name, request_id=request_id
        )

    async def _count(self) -> None:
        async with self._more:
            self.events += 1
            self._more.notify_all()
            await self._more.wait_for(lambda: self.events < self.limit)


async def strike(
    cluster: LocalCluster, folder: Path, *, events: int, kills: int, seed: int
) -> Run:
    """Make events, kill the primary again and again, and compare what has arrived."""
    began, chance = time.monotonic(), random.Random(seed)
    arrivals = Arrivals(secret=new_webhook_secret())
    async with receiver(folder) as hook, Estate(cluster) as estate:
        hook.answer = lambda _: arrivals.take(hook)
        await estate.admin.create_channel(
            CHANNEL,
            hook.url,
            kind=ChannelKind.WEBHOOK,
            classes=CLASSES,
            secret=arrivals.secret,
            allow_private=True,
            authority=AUTHORITY.pem.decode(),
        )
        load, gaps = Load(estate, events), [0.0]
        async with asyncio.TaskGroup() as group:
            group.create_task(load.run())
            share = events // kills
            for number in range(kills):
                primary = await estate.primary()
                load.limit += share
                # In the first half: the other half comes while there is no primary.
                await load.until(share * number + chance.randint(1, share // 2))
                gaps.append(await _kill(cluster, primary, arrivals))
                print(
                    f"kill {number + 1}: {load.events} events, {len(arrivals.events)} "
                    f"arrived, {arrivals.repeated} repeated",
                    flush=True,
                )
            load.limit = events + WORKERS
            await load.wake()
        committed = await _until_delivered(estate)
    return Run(
        kills=kills,
        committed=len(committed),
        arrived=len(arrivals.events),
        repeated=arrivals.repeated,
        longest_gap_s=round(max(gaps), 1),
        seconds=round(time.monotonic() - began, 1),
        faults=tuple(arrivals.faults + differences(arrivals, committed)),
    )


async def _kill(cluster: LocalCluster, primary: LocalNode, arrivals: Arrivals) -> float:
    """Kill the primary, and return after how long another one has delivered."""
    before = len(arrivals.events) + arrivals.repeated
    begin = time.monotonic()
    primary.kill()
    async with asyncio.timeout(DOWN_S):
        while len(arrivals.events) + arrivals.repeated <= before + WORKERS:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    gap = time.monotonic() - begin
    primary.start()
    await asyncio.to_thread(cluster.wait_ready, primary)
    return gap


async def _until_delivered(estate: Estate) -> list[AuditEvent]:
    """Return the events that the channel wants, once none waits."""
    async with asyncio.timeout(DRAIN_S):
        while True:
            (channel,) = (await estate.admin.list_channels()).items
            if not channel.waiting_count:
                break
            await asyncio.sleep(0.2)
    if channel.dead_count:
        raise AssertionError(f"{channel.dead_count} dead letters")
    log: list[AuditEvent] = []
    while True:
        page = await estate.admin.list_audit_events(
            from_sequence=len(log) + 1, page_size=500
        )
        if not page.items:
            return wanted(log, f"channel {CHANNEL}", CLASSES)
        log.extend(page.items)


def page(results: dict[str, Any]) -> str:
    """Return the results page."""
    numbers = results["kills"]
    rows = [
        ("command", f"`{numbers['command']}`"),
        ("date", numbers["date"]),
        ("commit", numbers["commit"]),
        ("machine", numbers["machine"]),
        ("seed", numbers["seed"]),
        ("seconds", numbers["seconds"]),
        ("kills of the primary", numbers["kills"]),
        ("committed events that the channel wants", f"{numbers['committed']:,}"),
        ("of these, arrived", f"{numbers['arrived']:,}"),
        ("arrived again, under the same id", f"{numbers['repeated']:,}"),
        ("longest time from a kill to the next deliveries", f"{numbers['gap_s']} s"),
        ("result", "; ".join(numbers["faults"]) or "every promise was kept"),
    ]
    table = "\n".join(row(*each) for each in rows)
    return f"""\
# Results of killing the primary while it delivers notices

Written by `make notices-kills`; do not edit.
Three processes on one machine, and a receiver that verifies each request. Clients create
and change users. The primary is killed with SIGKILL at random moments, and started again.
In the end every committed event must have arrived, and nothing else; what arrived again
has the same id; and the events about a user have arrived in their order.

|  |  |
| --- | --- |
{table}
"""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.system.notice_kills")
    parser.add_argument("--events", type=int, default=EVENTS)
    parser.add_argument("--kills", type=int, default=KILLS)
    parser.add_argument(
        "--seed", type=int, default=random.SystemRandom().getrandbits(32)
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="sparecode-notices-") as name:
        folder = Path(name)
        cluster = set_up(folder / "cluster", testing=True)
        try:
            cluster.start()
            result = asyncio.run(
                strike(
                    cluster,
                    folder,
                    events=options.events,
                    kills=options.kills,
                    seed=options.seed,
                )
            )
        finally:
            cluster.kill()
    print(result)
    if options.events >= EVENTS and options.kills >= KILLS:
        numbers = {
            **now_and_here(),
            "command": "make notices-kills",
            "seed": options.seed,
            "kills": result.kills,
            "seconds": result.seconds,
            "committed": result.committed,
            "arrived": result.arrived,
            "repeated": result.repeated,
            "gap_s": result.longest_gap_s,
            "faults": list(result.faults),
        }
        PAGE.write_text(page(keep(PAGE, "kills", numbers)))
        print(f"written to {PAGE.relative_to(ROOT)}")
    return 1 if result.faults else 0


if __name__ == "__main__":
    sys.exit(main())
