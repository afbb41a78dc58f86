# SPDX-License-Identifier: Apache-2.0
"""A primary that is known here may lead no more when it is asked for something."""

import asyncio
import itertools
from collections.abc import Iterator
from typing import cast

import pytest

from sparecode_node.domain.ids import NodeId
from sparecode_node.domain.outcomes import Reason
from sparecode_node.replication.calls.membership_requests import MembershipRequests
from sparecode_node.replication.calls.primary_contact import PrimaryContact
from sparecode_node.replication.calls.quorum_wait import QuorumWait
from sparecode_node.replication.errors import (
    NoPrimaryError,
    NoQuorumError,
    OutcomeUnknownError,
    ProposeError,
)
from sparecode_node.replication.raft.membership_changes import (
    Change,
    Promote,
    refused,
)
from sparecode_node.replication.replica.engine_thread import EngineThread

pytestmark = pytest.mark.asyncio

ONE, TWO = NodeId("n1"), NodeId("n2")


class FormerPrimary:
    """An engine that leads no more."""

    def __init__(self, *answers: ProposeError) -> None:
        """*answers*: to changes of members, the last one again and again."""
        self.asked = 0
        self._answers = answers

    async def transfer(self, target: NodeId | None, *, timeout_s: float) -> NodeId:
        self.asked += 1
        raise NoPrimaryError(f"no hand-over to {target} in {timeout_s} s")

    async def change_members(self, change: Change, *, timeout_s: float) -> int:
        answer = self._answers[min(self.asked, len(self._answers) - 1)]
        self.asked += 1
        raise answer


def requests_of(
    former: FormerPrimary, known: Iterator[NodeId | None]
) -> MembershipRequests:
    """Return the requests of n1, which hears of one primary after the other."""

    async def news(deadline: float) -> bool:
        await asyncio.sleep(0)
        return asyncio.get_running_loop().time() < deadline

    return MembershipRequests(
        PrimaryContact(
            node_id=ONE,
            engine=cast("EngineThread", former),
            primary=lambda: next(known),
            channel=lambda _node_id: None,
            news=news,
            quorum_wait=QuorumWait(0.8),
        )
    )


async def test_a_hand_over_goes_on_with_the_primary_that_is_news() -> None:
    former = FormerPrimary()
    requests = requests_of(former, iter([ONE, TWO]))
    assert await requests.transfer(TWO, timeout_s=10.0) == TWO
    assert former.asked == 1


async def test_a_hand_over_ends_at_its_deadline() -> None:
    former = FormerPrimary()
    requests = requests_of(former, iter(lambda: ONE, None))
    with pytest.raises(NoPrimaryError):
        await requests.transfer(TWO, timeout_s=0.05)
    assert former.asked > 1


async def test_a_hand_over_does_not_wait_for_a_quorum_until_its_deadline() -> None:
    requests = requests_of(FormerPrimary(), itertools.repeat(None))
    async with asyncio.timeout(30):
        with pytest.raises(NoQuorumError):
            await requests.transfer(TWO, timeout_s=60.0)


LOST = OutcomeUnknownError("the primary lost its leadership")
NO_PRIMARY = NoPrimaryError("another node leads")
NOT_READY = refused("its journal has no name yet", Reason.MEMBER_NOT_READY)
REFUSED = refused("there are too many members", Reason.MEMBER_EXISTS)


@pytest.mark.parametrize("later", [NO_PRIMARY, NOT_READY, REFUSED])
async def test_a_change_that_may_be_made_is_not_called_not_applied_later(
    later: ProposeError,
) -> None:
    former = FormerPrimary(LOST, later)
    requests = requests_of(former, iter(lambda: ONE, None))
    with pytest.raises(OutcomeUnknownError, match=f"lost its leadership.*{later}"):
        await requests.change_members(Promote(TWO), timeout_s=0.05)
    assert former.asked > 1


async def test_a_primary_that_is_not_ready_is_asked_again_in_doubt() -> None:
    """It will be in a moment, and then its answer ends the doubt."""
    former = FormerPrimary(LOST, NOT_READY, NOT_READY, REFUSED)
    requests = requests_of(former, iter(lambda: ONE, None))
    with pytest.raises(OutcomeUnknownError, match="too many members"):
        await requests.change_members(Promote(TWO), timeout_s=60.0)
    assert former.asked == 4


@pytest.mark.parametrize(
    ("answer", "asked"), [(NO_PRIMARY, 2), (NOT_READY, 1), (REFUSED, 1)]
)
async def test_a_change_that_was_never_begun_is_called_not_applied(
    answer: ProposeError, asked: int
) -> None:
    former = FormerPrimary(answer)
    requests = requests_of(former, iter(lambda: ONE, None))
    with pytest.raises(type(answer), match=str(answer)):
        await requests.change_members(Promote(TWO), timeout_s=0.05)
    assert min(former.asked, 2) == asked
