# SPDX-License-Identifier: Apache-2.0
"""
Administrators see the open sessions and end those that they do not recognize (P2, P7).

The attack: a session stolen from a profile or a browser stays open, unseen, until all
sessions of its owner end. The list shows no bearer, and nothing of others to those who
may not read administrators.
"""

from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
import pytest_asyncio

from sparecode.v1 import administrators_pb2 as pb
from sparecode.v1 import sessions_pb2
from sparecode.v1.sessions_pb2_grpc import SessionServiceStub
from tests.rpc.edge import failure
from tests.rpc.loopback_node import LoopbackNode, new_id, running_node
from tests.security.administrators import SignedIn, administrator, root, sign_in

pytestmark = pytest.mark.asyncio

HELP_DESK = pb.ADMINISTRATOR_ROLE_HELP_DESK
AUDITOR = pb.ADMINISTRATOR_ROLE_AUDITOR


@pytest_asyncio.fixture
async def node(tmp_path: Path) -> AsyncIterator[LoopbackNode]:
    """Return a node of a cluster with root and what each test adds."""
    async with running_node(tmp_path) as started:
        yield started


async def listed(
    caller: SignedIn, administrator: str = "", *, every: bool = False
) -> list[sessions_pb2.OpenSession]:
    """Return the open sessions that *caller* sees, newest first."""
    answer = await caller.call(
        SessionServiceStub,
        "ListSessions",
        sessions_pb2.ListSessionsRequest(
            administrator=administrator, all_administrators=every
        ),
    )
    return list(answer.sessions)


def ending(session: sessions_pb2.OpenSession) -> sessions_pb2.EndSessionRequest:
    return sessions_pb2.EndSessionRequest(
        request_id=new_id(), session_id=session.session_id
    )


async def refused(caller: SignedIn) -> bool:
    """Return whether the session of *caller* has ended."""
    try:
        await caller.call(SessionServiceStub, "WhoAmI", sessions_pb2.WhoAmIRequest())
    except grpc.aio.AioRpcError as error:
        return failure(error).reason == "SESSION_ENDED"
    return False


async def test_everyone_sees_only_own_sessions(node: LoopbackNode) -> None:
    """(P1) The help desk learns nothing of root's, by name or all at once."""
    hank = await administrator(node, "hank", HELP_DESK)
    (own,) = await listed(hank)
    assert (own.administrator, own.node_id, own.door, own.calling) == (
        "hank",
        "n1",
        "api",
        True,
    )
    assert own.address in ("127.0.0.1", "::1")
    assert own.session_id not in hank.bearer[0][1]
    for request in (
        sessions_pb2.ListSessionsRequest(administrator="root"),
        sessions_pb2.ListSessionsRequest(all_administrators=True),
    ):
        refusal = await hank.refused(SessionServiceStub, "ListSessions", request)
        assert refusal.code is grpc.StatusCode.PERMISSION_DENIED


async def test_auditors_see_all_sessions_and_end_none_of_others(
    node: LoopbackNode,
) -> None:
    """(P1) They get the same answer for a session of root and for none."""
    audra = await administrator(node, "audra", AUDITOR)
    sessions = await listed(audra, every=True)
    assert {each.administrator for each in sessions} == {"root", "audra"}
    (roots,) = await listed(audra, "root")
    words = set()
    for session in (roots, sessions_pb2.OpenSession(session_id="0" * 16)):
        refusal = await audra.refused(SessionServiceStub, "EndSession", ending(session))
        assert refusal.reason == "SESSION_UNKNOWN"
        words.add(refusal.words)
    assert len(words) == 1
    assert not await refused(root(node))


async def test_an_ended_session_is_refused(node: LoopbackNode) -> None:
    """(P2) The owner ends the thief's, and root that of the help desk."""
    thief = await administrator(node, "hank", HELP_DESK)
    owner = await sign_in(node, "hank")
    mine, stolen = await listed(owner)
    assert (mine.calling, stolen.calling) == (True, False)
    await owner.call(SessionServiceStub, "EndSession", ending(stolen))
    assert await refused(thief)
    assert not await refused(owner)
    assert [each.session_id for each in await listed(owner)] == [mine.session_id]
    (seen,) = await listed(root(node), "hank")
    await root(node).call(SessionServiceStub, "EndSession", ending(seen))
    assert await refused(owner)


async def test_a_stolen_session_does_not_end_the_owners(node: LoopbackNode) -> None:
    """(P7) Without the password it ends only itself."""
    owner = await administrator(node, "hank", HELP_DESK)
    thief = await sign_in(node, "hank")
    with node.state_written() as db:
        db.execute("UPDATE sessions SET proved_at_ms = proved_at_ms - 360000")
    stolen, mine = await listed(thief)
    refusal = await thief.refused(SessionServiceStub, "EndSession", ending(mine))
    assert refusal.reason == "REAUTHENTICATION_NEEDED"
    assert not await refused(owner)
    await thief.call(SessionServiceStub, "EndSession", ending(stolen))
    assert await refused(thief)
