# SPDX-License-Identifier: Apache-2.0
"""
The concurrent calls of users, agents and administrators, repeated.

Each code is issued, tried on several nodes at once, retried elsewhere under the same
request id, tried again after it is spent, sometimes revoked meanwhile, and read.
One code has one user. A user with an outcome that stays unknown is not used again.
"""

import asyncio
import random
from collections.abc import Sequence

from sparecode_client import SparecodeError
from tests.faults.doors import ANY, Code, Doors, Holder, new_request
from tests.faults.history import Kind, Operation, Outcome, Result

CLIENTS = 64
MAKERS = 3
POOL = 40
"""New users that wait for a client."""
CODES_EACH = 8
"""At most 8: the state keeps eight ended sets readable."""
RETRIES = 2
RACERS_MAX = 6


class Workload:
    """The clients, and the tasks that make users for them."""

    def __init__(
        self, doors: Doors, chance: random.Random, *, clients: int = CLIENTS
    ) -> None:
        self._doors = doors
        self._chance = chance
        self._count = clients
        self._pool: asyncio.Queue[Holder] = asyncio.Queue(POOL)
        self._over = asyncio.Event()

    async def run(self) -> None:
        """Work until `end` is called; calls in progress then finish."""
        async with asyncio.TaskGroup() as group:
            makers = [group.create_task(self._make()) for _ in range(MAKERS)]
            async with asyncio.TaskGroup() as clients:
                for _ in range(self._count):
                    clients.create_task(self._work())
            for maker in makers:
                maker.cancel()

    def end(self) -> None:
        """Start nothing new."""
        self._over.set()

    async def _make(self) -> None:
        while True:
            try:
                holder = await self._doors.new_holder()
            except SparecodeError as error:
                self._doors.errors[f"set-up: {error.reason}"] += 1
                await asyncio.sleep(0.1)
            else:
                await self._pool.put(holder)

    async def _work(self) -> None:
        while not self._over.is_set():
            try:
                async with asyncio.timeout(1):
                    holder = await self._pool.get()
            except TimeoutError:
                continue
            for _ in range(CODES_EACH):
                if self._over.is_set() or not await self._live(holder):
                    break

    async def _live(self, holder: Holder) -> bool:
        """Use one code from its issue to its end; return whether every outcome is known."""
        code = await self._issue(holder)
        if code is None:
            return False
        plan = self._chance.choices(
            [self._race, self._plain, self._revoke], [0.6, 0.25, 0.15]
        )[0]
        operations = await plan(code)
        known = [await self._resolve(code, each) for each in operations]
        await self._afterwards(code, operations)
        return all(known)

    async def _issue(self, holder: Holder) -> Code | None:
        try:
            code = await self._doors.draw(holder)
        except SparecodeError as error:
            self._doors.errors[f"draw: {error.reason}"] += 1
            return None
        request = new_request()
        for _ in range(1 + RETRIES):
            issued = await self._doors.issue(code, request, self._door())
            if issued.outcome is Outcome.ANSWERED:
                return code
        return None

    def _door(self) -> str:
        """Return one node, or sometimes the client that knows all of them."""
        return ANY if self._chance.random() < 0.25 else self._doors.any_node()

    # --- Uses of a code ----------------------------------------------

    async def _race(self, code: Code) -> list[Operation]:
        """Try a code from several agents at once; sometimes revoke or read it meanwhile."""
        racers = self._chance.randint(2, RACERS_MAX)
        tries = [
            self._doors.consume_by_any_door(code, new_request(), self._door())
            for _ in range(racers)
        ]
        if self._chance.random() < 0.3:
            tries.append(self._doors.read(code, self._doors.any_node()))
        if self._chance.random() < 0.15:
            tries.append(self._doors.revoke(code, new_request(), self._door()))
        self._chance.shuffle(tries)
        return await asyncio.gather(*tries)

    async def _plain(self, code: Code) -> list[Operation]:
        """Try a code once, then read it."""
        return [
            await self._doors.consume_by_any_door(code, new_request(), self._door()),
            await self._doors.read(code, self._doors.any_node()),
        ]

    async def _revoke(self, code: Code) -> list[Operation]:
        """Revoke a code, sometimes while an agent tries it."""
        tries = [self._doors.revoke(code, new_request(), self._door())]
        if self._chance.random() < 0.5:
            tries.append(
                self._doors.consume_by_any_door(code, new_request(), self._door())
            )
        return await asyncio.gather(*tries)

    async def _resolve(self, code: Code, operation: Operation) -> bool:
        """Retry under the same request id on other nodes until the outcome is known."""
        if operation.outcome is not Outcome.OPEN or operation.kind is Kind.READ:
            return True
        ask = (
            self._doors.consume_by_any_door
            if operation.kind is Kind.CONSUME
            else self._doors.revoke
        )
        again = operation
        for _ in range(RETRIES):
            node = self._doors.any_node(but=again.node)
            again = await ask(code, operation.request_id, node)
            if again.outcome is Outcome.ANSWERED:
                return True
        return False

    async def _afterwards(self, code: Code, operations: Sequence[Operation]) -> None:
        """Retry accepted requests, and try the spent code again."""
        for each in operations:
            if each.result is Result.ACCEPTED and self._chance.random() < 0.6:
                elsewhere = self._doors.any_node(but=each.node)
                await self._doors.consume_by_any_door(code, each.request_id, elsewhere)
        if self._chance.random() < 0.6:
            await self._doors.consume_by_any_door(code, new_request(), self._door())
        if self._chance.random() < 0.3:
            await self._doors.read(code, self._doors.any_node())
