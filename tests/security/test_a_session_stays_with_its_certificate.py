# SPDX-License-Identifier: Apache-2.0
"""
A stolen session is worth nothing without the client's key (P2).

With `[admin] client_authority`, the nodes demand a certificate of administrators'
clients. A thief with a copy of the bearer, and even with another valid certificate,
cannot use the session.
"""

from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
import pytest_asyncio

from sparecode.v1 import sessions_pb2, sessions_pb2_grpc
from sparecode_client import AsyncAdmin, NotSignedIn
from sparecode_node.membership.certificates import Issued
from sparecode_node.services.secrets.sealing import session_id
from tests.rpc.edge import AGENTS, MEMBERS, NOW, STRANGER, failure
from tests.rpc.loopback_node import PASSWORD, LoopbackNode, running_node

pytestmark = pytest.mark.asyncio

OWN = AGENTS.issue_agent("laptop-1", now=NOW)
THIEF = AGENTS.issue_agent("laptop-2", now=NOW)


@pytest_asyncio.fixture
async def node(tmp_path: Path) -> AsyncIterator[LoopbackNode]:
    """Return a node that demands certificates, and root's session."""
    async with running_node(tmp_path, client=OWN) as started:
        yield started


async def who_am_i(node: LoopbackNode, certificate: Issued | None) -> str:
    """Use root's session with a certificate."""
    async with node.admin(own=certificate) as channel:
        answer = await sessions_pb2_grpc.SessionServiceStub(channel).WhoAmI(
            sessions_pb2.WhoAmIRequest(), timeout=60, metadata=node.bearer
        )
    return str(answer.administrator)


async def test_another_certificate_does_not_open_the_session(
    node: LoopbackNode,
) -> None:
    """(P2) Also if it is valid; the owner's certificate goes on to work."""
    assert await who_am_i(node, OWN) == "root"
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await who_am_i(node, THIEF)
    assert failure(refused.value).reason == "SESSION_ENDED"
    assert await who_am_i(node, OWN) == "root"


async def test_no_client_without_a_certificate_gets_in(node: LoopbackNode) -> None:
    """Nor one with a certificate of another authority."""
    node.client = None
    for certificate in (None, STRANGER):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await who_am_i(node, certificate)
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_the_client_library_shows_its_certificate(
    node: LoopbackNode, tmp_path: Path
) -> None:
    """A session of the library is bound like any other."""
    (tmp_path / "ca.pem").write_bytes(MEMBERS.pem)
    for name, issued in (("own", OWN), ("thief", THIEF)):
        (tmp_path / f"{name}.pem").write_bytes(issued.certificate)
        (tmp_path / f"{name}.key").write_bytes(issued.key)

    def admin(name: str, session: str = "") -> AsyncAdmin:
        return AsyncAdmin(
            [node.address("admin")],
            ca=tmp_path / "ca.pem",
            certificate=tmp_path / f"{name}.pem",
            key=tmp_path / f"{name}.key",
            session=session,
        )

    async with admin("own") as own:
        signed_in = await own.login("root", PASSWORD)
        assert (await own.who_am_i()).administrator == "root"
    async with admin("thief", signed_in.session) as thief:
        with pytest.raises(NotSignedIn):
            await thief.who_am_i()


async def test_no_text_opens_a_bound_session_at_another_door() -> None:
    """(P2) Such as the console's, where browsers show no certificate."""
    bearer, fingerprint = "bearer", "ab" * 32
    bound = session_id(bearer, fingerprint)
    for text in (bearer, f"\xff{fingerprint}\xff{bearer}", f"{fingerprint}{bearer}"):
        assert session_id(text) != bound
    assert session_id(bearer, "cd" * 32) != bound
