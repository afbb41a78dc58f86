# SPDX-License-Identifier: Apache-2.0
"""The next step of a passcode, on a cluster of three: begun on one node, ended on another."""

import asyncio
import itertools
from base64 import b32encode

import pyotp
import pytest
from local_cluster.cluster import LocalCluster

from sparecode_client import (
    Authentication,
    Decision,
    InvalidArgument,
    NewToken,
    TokenAlgorithm,
)
from tests.system.estate import PIN, Estate, each

USERS = 30
TRIES = 30
NEW_PIN = "314271"


def seed_of(name: str) -> bytes:
    """Return the seed of a user's token: no two have the same (K5)."""
    return name.encode().ljust(20, b".")


def shown(name: str, counter: int) -> str:
    """Return the tokencode of a user's token."""
    hotp = pyotp.HOTP(b32encode(seed_of(name)).decode())
    return str(hotp.at(counter))


async def add(estate: Estate, name: str, *, pin: str) -> str:
    """Add a user with a counter token and no PIN yet."""
    serial = f"serial-{name}"
    await estate.admin.create_user(name)
    await estate.admin.enroll_token(
        NewToken(serial=serial, seed=seed_of(name), algorithm=TokenAlgorithm.HOTP)
    )
    await estate.admin.assign_token(serial, name)
    if pin:
        await estate.admin.set_pin(serial, pin)
    return serial


@pytest.mark.asyncio
@pytest.mark.timeout(300)
async def test_a_challenge_of_one_node_is_answered_on_another_exactly_once(
    cluster: LocalCluster,
) -> None:
    """
    Thirty users without a PIN; each challenge is answered thirty times at once.

    Over all nodes, with thirty request ids and as many new PINs: one answer of each is
    accepted, its PIN is the user's on every node, and no one is charged for the other
    29 (K2, K3, A5). The winner's request id gets the same answer on the others.
    """
    async with Estate(cluster) as estate:
        agents = list(estate.agents.values())

        async def race(number: int) -> None:
            name = f"chooser-{number:02}"
            await add(estate, name, pin="")
            response = await agents[number % 3].authenticate(name, shown(name, 0))
            assert response.decision is Decision.NEW_PIN_REQUIRED
            pins = [str(739_180 + tried) for tried in range(TRIES)]
            ids = [f"00000000-0000-4000-8000-{number:06}{n:06}" for n in range(TRIES)]

            async def answer(tried: int) -> Authentication:
                return await agents[(number + 1 + tried) % 3].continue_authentication(
                    response, shown(name, 1), new_pin=pins[tried], request_id=ids[tried]
                )

            answers = await asyncio.gather(*map(answer, range(TRIES)))
            winners = [n for n, got in enumerate(answers) if got.accepted]
            assert len(winners) == 1
            again = await agents[number % 3].continue_authentication(
                response,
                shown(name, 1),
                new_pin=pins[winners[0]],
                request_id=ids[winners[0]],
            )
            assert again == answers[winners[0]]
            user = await estate.admin.get_user(name)
            assert (user.token_failures, user.locked) == (0, False)
            signed_in = [
                (await agent.authenticate(name, pins[winners[0]] + shown(name, 2 + n)))
                for n, agent in enumerate(agents)
            ]
            assert [got.accepted for got in signed_in] == [True] * 3

        await each(range(USERS), race, at_once=3)
        assert await estate.until_equal()


@pytest.mark.asyncio
@pytest.mark.timeout(300)
async def test_the_next_tokencode_is_asked_for_by_any_node(
    cluster: LocalCluster,
) -> None:
    """
    Wrong passcodes on three nodes count together; the third makes two tokencodes needed.

    The challenge is of no use to another user's tokencode, nor after the user has
    changed; a wrong answer is charged on every node (K1, K3, L).
    """
    async with Estate(cluster) as estate:
        agents = list(estate.agents.values())
        serial = await add(estate, "guessed", pin=PIN)
        wrong = "1111" + shown("guessed", 0)
        for _ in range(3):
            await until_charged(estate, "guessed", wrong)

        async def sign_in(passcode: str) -> Authentication:
            """Retry a right passcode until the wait after the last failure is over."""
            async with asyncio.timeout(60):
                for agent in itertools.cycle(agents):
                    answer = await agent.authenticate("guessed", passcode)
                    if answer.decision is not Decision.REFUSED:
                        return answer
            raise AssertionError

        first = await sign_in(PIN + shown("guessed", 0))
        assert first.decision is Decision.NEXT_TOKENCODE_REQUIRED
        with pytest.raises(InvalidArgument, match="must be empty"):
            await agents[0].continue_authentication(
                first, shown("guessed", 1), new_pin=NEW_PIN
            )
        refused = await agents[1].continue_authentication(first, shown("guessed", 5))
        assert refused.decision is Decision.REFUSED
        assert (await estate.admin.get_user("guessed")).token_failures == 4

        second = await sign_in(
            PIN + shown("guessed", 50)
        )  # Far ahead; the next one proves it.
        assert second.decision is Decision.NEXT_TOKENCODE_REQUIRED
        accepted = await agents[2].continue_authentication(second, shown("guessed", 51))
        assert accepted.accepted
        assert (
            await agents[0].authenticate("guessed", PIN + shown("guessed", 52))
        ).accepted

        await estate.admin.clear_pin(serial)
        third = await sign_in(shown("guessed", 53))
        assert third.decision is Decision.NEW_PIN_REQUIRED
        await estate.admin.set_pin(serial, PIN)
        stale = await agents[1].continue_authentication(
            third, shown("guessed", 54), new_pin=NEW_PIN
        )
        assert stale.decision is Decision.REFUSED
        token = await estate.admin.get_token(serial)
        assert token.pin_set
        assert (
            await agents[0].authenticate("guessed", PIN + shown("guessed", 55))
        ).accepted
        assert await estate.until_equal()


async def until_charged(estate: Estate, name: str, passcode: str) -> None:
    """Try a wrong passcode, through the waits, until one more failure is counted."""
    before = (await estate.admin.get_user(name)).token_failures
    async with asyncio.timeout(60):
        for agent in itertools.cycle(estate.agents.values()):
            await agent.authenticate(name, passcode)
            if (await estate.admin.get_user(name)).token_failures > before:
                return
