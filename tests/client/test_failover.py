# SPDX-License-Identifier: Apache-2.0
"""A call over several nodes: which nodes it tries, and what is known at the end."""

import socket
from collections.abc import Callable
from datetime import timedelta

import grpc
import pytest

from sparecode.v1 import types_pb2, users_pb2
from sparecode_client import (
    AsyncAdmin,
    Commit,
    NotSignedIn,
    OutcomeUnknown,
    Overloaded,
    Refused,
    Unavailable,
)
from sparecode_client.connection.attempts import Attempts, Deadline
from sparecode_client.connection.client import Client, Stubs
from sparecode_client.connection.statuses import Status
from tests.client.conftest import Waits
from tests.client.fakes import (
    NO_QUORUM,
    NO_QUORUM_FOR_LONG,
    OUTCOME_UNKNOWN,
    Failure,
    FakeNode,
)

LATE_S = 30
"""A busy machine may notice the deadline this late. Without it, a call never ends."""
CREATE = "UserService/CreateUser"
GET = "UserService/GetUser"
CREATED = users_pb2.CreateUserResponse(commit=types_pb2.Commit(node_id="n2", index=42))
COMMIT = Commit(node_id="n2", index=42)
OVERLOADED = Failure(
    grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED", "try later", retry_after_s=0.7
)

REMOVED = Failure(grpc.StatusCode.UNAVAILABLE, "REMOVED", "this node was removed")

pytestmark = pytest.mark.asyncio

Connect = Callable[..., Client]


def ids(*nodes: FakeNode) -> set[str]:
    return {request.request_id for node in nodes for request in node.requests(CREATE)}


async def test_call_goes_to_the_next_node_when_one_is_down(
    connect: Connect,
    nodes: list[FakeNode],
    waits: Waits,
    closed_address: Callable[[], str],
) -> None:
    nodes[0].answer(CREATE, CREATED)
    admin = AsyncAdmin.over(connect(closed_address(), nodes[0].address))

    assert await admin.create_user("alice") == COMMIT
    assert waits == [0]


async def test_last_good_node_is_called_first(
    connect: Connect, nodes: list[FakeNode]
) -> None:
    nodes[0].answer(CREATE, NO_QUORUM)
    nodes[1].answer(CREATE, CREATED)
    admin = AsyncAdmin.over(connect(nodes[0].address, nodes[1].address))

    await admin.create_user("alice")
    await admin.create_user("bob")

    assert len(nodes[0].requests(CREATE)) == 1
    assert len(nodes[1].requests(CREATE)) == 2


async def test_removed_node_is_not_called_again(
    connect: Connect, nodes: list[FakeNode], waits: Waits
) -> None:
    nodes[0].answer(CREATE, REMOVED)
    nodes[1].answer(CREATE, NO_QUORUM, CREATED)
    admin = AsyncAdmin.over(connect(nodes[0].address, nodes[1].address))

    assert await admin.create_user("alice") == COMMIT
    assert len(nodes[0].requests(CREATE)) == 1
    assert admin.removed_nodes == {nodes[0].address}


async def test_call_to_removed_nodes_alone_ends_at_once(
    connect: Connect, nodes: list[FakeNode], waits: Waits
) -> None:
    for node in nodes[:2]:
        node.answer(CREATE, REMOVED)
    admin = AsyncAdmin.over(connect(nodes[0].address, nodes[1].address))

    with pytest.raises(Unavailable) as caught:
        await admin.create_user("alice")
    assert caught.value.reason == "REMOVED"
    assert waits == [0]


async def test_what_keeps_the_members_from_answering_is_told_first(
    connect: Connect, nodes: list[FakeNode]
) -> None:
    nodes[0].answer(CREATE, REMOVED)
    nodes[1].answer(CREATE, NO_QUORUM_FOR_LONG)
    admin = AsyncAdmin.over(connect(nodes[0].address, nodes[1].address))

    with pytest.raises(Unavailable) as caught:
        await admin.create_user("alice")
    assert caught.value.reason == "NO_QUORUM"


