# SPDX-License-Identifier: Apache-2.0
"""Nothing acknowledged is lost when nodes are killed at random moments."""

import asyncio
import random
from collections import Counter
from contextlib import asynccontextmanager

import pytest
from local_cluster.cluster import LocalCluster

from sparecode_client import Authentication, TokencodeState
from tests.long import long
from tests.system.estate import PIN, Estate, Holder, answered, each

SEED = 20_261_125
KILLS = [6, *long([20])]
HOLDERS = 20
CODES_EACH = 40
WORKERS = 8


class Workload:
    """Spends codes from a queue, tries each again elsewhere, and keeps the answers."""

    def __init__(self, estate: Estate, holders: list[Holder]) -> None:
        self._estate = estate
        self._unspent = [
            (holder, ordinal)
            for ordinal in range(1, CODES_EACH + 1)
            for holder in holders
        ]
        self._queue: asyncio.Queue[tuple[Holder, int]] = asyncio.Queue()
        self._answered = asyncio.Condition()
        self.answers = 0
        self.acceptances: Counter[tuple[str, int]] = Counter()

    @asynccontextmanager
    async def running(self):
        """Work while the context lasts; what fails in a worker fails the test."""
        async with asyncio.TaskGroup() as group:
            workers = [group.create_task(self._work()) for _ in range(WORKERS)]
            yield
            await self._queue.join()
            for worker in workers:
                worker.cancel()

    def spend(self, count: int) -> None:
        """Queue that many codes."""
        for _ in range(count):
            self._queue.put_nowait(self._unspent.pop(0))

    async def until_answered(self, mark: int) -> None:
        """Return once there were that many answers."""
        async with asyncio.timeout(150), self._answered:
            await self._answered.wait_for(lambda: self.answers >= mark)

    async def _answer(self, holder: Holder, passcode: str) -> Authentication:
        return await answered(
            lambda request_id: self._estate.any_agent.authenticate(
                holder.username, passcode, request_id=request_id
            )
        )

    async def _work(self) -> None:
        while True:
            holder, ordinal = await self._queue.get()
            passcode = PIN + holder.codes[ordinal - 1]
            for _ in range(2):
                answer = await self._answer(holder, passcode)
                self.acceptances[holder.serial, ordinal] += answer.accepted
                async with self._answered:
                    self.answers += 1
                    self._answered.notify_all()
            self._queue.task_done()


@pytest.mark.asyncio
@pytest.mark.timeout(900)
@pytest.mark.parametrize("kills", KILLS)
async def test_no_acknowledged_spend_is_lost_over_many_kills(
    cluster: LocalCluster, kills: int
) -> None:
    """
    Many times, a random node is killed with SIGKILL while codes are spent.

    Every call gets its answer from the survivors; every code is accepted at the
    first try and at no other; every acceptance is on every node afterwards.
    """
    chance = random.Random(SEED)
    async with Estate(cluster) as estate:
        holders = await each(
            [f"survivor-{number:02}" for number in range(HOLDERS)],
            lambda name: estate.holder(name, codes=CODES_EACH),
            at_once=8,
        )
        workload = Workload(estate, holders)
        async with workload.running():
            for _ in range(kills):
                node = chance.choice(cluster.nodes)
                before = workload.answers
                workload.spend(20)
                await workload.until_answered(before + chance.randint(1, 20))
                node.kill()  # In the middle of what is still queued.
                await workload.until_answered(before + 40)  # By the other two.
                workload.spend(10)
                node.start()
                await asyncio.to_thread(cluster.wait_ready, node)
        assert await estate.until_equal()
        used = set()
        for holder in holders:
            access = await estate.admin.get_emergency_access(holder.serial)
            used |= {
                (holder.serial, code.ordinal)
                for code in access.sets[0].codes
                if code.state is TokencodeState.USED
            }
    assert len(workload.acceptances) == kills * 30
    assert set(workload.acceptances.values()) == {1}
    assert used == set(workload.acceptances)
