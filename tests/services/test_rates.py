# SPDX-License-Identifier: Apache-2.0
"""Token buckets in front of the KDF: bounded, fair, and never a lock (L7, I12)."""

import dataclasses
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from sparecode_node.services.context import Anonymous, CallContext
from sparecode_node.services.errors import RateError, Refused
from sparecode_node.services.load.rates import BURST_S, RateLimits, TokenBuckets
from sparecode_node.services.secrets.kdf import Lane
from tests.services.one_node import (
    PASSWORD,
    PIN,
    ROOT,
    UNLIMITED,
    VPN,
    OneNode,
    one_node,
)
from tests.services.two_replicas import FakeClock

SECRET = bytes(16)


def buckets(clock: FakeClock, per_s: int = 2, cells: int = 2**15) -> TokenBuckets:
    return TokenBuckets(per_s=per_s, clock=clock, secret=SECRET, cells=cells)


def test_a_bucket_empties_and_fills_at_its_rate() -> None:
    """(L7) A burst, then the rate; the hint is when the next one fits, not later."""
    clock = FakeClock()
    bucket = buckets(clock)
    assert [bucket.take("a") for _ in range(2 * BURST_S)] == [0] * 2 * BURST_S
    assert bucket.take("a") == pytest.approx(0.5)
    assert bucket.take("a") == pytest.approx(
        0.5
    )  # A refused call takes nothing from the bucket.
    clock.pass_s(0.5)
    assert bucket.take("a") == 0
    assert bucket.take("a") == pytest.approx(0.5)
    clock.pass_s(3600)
    assert sum(bucket.take("a") == 0 for _ in range(100)) == 2 * BURST_S


def test_what_costs_more_waits_longer() -> None:
    clock = FakeClock()
    bucket = buckets(clock)
    assert bucket.take("a", cost=15) == 0
    assert bucket.take("a", cost=10) == pytest.approx(2.5)
    assert bucket.take("a", cost=5) == 0
    clock.pass_s(BURST_S)
    assert bucket.take("a", cost=10**6) == 0  # A full bucket is enough for anything.
    assert bucket.take("a") > 0


def test_a_flood_of_keys_takes_no_memory_and_no_other_bucket() -> None:
    """(L7) No key is evicted, and hardly any is held to another's rate."""
    clock = FakeClock()
    bucket = buckets(clock, per_s=1)
    while not bucket.take("victim"):
        pass
    size = sum(len(row) for row in bucket._rows)
    for number in range(5_000):
        bucket.take(f"flood {number}")
    assert sum(len(row) for row in bucket._rows) == size
    assert bucket.take("victim") > 0
    for _ in range(BURST_S):
        for number in range(100):
            bucket.take(f"hot {number}")
    fresh = sum(bucket.take(f"fresh {number}") == 0 for number in range(1_000))
    assert fresh == 1_000


def test_keys_that_share_a_cell_are_told_apart_by_the_other_row() -> None:
    clock = FakeClock()
    bucket = buckets(clock, per_s=1, cells=8)
    first = bucket._indexes("a")
    other = next(
        key
        for key in map(str, range(1_000))
        if (bucket._indexes(key)[0] == first[0])
        != (bucket._indexes(key)[1] == first[1])
    )
    while not bucket.take("a"):
        pass
    assert bucket.take(other) == 0


# --- Through the use cases


@pytest_asyncio.fixture
async def slow(
    tmp_path: Path, request: pytest.FixtureRequest
) -> AsyncIterator[OneNode]:
    """Start a node with one rate of 1 a second."""
    limits = dataclasses.replace(UNLIMITED, **{request.param: 1})
    async with one_node(tmp_path, limits) as node:
        await node.register_agent()
        await node.add_user()
        yield node