async def test_call_ends_when_no_node_has_a_quorum_for_two_rounds(
    connect: Connect,
    nodes: list[FakeNode],
    waits: Waits,
    closed_address: Callable[[], str],
) -> None:
    """An election is over by then: the caller hears it now, not at the deadline."""
    nodes[0].answer(CREATE, NO_QUORUM)
    down = closed_address()
    admin = AsyncAdmin.over(connect(nodes[0].address, down, timeout_s=600))

    with pytest.raises(Unavailable) as caught:
        await admin.create_user("alice")
    assert caught.value.reason == "NO_QUORUM"
    assert len(nodes[0].requests(CREATE)) == 2
    assert [wait > 0 for wait in waits] == [False, True, False]


async def test_call_goes_on_during_an_election(
    connect: Connect, nodes: list[FakeNode]
) -> None:
    election = Failure(grpc.StatusCode.UNAVAILABLE, "NO_PRIMARY")
    nodes[0].answer(CREATE, NO_QUORUM)
    nodes[1].answer(CREATE, NO_QUORUM, election, NO_QUORUM, CREATED)
    admin = AsyncAdmin.over(connect(nodes[0].address, nodes[1].address, timeout_s=600))

    assert await admin.create_user("alice") == COMMIT


async def test_call_that_was_perhaps_applied_goes_on_without_a_quorum(
    connect: Connect, nodes: list[FakeNode]
) -> None:
    """(A7) Only an answer to a later try tells what was done."""
    nodes[0].answer(CREATE, OUTCOME_UNKNOWN, NO_QUORUM)
    nodes[1].answer(CREATE, *[NO_QUORUM] * 5, CREATED)
    admin = AsyncAdmin.over(connect(nodes[0].address, nodes[1].address, timeout_s=600))

    assert await admin.create_user("alice") == COMMIT


async def test_call_goes_on_while_all_nodes_are_only_unreachable(
    connect: Connect,
    start_node: Callable[..., FakeNode],
    waits: Waits,
    closed_address: Callable[[], str],
) -> None:
    """Nodes that start again are awaited until the deadline."""
    down = closed_address()
    admin = AsyncAdmin.over(connect(down, timeout_s=2))

    with pytest.raises(Unavailable):
        await admin.create_user("alice")
    assert len(waits) > 2


async def test_nothing_is_sent_without_a_connection(
    connect: Connect, closed_address: Callable[[], str]
) -> None:
    """(A7) A request that waits for a connection would leave its caller in doubt."""
    sent: list[Stubs] = []

    def create(stubs: Stubs) -> grpc.aio.UnaryUnaryMultiCallable:
        sent.append(stubs)
        return stubs.users.CreateUser

    client = connect(closed_address(), timeout_s=0.5)
    with pytest.raises(Unavailable):
        await client.unary(create, users_pb2.CreateUserRequest(request_id="r1"))
    assert sent == []


async def test_every_try_carries_the_same_request_id(
    connect: Connect, nodes: list[FakeNode], waits: Waits
) -> None:
    """(Q1) Two rounds over three nodes, with a wait only after each round."""
    nodes[0].answer(CREATE, NO_QUORUM)
    nodes[1].answer(CREATE, OUTCOME_UNKNOWN, CREATED)
    nodes[2].answer(CREATE, Failure(grpc.StatusCode.UNAVAILABLE, "NO_PRIMARY"))
    admin = AsyncAdmin.over(connect(*(node.address for node in nodes)))

    assert await admin.create_user("alice") == COMMIT
    assert sum(len(node.requests(CREATE)) for node in nodes) == 5
    assert len(ids(*nodes)) == 1
    assert [wait > 0 for wait in waits] == [False, False, True, False]


async def test_two_calls_have_two_request_ids(
    connect: Connect, nodes: list[FakeNode]
) -> None:
    nodes[0].answer(CREATE, CREATED)
    admin = AsyncAdmin.over(connect(nodes[0].address))

    await admin.create_user("alice")
    await admin.create_user("alice")

    assert len(ids(nodes[0])) == 2


async def test_backoff_respects_the_delay_of_the_node(
    connect: Connect, nodes: list[FakeNode], waits: Waits
) -> None:
    """(Q3) After RESOURCE_EXHAUSTED, the wait is the node's, plus some jitter."""
    nodes[0].answer(CREATE, OVERLOADED, OVERLOADED, CREATED)
    admin = AsyncAdmin.over(connect(nodes[0].address, nodes[1].address))
    nodes[1].answer(CREATE, OVERLOADED)

    assert await admin.create_user("alice") == COMMIT
    assert [0.7 <= wait <= 1.7 for wait in waits] == [True] * len(waits)
    assert len(ids(*nodes)) == 1


