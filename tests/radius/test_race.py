# SPDX-License-Identifier: Apache-2.0
"""One code in many packets, each at three listeners, and over gRPC (D3, I7)."""

import asyncio
from contextlib import AsyncExitStack

import pytest
from pyrad.packet import AccessAccept, AccessReject

from tests.radius.door import Door, answered, open_door, request
from tests.services.one_node import PIN

pytestmark = pytest.mark.asyncio

CODES = 12
PACKETS = 3


async def test_a_code_is_accepted_in_one_packet_wherever_its_copies_come(door):
    """
    Each listener has a memory of its own, as another node has.

    Every copy of the accepted packet is accepted, and no other packet or call is.
    """
    await door.node.register_agent()
    issued = await door.node.issue(count=CODES)
    async with AsyncExitStack() as cleanup:
        doors = [door]
        for _ in range(2):
            doors.append(await cleanup.enter_async_context(open_door(door.node)))
            doors[-1].secret = door.secret
        for each in issued.codes:
            by_grpc, decisions = await race(doors, each.code)
            assert all(len(each) == 1 for each in decisions), decisions
            assert decisions.count({AccessAccept}) + by_grpc == 1
            assert decisions.count({AccessReject}) + (not by_grpc) == PACKETS


async def race(doors: list[Door], code: str) -> tuple[bool, list[set[int]]]:
    """
    Send packets with one code to every listener, and the code over gRPC, at once.

    Return whether gRPC accepted it, and the answers to the copies of each packet.
    """
    node, passcode = doors[0].node, PIN + code
    packets = [request(doors[0].secret, password=passcode) for _ in range(PACKETS)]
    by_grpc, *codes = await asyncio.gather(
        node.accepts(passcode),
        *(answered(each, packet) for packet in packets for each in doors),
    )
    copies = len(doors)
    return by_grpc, [
        set(codes[at : at + copies]) for at in range(0, len(codes), copies)
    ]
