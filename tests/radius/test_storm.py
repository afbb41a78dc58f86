# SPDX-License-Identifier: Apache-2.0
"""A storm of retransmissions: each request three times, over two nodes (D3)."""

import asyncio

import pytest
from pyrad.packet import AccessAccept, AccessReject

from sparecode_node.services.secrets.kdf import Lane
from tests.radius.door import Door, answered, give_attributes, open_door, request
from tests.services.one_node import PIN

pytestmark = pytest.mark.asyncio

REQUESTS = 24
WORK_MAX = 1.3


def mixed(door: Door, codes: list[str]) -> list[bytes]:
    """Return requests with right and wrong passcodes in turn."""
    return [
        request(
            door.secret,
            *(("alice", PIN + code) if n % 2 else (f"user-{n}", "1" * 10)),
            identifier=n,
        )
        for n, code in enumerate(codes)
    ]


def work(door: Door) -> tuple[int, int]:
    """Return how many hashes were computed, and how many requests committed."""
    (events,) = door.node.primary_db.execute(
        "SELECT count(*) FROM audit_events WHERE action = 'Authenticate'"
    ).fetchone()
    return door.node.kdf.evaluations(Lane.AUTHENTICATING), int(events)


async def test_a_storm_costs_little_more_than_its_requests(door):
    """
    (D3, Q2) Twice to one node, and once to another: no verdict changes.

    The first half comes once, the other half three times; both take the same work,
    but for a third of it.
    """
    issued = await door.node.issue(count=REQUESTS)
    sent = mixed(door, [each.code for each in issued.codes])
    half = REQUESTS // 2
    before = work(door)
    calm = [await answered(door, each) for each in sent[:half]]
    between = work(door)
    async with open_door(door.node) as other:
        other.secret = door.secret
        for packet in sent[half:]:
            answers = [await answered(each, packet) for each in (door, door, other)]
            assert len({*answers}) == 1
            calm.append(answers[0])
    after = work(door)
    assert calm == [AccessReject, AccessAccept] * half
    for first, second, third in zip(before, between, after, strict=True):
        assert third - second <= WORK_MAX * (second - first)


async def test_a_storm_at_once_changes_no_verdict(door):
    """(D3) All copies at the same time, at both nodes."""
    issued = await door.node.issue(count=8)
    sent = mixed(door, [each.code for each in issued.codes])
    async with open_door(door.node) as other:
        other.secret = door.secret

        async def storm(packet: bytes) -> set[int]:
            copies = await asyncio.gather(
                *(each.send(packet, packet) for each in (door, other)),
            )
            return {each[0] for each in copies if each}

        results = await asyncio.gather(*map(storm, sent))
    assert results == [{AccessReject}, {AccessAccept}] * 4
    (spent,) = door.node.primary_db.execute(
        "SELECT count(*) FROM audit_events WHERE action = 'Authenticate' "
        "AND outcome = 'accepted'"
    ).fetchone()
    assert spent == 4


@pytest.mark.parametrize("change", ["user", "agent", "list", "secret"])
async def test_a_copy_of_an_acceptance_is_refused_once_it_no_longer_stands(
    door, change
):
    """(Q2) On a node that has the decision already."""
    node = door.node
    issued = await node.issue()
    sent = request(door.secret, password=PIN + issued.codes[0].code)
    assert await answered(door, sent) == AccessAccept
    assert await answered(door, sent) == AccessAccept
    if change == "user":
        await node.users.update(
            node.admin("UserService/UpdateUser"), username="alice", enabled=False
        )
    elif change == "secret":
        await node.radius_clients.rotate_secret(
            node.admin("AgentService/RotateRadiusSecret"), name="vpn", overlap_ms=0
        )
    else:
        await node.agents.update(
            node.admin("AgentService/UpdateAgent"),
            name="vpn",
            **({"enabled": False} if change == "agent" else {"restricted": True}),
        )
    node.clock.pass_s(6)
    assert await answered(door, sent) == AccessReject


async def test_a_copy_of_an_acceptance_takes_no_hash(door):
    """(D3) Anyone who saw the packet can send it again."""
    await give_attributes(door, filter_id="staff")
    issued = await door.node.issue()
    sent = request(door.secret, password=PIN + issued.codes[0].code)
    assert await answered(door, sent) == AccessAccept
    before = work(door)
    for _ in range(5):
        assert await answered(door, sent) == AccessAccept
    assert work(door) == before
