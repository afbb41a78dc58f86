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
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from local_cluster.cluster import LocalCluster, LocalNode
from local_cluster.setup import set_up
from standardwebhooks import Webhook, WebhookVerificationError

from sparecode_client import AuditEvent
from sparecode_client.values.notices import ChannelKind, EventClass, new_webhook_secret
from sparecode_node.domain.notices import class_of
from tests.results import FOLDER, ROOT, keep, now_and_here, row
from tests.services.receiver import AUTHORITY, OK, Receiver, receiver
from tests.system.estate import Estate

PAGE = FOLDER / "notices.md"
EVENTS, KILLS = 5000, 20
"""Of a run that goes to the page."""
CHANGES = 4
"""Events about each user."""
WORKERS = 6
CHANNEL = "siem"
CLASSES = (EventClass.TOKENS, EventClass.ADMINISTRATION)
DRAIN_S = 180.0
DOWN_S = 60.0


@dataclass(kw_only=True)
class Arrivals:
    """What the receiver has got, and whether it could verify it."""

    secret: str
    events: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Notice id -> its event, in the order of first arrivals."""
    repeated: int = 0
    faults: list[str] = field(default_factory=list)

    def take(self, hook: Receiver) -> bytes:
        """Verify the newest request, and answer it."""
        headers, body = hook.requests[-1]
        try:
            told = Webhook(self.secret).verify(body, headers)
        except WebhookVerificationError as error:
            self.faults.append(f"not verified: {error}")
            return OK
        notice_id, event = headers["webhook-id"], told["data"]
        if told["id"] != notice_id:
            self.faults.append(f"{notice_id} is called {told['id']}")
        known = self.events.setdefault(notice_id, event)
        self.repeated += known is not event
        if known != event:
            self.faults.append(f"{notice_id} is {known}, and {event}")
        return OK


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
            await self._estate.admin.create_user(name)
            await self._count()
            for change in range(1, CHANGES):
                await self._estate.admin.update_user(
                    name, display_name=f"Name {change}"
                )
                await self._count()

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
                primary = await _primary(cluster, estate)
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


async def _primary(cluster: LocalCluster, estate: Estate) -> LocalNode:
    async with asyncio.timeout(DOWN_S):
        while not (name := (await estate.admin.get_status()).primary):  # noqa: ASYNC110
            await asyncio.sleep(0.1)
    return cluster.node(name)


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
    wanted: list[AuditEvent] = []
    sequence, begun = 1, False
    while True:
        page = await estate.admin.list_audit_events(
            from_sequence=sequence, page_size=500
        )
        for event in page.items:
            begun = begun or event.action == "SaveChannel"
            if begun and class_of(event.action) in CLASSES:
                wanted.append(event)
        if not page.items:
            return wanted
        sequence = page.items[-1].sequence + 1


def differences(arrivals: Arrivals, committed: list[AuditEvent]) -> list[str]:
    """Return what has not arrived, what was not committed, and what came too early."""
    faults = []
    wanted = {event.sequence: event for event in committed}
    sequences = [event["sequence"] for event in arrivals.events.values()]
    if len(set(sequences)) != len(sequences):
        faults.append("an event has two ids")
    if missing := sorted(wanted.keys() - set(sequences)):
        faults.append(f"{len(missing)} events have not arrived: {missing[:20]}")
    newest: dict[str, int] = {}
    for notice_id, told in arrivals.events.items():
        event = wanted.get(told["sequence"])
        if event is None or (
            event.action,
            event.target,
            event.outcome,
            event.detail,
        ) != (*(told["action"], told["target"], told["outcome"], told["detail"]),):
            faults.append(f"{notice_id} was not committed: {told}, but {event}")
        if told["sequence"] < newest.get(told["target"], 0):
            faults.append(f"{notice_id} came after a later one about {told['target']}")
        newest[told["target"]] = max(newest.get(told["target"], 0), told["sequence"])
    return faults


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
