# SPDX-License-Identifier: Apache-2.0
"""
Programs that sign users in, with the library's `AsyncRoutedAgent`.

Passcodes name a code of a set: `2/17`; or a moment of a token: `@7`. After a restore
people have a new set, and some of them type a code of the old one.
"""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import cast

from sparecode_client import (
    AsyncRoutedAgent,
    Authentication,
    Decision,
    OutcomeUnknown,
    Refused,
    SlotTable,
    SparecodeError,
    Unavailable,
    slot_of,
)
from sparecode_client.agent import AsyncAgent
from sparecode_client.clusters.routes import LOOK_S
from sparecode_client.clusters.slots import ClusterAddress
from sparecode_node.domain.ids import SetId
from tests.simulation.groups.estate import (
    CODES,
    LATE_S,
    PEOPLE,
    Estate,
    Lost,
    RestoredError,
)
from tests.simulation.groups.group import Group, NotHere
from tests.simulation.groups.moves import REMEMBERED_S, MoveRefusedError
from tests.simulation.groups.queues import Queue
from tests.simulation.groups.tokens import (
    DOUBTED_S,
    PERIOD_S,
    TOKEN_USERS,
    NextTry,
    TokencodeTry,
)
from tests.simulation.people import USERS, Try

PROGRAMS = 3
TOKENS = 0.4
"""How often a user with a token signs in, and not one with emergency codes."""
TOKENCODE = "@"
"""Before a moment of a token."""
RESERVED = 4
"""Codes of each set that are tried at the end alone."""
WITHIN = timedelta(seconds=1)
REPEATED_S = REMEMBERED_S - LATE_S - WITHIN.total_seconds() - 1.0
"""A program begins no try later: the clusters must still remember the request then."""


class Programs:
    """The programs, and the slot table that each has on its disk."""

    def __init__(self, estate: Estate, seconds: float, queue: Queue) -> None:
        self._estate = estate
        self._queue = queue
        self._began_s = estate.timeline.now
        self._seconds = seconds
        self._agents = [
            AsyncRoutedAgent.over(self._reader(k), self._agent, timeout=WITHIN)
            for k in range(PROGRAMS)
        ]

    def _reader(self, program: int) -> Callable[[], SlotTable]:
        return lambda: self._estate.files[program]

    def _agent(self, cluster: ClusterAddress) -> AsyncAgent:
        group = self._estate.groups[cluster.name]
        return cast("AsyncAgent", GroupAgent(self._estate, group, self._queue))

    async def sign_in(self, program: int) -> None:
        """Sign users in, as long as anything goes wrong."""
        estate, rng = self._estate, self._estate.rng
        while estate.is_faulty:
            await asyncio.sleep(rng.uniform(0.01, 0.6))
            if rng.random() < TOKENS:
                user = rng.choice(tuple(TOKEN_USERS))
                moment = estate.devices.some(user)
                await self._try(program, user, f"{TOKENCODE}{moment}")
                continue
            user = rng.choice(USERS)
            # Programs try the same codes at about the same time.
            done = (estate.timeline.now - self._began_s) / self._seconds
            progress = int(done * (CODES - RESERVED)) + rng.randint(-1, 2)
            number = estate.sets[user]
            if number > 1 and rng.random() < 0.2:
                # One that is not used, or one that an earlier state may not know as used.
                number -= 1
                progress += rng.choice([-3, -2, -1, 0, 8])
            ordinal = min(CODES - RESERVED, max(1, progress))
            await self._try(program, user, f"{number}/{ordinal}")

    async def _try(self, program: int, user: str, code: str) -> Decision | None:
        """Sign in, and retry now and then if the outcome is unknown."""
        estate, rules = self._estate, self._estate.rules
        request_id, cluster = estate.name("try"), ""
        until_s = estate.timeline.now + REPEATED_S
        while estate.timeline.now < until_s:
            try:
                answer = await self._agents[program].authenticate(
                    user, code, request_id=request_id, cluster=cluster
                )
            except OutcomeUnknown as error:
                rules.counts["unknown"] += 1
                if estate.rng.random() < 0.2:
                    return None
                await asyncio.sleep(estate.rng.choice([0.1, 1.0, 6.0]))
                if estate.rng.random() < 0.3:  # Another program goes on.
                    program = estate.rng.randrange(PROGRAMS)
                    cluster = error.cluster
            except (Unavailable, Refused):
                return None
            else:
                rules.on_answer(request_id, answer.decision)
                if answer.next_step and estate.is_faulty:
                    await self._go_on(program, user, answer)
                return answer.decision
        return None

    async def _go_on(self, program: int, user: str, first: Authentication) -> None:
        """Answer with the next passcode of the token, unless the person gives up."""
        estate, rules = self._estate, self._estate.rules
        await asyncio.sleep(PERIOD_S * estate.rng.choice([0.5, 1.0, 1.0, 2.0]))
        moment, request_id = estate.devices.next(user), estate.name("next")
        while estate.rng.random() < 0.8:
            try:
                answer = await self._agents[program].continue_authentication(
                    first, str(moment), request_id=request_id
                )
            except OutcomeUnknown:
                rules.counts["unknown"] += 1
                await asyncio.sleep(estate.rng.choice([0.1, 1.0, 6.0]))
            except (Unavailable, Refused):
                return
            else:
                rules.on_answer(request_id, answer.decision)
                return

    async def deploy(self) -> None:
        """Copy the slot table to the programs, late."""
        estate = self._estate
        while estate.is_faulty:
            await asyncio.sleep(estate.rng.uniform(0.1, 3.0))
            estate.files[estate.rng.randrange(PROGRAMS)] = estate.table

    async def help(self) -> None:
        """Resynchronize tokens whose position is lost, or whose clock seems to differ."""
        estate = self._estate
        while estate.is_faulty:
            await asyncio.sleep(estate.rng.uniform(0.5, 3.0))
            user = estate.rng.choice(tuple(TOKEN_USERS))
            await self._resynchronize(user)

    async def resynchronize_all(self) -> None:
        """Resynchronize the tokens that need it, once nothing goes wrong any more."""
        for user in TOKEN_USERS:
            await self._resynchronize(user)

    async def _resynchronize(self, user: str) -> None:
        estate = self._estate
        home = estate.groups[estate.table.owners[slot_of(user)]]
        token = home.token(user)
        if token is None or estate.devices.knows(token, user):
            return
        first = estate.devices.pair(user)
        try:
            await estate.step(home, partial(home.resynchronize, user, first))
        except (MoveRefusedError, RestoredError):
            return
        estate.rules.counts["resynchronized"] += 1

    async def do_without_each_group(self) -> None:
        """Without one cluster, its users wait; all others sign in."""
        estate = self._estate
        estate.files = [estate.table] * PROGRAMS
        await asyncio.sleep(LOOK_S)  # Every program has the newest table.
        # One passcode is enough again, and a clock can be learned.
        await asyncio.sleep(DOUBTED_S)
        await self.resynchronize_all()
        for k, lost in enumerate(estate.living):
            await asyncio.sleep(2 * PERIOD_S)  # Each token shows something new.
            lost.is_up = False
            for user in PEOPLE:
                home = estate.table.owners[slot_of(user)]
                if user in TOKEN_USERS:
                    code = f"{TOKENCODE}{estate.devices.next(user)}"
                else:
                    code = f"{estate.sets[user]}/{CODES - RESERVED + 1 + k}"
                decision = await self._try(k % PROGRAMS, user, code)
                if (decision is Decision.ACCEPTED) != (home != lost.name):
                    estate.rules.violated(
                        "a lost cluster stops its own users alone",
                        f"{user} of {home} without {lost.name}: {decision}",
                    )
            lost.is_up = True