async def test_overload_beyond_the_deadline_is_reported_at_once(
    connect: Connect, nodes: list[FakeNode], waits: Waits
) -> None:
    nodes[0].answer(
        CREATE,
        Failure(grpc.StatusCode.RESOURCE_EXHAUSTED, "RATE", "slow", retry_after_s=60),
    )
    admin = AsyncAdmin.over(connect(nodes[0].address))

    with pytest.raises(Overloaded) as caught:
        await admin.create_user("alice")

    assert caught.value.retry_after_s == 60
    assert caught.value.reason == "RATE"
    assert waits == []


async def test_refusal_is_not_retried(connect: Connect, nodes: list[FakeNode]) -> None:
    nodes[0].answer(
        CREATE, Failure(grpc.StatusCode.FAILED_PRECONDITION, "USER_DISABLED", "no")
    )
    admin = AsyncAdmin.over(connect(nodes[0].address, nodes[1].address))

    with pytest.raises(Refused):
        await admin.create_user("alice")

    assert len(nodes[0].calls) == 1
    assert nodes[1].calls == []


async def test_paused_node_does_not_use_up_the_deadline(
    connect: Connect, nodes: list[FakeNode]
) -> None:
    """The first node accepts the request and never answers; the second answers."""
    nodes[0].never_answer(CREATE)
    nodes[1].answer(CREATE, CREATED)
    client = connect(nodes[0].address, nodes[1].address, try_timeout_s=0.05)

    assert await AsyncAdmin.over(client).create_user("alice") == COMMIT
    assert len(ids(*nodes)) == 1


async def test_node_learns_the_deadline_of_the_call(
    connect: Connect, nodes: list[FakeNode]
) -> None:
    """With other nodes it gets part of the time; alone, all of it."""
    nodes[0].answer(CREATE, CREATED)
    nodes[1].answer(CREATE, CREATED)

    await AsyncAdmin.over(
        connect(nodes[0].address, nodes[1].address, timeout_s=60, try_timeout_s=2)
    ).create_user("alice")
    await AsyncAdmin.over(connect(nodes[1].address, timeout_s=60)).create_user("bob")

    # On its way gRPC rounds up.
    assert 0 < nodes[0].calls[0].time_remaining_s < 3
    assert 50 < nodes[1].calls[0].time_remaining_s < 61


async def test_deadline_holds_when_no_node_answers(
    connect: Connect, nodes: list[FakeNode]
) -> None:
    """(A7) A node may have applied it: only the same request id can tell."""
    nodes[0].never_answer(CREATE)
    nodes[1].never_answer(CREATE)
    client = connect(nodes[0].address, nodes[1].address, try_timeout_s=0.1)
    within = timedelta(seconds=2)
    deadline = client.deadline(within)

    with pytest.raises(OutcomeUnknown) as caught:
        await AsyncAdmin.over(client).create_user("alice", within=within)

    assert -LATE_S < deadline.remaining_s() < 0.03
    assert ids(nodes[0], nodes[1]) == {caught.value.request_id}
    assert "in time" in caught.value.words


async def test_deadline_holds_for_a_node_that_accepts_connections_only(
    connect: Connect,
) -> None:
    """Nothing was sent, so the caller learns that nothing was applied."""
    with socket.create_server(("127.0.0.1", 0)) as mute:
        host, port = mute.getsockname()
        client = connect(f"{host}:{port}")
        deadline = client.deadline(timedelta(seconds=0.1))

        with pytest.raises(Unavailable) as caught:
            await AsyncAdmin.over(client).create_user(
                "alice", within=timedelta(seconds=0.1)
            )

    assert -LATE_S < deadline.remaining_s() < 0.03
    assert caught.value.reason == "UNREACHABLE"


async def test_outcome_stays_unknown_after_other_answers(
    connect: Connect, nodes: list[FakeNode]
) -> None:
    """(A7) One node perhaps applied it. A second node without a quorum settles nothing."""
    nodes[0].answer(CREATE, OUTCOME_UNKNOWN, NO_QUORUM)
    nodes[1].answer(CREATE, NO_QUORUM, NO_QUORUM_FOR_LONG)
    client = connect(nodes[0].address, nodes[1].address)

    with pytest.raises(OutcomeUnknown) as caught:
        await AsyncAdmin.over(client).create_user("alice")

    assert ids(*nodes) == {caught.value.request_id}
    assert f"{nodes[0].address}: {OUTCOME_UNKNOWN.words}" in caught.value.words


