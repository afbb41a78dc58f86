# SPDX-License-Identifier: Apache-2.0
"""
The acknowledged-but-lost scenario: a change that no quorum has is acknowledged.

The primary is cut off, and ten changes are sent to it at that moment. Meanwhile the
others elect another primary and fill the same indexes of the log. Then the network
heals. Stock PySyncObj answers SUCCESS for all ten, and none is there. Here every
acknowledged change must be on every node.
"""

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass

from tests.faults.doors import ANY, Code, Doors, new_request
from tests.faults.history import Outcome, Result
from tests.faults.site import Site

WRITES = 10
FILLERS = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Ghosts:
    """The result of one run."""

    primary: str
    cut_s: float
    dropped: int
    acknowledged: int
    refused: int
    unknown: int
    not_done: int
    elsewhere: int
    """Changes that the other nodes acknowledged meanwhile."""
    false_acknowledgements: int


async def one(site: Site, doors: Doors, chance: random.Random) -> Ghosts:
    """Run the scenario once."""
    codes = [await _live_code(doors) for _ in range(WRITES)]
    fillers = [await _live_code(doors) for _ in range(FILLERS)]
    primary = await _primary(doors)
    others = [name for name in doors.names if name != primary]
    cut_s = chance.uniform(1.5, 4)
    loop = asyncio.get_running_loop()
    until = loop.time() + cut_s
    site.network.isolate(primary)
    at_primary = asyncio.gather(
        *(doors.consume(code, new_request(), primary) for code in codes)
    )
    elsewhere = await asyncio.gather(
        *(doors.consume(code, new_request(), chance.choice(others)) for code in fillers)
    )
    await asyncio.sleep(max(0.0, until - loop.time()))
    dropped = site.network.heal()
    outcomes = await at_primary
    await asyncio.to_thread(site.ready)
    await until_equal(doors)
    accepted = [
        code
        for code, answer in zip(codes, outcomes, strict=True)
        if answer.result is Result.ACCEPTED
    ]
    false = 0
    for code in accepted:
        seen = [
            (await doors.read_all_at(code.holder, node))[code.name]
            for node in doors.names
        ]
        false += any(each.result is not Result.SPENT for each in seen)
    return Ghosts(
        primary=primary,
        cut_s=cut_s,
        dropped=dropped,
        acknowledged=len(accepted),
        refused=sum(answer.result is Result.REFUSED for answer in outcomes),
        unknown=sum(answer.outcome is Outcome.OPEN for answer in outcomes),
        not_done=sum(answer.outcome is Outcome.NOT_DONE for answer in outcomes),
        elsewhere=sum(answer.result is Result.ACCEPTED for answer in elsewhere),
        false_acknowledgements=false,
    )


async def run(
    site: Site,
    doors: Doors,
    chance: random.Random,
    *,
    runs: int,
    say: Callable[[str], None],
) -> list[Ghosts]:
    """Run the scenario *runs* times."""
    results = []
    for number in range(1, runs + 1):
        ghosts = await one(site, doors, chance)
        results.append(ghosts)
        say(
            f"cut-off primary {number:2}  {ghosts.primary} alone for "
            f"{ghosts.cut_s:.1f} s, {ghosts.dropped} packets dropped; of {WRITES} "
            f"changes there {ghosts.acknowledged} acknowledged, {ghosts.unknown} "
            f"unknown, {ghosts.not_done} not done; {ghosts.elsewhere} at the others; "
            f"false acknowledgements: {ghosts.false_acknowledgements}"
        )
    return results


async def until_equal(doors: Doors, *, within_s: float = 60) -> str:
    """Return the digest once every member has the same one at the same index."""
    async with asyncio.timeout(within_s):
        while True:
            digests = await doors.digests()
            if digests.keys() == set(doors.names) and len({*digests.values()}) == 1:
                return digests[doors.names[0]][1]
            await asyncio.sleep(0.2)


async def _live_code(doors: Doors) -> Code:
    code = await doors.draw(await doors.new_holder())
    await doors.issue(code, new_request(), ANY)
    return code


async def _primary(doors: Doors) -> str:
    async with asyncio.timeout(60):
        while True:
            status = await doors.admin.get_status()
            if status.primary and status.quorum:
                return status.primary
            await asyncio.sleep(0.1)
