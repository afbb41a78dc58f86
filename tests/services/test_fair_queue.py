# SPDX-License-Identifier: Apache-2.0
"""A queue that callers share, whatever the number of requests of each (L8)."""

import random

from sparecode_node.services.load.fair_queue import FairQueue, Group, Share

VPN = Share(group=Group.AGENTS, caller="vpn")
MAIL = Share(group=Group.AGENTS, caller="mail")
ROOT = Share(group=Group.ADMINISTRATORS, caller="root")
BOUND = 12


def stranger(number: int) -> Share:
    return Share(group=Group.STRANGERS, caller=f"192.0.2.{number}")


def filled(*waiting: tuple[Share, int]) -> FairQueue[str]:
    """Return a queue with a number of items of each, named after their caller."""
    queue: FairQueue[str] = FairQueue()
    for share, number in waiting:
        for n in range(number):
            queue.put(f"{share.caller} {n}", share, 1)
    return queue


def test_callers_take_turns() -> None:
    queue = filled((VPN, 3), (MAIL, 1))
    assert queue.clear() == ["vpn 0", "mail 0", "vpn 1", "vpn 2"]
    assert queue.waiting == 0


def test_groups_take_turns_whatever_the_number_of_callers() -> None:
    queue = filled((VPN, 2), *((stranger(n), 1) for n in range(20)), (ROOT, 1))
    first = queue.clear()[:6]
    assert {"vpn 0", "root 0", "vpn 1"} <= set(first)


def test_the_newest_of_the_busiest_gives_way() -> None:
    queue = filled((VPN, 10), (MAIL, 2))
    assert queue.displaced(MAIL, 3, 0) == ["vpn 9", "vpn 8", "vpn 7"]
    assert queue.displaced(VPN, 1, 0) is None
    assert queue.displaced(VPN, 1, 1) == []


def test_strangers_displace_no_agent_that_has_less() -> None:
    """Each of many addresses has one request, and so had the least."""
    queue = filled(*((stranger(n), 1) for n in range(8)), (VPN, 4))
    assert queue.displaced(stranger(8), 1, 0) is None
    displaced = queue.displaced(MAIL, 1, 0)
    assert displaced is not None
    assert displaced[0].startswith("192.0.2.")


def test_one_who_sends_little_is_never_displaced_by_one_who_sends_much() -> None:
    dice = random.Random(1)
    queue: FairQueue[int] = FairQueue()
    shares: dict[int, Share] = {}
    for number in range(2000):
        if dice.random() < 0.3:
            queue.take()
        share = dice.choices([VPN, MAIL], [20, 1])[0]
        displaced = queue.displaced(share, 1, BOUND - queue.waiting)
        if displaced is None:
            assert share is VPN
            continue
        for item in displaced:
            queue.remove(item)
            assert shares[item] is VPN
        shares[number] = share
        queue.put(number, share, 1)
        assert queue.waiting <= BOUND
    assert queue.waiting == len(queue.clear())


def test_what_was_removed_is_not_taken() -> None:
    queue = filled((VPN, 2), (MAIL, 1))
    queue.remove("vpn 0")
    queue.remove("vpn 0")
    queue.remove("mail 0")
    assert queue.clear() == ["vpn 1"]
    assert queue.take() is None
