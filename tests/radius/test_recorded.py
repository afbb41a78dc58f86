# SPDX-License-Identifier: Apache-2.0
"""Recorded packets that come again, as they were or changed (D2, D3)."""

import pytest
from pyrad.packet import AccessAccept, AccessReject

from sparecode_node.radius import packets
from sparecode_node.services.context import AgentCaller
from sparecode_node.services.load import rates
from sparecode_node.services.load.rates import Rates
from tests.radius.door import answered, request, update
from tests.radius.test_dialog import WRONG, challenge, with_state
from tests.services.one_node import PIN

pytestmark = pytest.mark.asyncio

FORGOTTEN_S = 6
"""A node has forgotten its answer, and looks it up in the state."""


@pytest.fixture
def counted_users(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the list that gets the user of each answer to a challenge that is counted."""
    users: list[str] = []

    def count(_rates: Rates, *, agent: str, user: str) -> None:
        assert agent
        users.append(user)

    monkeypatch.setattr(Rates, "next_step", count)
    return users


async def test_changed_answers_to_a_challenge_have_its_users_rate(door, counted_users):
    """(D2, L7) A rate of their own would tell the octets of an unsigned answer."""
    await update(door, allow_unsigned=True)
    sent = with_state(door, await challenge(door), "123456", signed=False)
    at = sent.index(b"\x02\x12", 20) + 2  # The octets of User-Password.
    for number, change in enumerate((0, 0x40, 0x80)):  # A digit, a letter, no UTF-8.
        changed = bytearray(sent)
        changed[1], changed[at] = number, changed[at] ^ change
        assert await answered(door, bytes(changed)) == AccessReject
    assert door.counted("unreadable") == 1
    assert len(counted_users) == 3
    assert counted_users == counted_users[:1] * 3
    assert counted_users[0]


async def test_copies_of_an_answer_to_a_challenge_have_no_users_rate(
    door, counted_users
):
    """(D3, L7) Anyone who has seen it can send it again."""
    sent = with_state(door, await challenge(door), "123456")
    assert await answered(door, sent) == AccessReject
    entries = len(door.node.replicator.entries)
    for _ in range(3):
        door.node.clock.pass_s(FORGOTTEN_S)
        assert await answered(door, sent) == AccessReject
    assert len(counted_users) == 1
    assert len(door.node.replicator.entries) == entries


async def test_copies_of_an_acceptance_have_a_rate_of_their_own(door):
    """(D3, L7) Each takes a hash and an entry, and keeps no other request out."""
    issued = await door.node.issue()
    first, second = (PIN + each.code for each in issued.codes[:2])
    sent = request(door.secret, password=first)
    assert await answered(door, sent) == AccessAccept
    agent = AgentCaller(identity="radius:vpn").key
    for _ in range(rates.COPIES_PER_S * rates.BURST_S):
        door.node.services.authentication._rates.copy(agent=agent)
    assert await door.silent(sent)
    assert door.counted("rate_limited") == 1
    assert await answered(door, request(door.secret, password=second)) == AccessAccept


async def test_what_a_packet_claims_adds_no_fact_to_the_audit_log(door):
    """(U1) The address that the packet came from is no claim."""
    station = b"192.0.2.1, resource RADIUS from 192.0.2.2; NAS x"
    claims = [(packets.CALLING_STATION_ID, station)]
    sent = request(door.secret, password=WRONG, attributes=claims)
    assert await answered(door, sent) == AccessReject
    ((detail,),) = door.node.primary_db.execute(
        "SELECT detail FROM audit_events WHERE detail LIKE '%192.0.2.2%'"
    ).fetchall()
    facts = [each for each in detail.split(", ") if each.startswith("resource ")]
    assert facts == ["resource RADIUS from 127.0.0.1"]