async def test_outcome_stays_unknown_when_the_session_has_ended_since(
    connect: Connect, nodes: list[FakeNode]
) -> None:
    nodes[0].answer(CREATE, OUTCOME_UNKNOWN)
    nodes[1].answer(
        CREATE, Failure(grpc.StatusCode.UNAUTHENTICATED, "SESSION_ENDED", "ended")
    )
    client = connect(nodes[0].address, nodes[1].address)

    with pytest.raises(OutcomeUnknown):
        await AsyncAdmin.over(client).create_user("alice")


async def test_answer_to_a_later_try_settles_an_unknown_outcome(
    connect: Connect, nodes: list[FakeNode]
) -> None:
    """(Q2) The refusal is the committed result of the first try."""
    nodes[0].answer(CREATE, OUTCOME_UNKNOWN)
    nodes[1].answer(
        CREATE, Failure(grpc.StatusCode.FAILED_PRECONDITION, "TOKEN_LIMIT", "three")
    )
    client = connect(nodes[0].address, nodes[1].address)

    with pytest.raises(Refused) as caught:
        await AsyncAdmin.over(client).create_user("alice")

    assert caught.value.reason == "TOKEN_LIMIT"


async def test_broken_connection_may_have_applied_it(
    connect: Connect, start_node: Callable[[], FakeNode]
) -> None:
    """The node dies while it handles the request."""
    node = start_node()

    def die(request: object) -> Failure:
        node.stop()
        return Failure(grpc.StatusCode.CANCELLED)

    node.answer(CREATE, die)
    client = connect(node.address, timeout_s=2)

    with pytest.raises(OutcomeUnknown):
        await AsyncAdmin.over(client).create_user("alice")


async def test_no_node_can_be_reached(
    connect: Connect, closed_address: Callable[[], str]
) -> None:
    """The message names each address and its problem."""
    down, also_down = closed_address(), closed_address()
    admin = AsyncAdmin.over(connect(down, also_down, timeout_s=2))

    with pytest.raises(Unavailable) as caught:
        await admin.create_user("alice")

    assert caught.value.reason == "UNREACHABLE"
    assert f"{down}: Connection refused" in caught.value.words
    assert f"{also_down}: Connection refused" in caught.value.words


async def test_try_without_time_does_not_hide_why_a_node_was_not_reached() -> None:
    """The end of the call cuts the last try off."""
    attempts = Attempts(
        addresses=["n1:7300"],
        first=0,
        request_id="",
        deadline=Deadline.after(timedelta(seconds=60)),
        try_timeout_s=None,
        backoff=lambda _: 0.0,
    )
    refused = Status(code=grpc.StatusCode.UNAVAILABLE, words="the certificate is wrong")
    attempts.record_no_connection(attempts.begin(), refused)

    cut_off = attempts.record_no_connection(attempts.begin())

    assert "n1:7300: the certificate is wrong" in attempts.error(cut_off).words


async def test_reason_of_a_node_outweighs_unreachable_nodes(
    connect: Connect, nodes: list[FakeNode], closed_address: Callable[[], str]
) -> None:
    nodes[0].answer(CREATE, NO_QUORUM_FOR_LONG)
    admin = AsyncAdmin.over(connect(closed_address(), nodes[0].address))

    with pytest.raises(Unavailable) as caught:
        await admin.create_user("alice")

    assert caught.value.reason == "NO_QUORUM"


async def test_read_has_no_unknown_outcome(
    connect: Connect, nodes: list[FakeNode]
) -> None:
    nodes[0].never_answer(GET)
    admin = AsyncAdmin.over(connect(nodes[0].address, timeout_s=2))

    with pytest.raises(Unavailable) as caught:
        await admin.get_user("alice")

    assert caught.value.reason == "NO_ANSWER"


async def test_wrong_session_is_reported_without_a_retry(
    connect: Connect, nodes: list[FakeNode]
) -> None:
    nodes[0].answer(
        GET, Failure(grpc.StatusCode.UNAUTHENTICATED, "SESSION_ENDED", "ended")
    )
    admin = AsyncAdmin.over(connect(nodes[0].address, nodes[1].address))

    with pytest.raises(NotSignedIn):
        await admin.get_user("alice")

    assert nodes[1].calls == []