def only(limit: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("slow", [limit], indirect=True)


async def until_refused(node: OneNode, **arguments: object) -> tuple[int, float]:
    """Try until the rate is used up; return the number of tries and the hint."""
    for tries in range(50):
        try:
            await node.accepts("00000000", **arguments)
        except RateError as error:
            return tries, error.retry_after_s
    raise AssertionError("no rate at all")


@pytest.mark.asyncio
@only("agent")
async def test_an_agent_has_a_rate(slow: OneNode) -> None:
    """(L7) It does not hold up another agent's certificate."""
    tries, hint_s = await until_refused(slow)
    assert (tries, hint_s) == (BURST_S, pytest.approx(1.0))
    other = type(VPN)("spiffe://example/mail")
    await slow.register_agent(other)
    assert not await slow.accepts("00000000", identity=other)
    slow.clock.pass_s(1)
    assert not await slow.accepts("00000000")


@pytest.mark.asyncio
@only("user")
async def test_a_username_has_a_rate_whether_it_exists_or_not(slow: OneNode) -> None:
    """(L7, A6) Known and unknown names are shed alike, and neither is locked."""
    known = await until_refused(slow)
    unknown = await until_refused(slow, username="nobody")
    assert known == unknown
    await slow.add_user("bob", serial="2", seed=b"another seed of 20 b")
    assert await slow.accepts(
        PIN + slow.tokencode(seed=b"another seed of 20 b"), username="bob"
    )


@pytest.mark.asyncio
@only("client_address")
async def test_a_client_address_has_a_rate(slow: OneNode) -> None:
    """(L7) Over all names. Attempts without an address have none."""
    for number in range(BURST_S):
        await slow.accepts("00000000", username=f"name {number}")
    with pytest.raises(RateError):
        await slow.accepts("00000000", username="another")
    await slow.authentication.authenticate(
        slow.agent(), username="x", passcode="0", client_address="", resource=""
    )


@pytest.mark.asyncio
@only("user")
async def test_shed_attempts_are_neither_hashed_nor_proposed(slow: OneNode) -> None:
    """(L7) They cost no hash and no commit, and charge no user."""
    await until_refused(slow)
    hashed, entries = slow.kdf.evaluations(), len(slow.replicator.entries)
    with pytest.raises(RateError):
        await slow.accepts("00000000")
    assert (slow.kdf.evaluations(), len(slow.replicator.entries)) == (hashed, entries)


@pytest.mark.asyncio
@only("sign_in")
async def test_an_administrator_waits_and_is_never_locked_out(slow: OneNode) -> None:
    """(L7) After any number of wrong passwords."""
    refused = 0
    for _ in range(30):
        try:
            await slow.login(password="wrong password")
        except Refused:
            refused += 1
        except RateError:
            break
    assert refused == BURST_S - 1  # The node's first sign-in was the tenth.
    hashed = slow.kdf.evaluations(Lane.AUTHENTICATING)
    with pytest.raises(RateError):
        await slow.login(name=ROOT.upper(), password=PASSWORD)
    assert slow.kdf.evaluations(Lane.AUTHENTICATING) == hashed
    slow.clock.pass_s(60)
    await slow.login(password=PASSWORD)


@pytest.mark.asyncio
@only("peer")
async def test_an_address_tries_passwords_at_a_rate(slow: OneNode) -> None:
    """(L7) Over all names, against spraying passwords over administrators."""
    anonymous = CallContext(
        caller=Anonymous(),
        request_id="",
        method="SessionService/Login",
        deadline_s=10,
        peer="ipv4:192.0.2.9",
    )

    async def spray(name: str) -> None:
        context = dataclasses.replace(anonymous, request_id=str(uuid.uuid4()))
        await slow.sessions.login(context, administrator=name, password="Summer2026!")

    for number in range(BURST_S):
        with pytest.raises(Refused):
            await spray(f"name {number}")
    with pytest.raises(RateError):
        await spray("another")
    await slow.login()


@pytest.mark.asyncio
@only("codes")
async def test_an_administrator_issues_at_a_rate(slow: OneNode) -> None:
    """(I12) By the number of codes; a refusal says when to continue."""
    assert len((await slow.issue(count=8)).codes) == 8
    with pytest.raises(RateError) as raised:
        await slow.issue(count=5)
    assert raised.value.retry_after_s == pytest.approx(3.0)
    slow.clock.pass_s(3)
    assert len((await slow.issue(count=5)).codes) == 5


def test_the_defaults_are_for_people_not_for_programs() -> None:
    """Few tries for a user or a person's passwords, many for an agent."""
    limits = RateLimits()
    assert limits.sign_in < limits.user < limits.client_address < limits.agent