def attempt_of(user: str, passcode: str) -> Try:
    """Return what a passcode of a user tries."""
    if passcode.startswith(TOKENCODE):
        return TokencodeTry(user, moment=int(passcode.removeprefix(TOKENCODE)))
    number, _, ordinal = passcode.partition("/")
    return Try(user, SetId(f"{user}.{number}"), int(ordinal))


def decide(
    estate: Estate, group: Group, wanted: Try, request_id: str
) -> Authentication:
    """Let a cluster decide an attempt, and compare its decision. Raises `NotHere`."""
    try:
        decided = group.decide(wanted, request_id)
    except NotHere as answer:
        if answer.moved:
            estate.rules.on_moved(group, request_id)
        raise
    estate.rules.on_decided(group, request_id, wanted, decided.decision, decided.index)
    sealed = b""
    if decided.challenge is not None:
        sealed = f"{group.moves.key.cluster_id} {request_id}".encode()
        estate.challenges[sealed] = decided.challenge, group.moves.key.cluster_id
    return Authentication(
        decision=Decision(decided.decision.value),
        authentication_id=request_id,
        challenge=sealed,
    )


class GroupAgent:
    """Asks one cluster, as `AsyncAgent` does: until an answer, or the deadline."""

    removed_nodes: frozenset[str] = frozenset()

    def __init__(self, estate: Estate, group: Group, queue: Queue) -> None:
        self._estate = estate
        self._group = group
        self._queue = queue

    async def authenticate(
        self,
        username: str,
        passcode: str,
        *,
        client_address: str,
        resource: str,
        request_id: str,
        within: timedelta,
    ) -> Authentication:
        del client_address, resource
        wanted = attempt_of(username, passcode)
        return await self._ask(wanted, request_id, within)

    async def continue_authentication(
        self,
        authentication: Authentication,
        next_tokencode: str,
        *,
        new_pin: str,
        request_id: str,
        within: timedelta,
    ) -> Authentication:
        assert not new_pin
        challenge, cluster_id = self._estate.challenges[authentication.challenge]
        wanted = NextTry(
            challenge.user_id,
            moment=int(next_tokencode),
            challenge=challenge,
            cluster_id=cluster_id,
        )
        self._estate.answers.append(wanted)
        return await self._ask(wanted, request_id, within)

    async def _ask(
        self, wanted: Try, request_id: str, within: timedelta
    ) -> Authentication:
        username = wanted.user
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + within.total_seconds()
        in_doubt, last = False, "UNREACHABLE"
        while loop.time() < deadline_s:
            decided = partial(decide, self._estate, self._group, wanted, request_id)
            self._queue.pass_on(self._group, username, request_id, decided)
            try:
                return await self._estate.ask(self._group, decided, slot_of(username))
            except NotHere as answer:
                if answer.moved:
                    raise Refused("SLOT_MOVED", "the slot has moved away") from None
                last = answer.reason
            except Lost as loss:
                in_doubt |= loss.sent
            await asyncio.sleep(0.3)
        error: SparecodeError = Unavailable(last, "no node could answer")
        if in_doubt:
            error = OutcomeUnknown(request_id, "the outcome is unknown")
        raise error

    async def close(self) -> None:
        """Do nothing: there is no connection."""
