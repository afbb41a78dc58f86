# SPDX-License-Identifier: Apache-2.0
"""
A known request id is no oracle for codes of the second factor (Q1).

The attacker knows the password and the request id of a sign-in that has worked.
"""

from pathlib import Path

import grpc
import pytest

from sparecode.v1.sessions_pb2 import LoginRequest
from sparecode.v1.sessions_pb2_grpc import SessionServiceStub
from sparecode_client import AsyncAdmin
from tests.rpc.edge import MEMBERS, failure
from tests.rpc.loopback_node import PASSWORD, LoopbackNode, new_id, running_node
from tests.rpc.test_second_factors import code_of, enroll

pytestmark = pytest.mark.asyncio


async def sign_in(node: LoopbackNode, request_id: str, code: str = "") -> str:
    """Sign in as root; return the session."""
    async with node.admin() as channel:
        answer = await SessionServiceStub(channel).Login(
            LoginRequest(
                request_id=request_id,
                administrator="root",
                password=PASSWORD,
                second_factor=code,
            ),
            timeout=60,
        )
    return str(answer.session)


async def refusal(node: LoopbackNode, request_id: str, code: str = "") -> object:
    """Return the refusal of a sign-in."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await sign_in(node, request_id, code)
    return failure(caught.value)


async def test_right_and_wrong_codes_get_the_same_answer_and_no_session(
    tmp_path: Path,
) -> None:
    """(Q1, K1) Neither the spent code nor a guess opens the session again."""
    async with running_node(tmp_path) as node:
        seed = await enroll(node)
        known, spent = new_id(), code_of(seed, 0)
        session = await sign_in(node, known, spent)
        answers = [
            await refusal(node, known, code)
            for code in (spent, "000000", "123456", code_of(seed, 1), "")
        ]
        assert session
        assert {each.reason for each in answers} == {"REQUEST_ID_REUSED"}  # type: ignore[attr-defined]
        assert len({repr(each) for each in answers}) == 1
        recorded = [
            event for event in await node.recorded_events() if "OpenSession" in event
        ]
        assert recorded[-1][-1] == "request_id_reused"


async def test_a_repeated_sign_in_without_second_factor_gets_no_session(
    tmp_path: Path,
) -> None:
    """(Q1) A password and a request id are not worth a session that is open."""
    async with running_node(tmp_path) as node:
        known = new_id()
        await sign_in(node, known)
        answer = await refusal(node, known)
        assert answer.reason == "REQUEST_ID_REUSED"  # type: ignore[attr-defined]


async def test_the_client_signs_in_again_when_an_answer_gets_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """(Q1) It draws a new request id, unless a code was spent."""
    async with running_node(tmp_path) as node:
        known = new_id()
        await sign_in(node, known)
        ids = iter([known, new_id()])
        monkeypatch.setattr(
            "sparecode_client.admin.sessions.new_request_id", lambda: next(ids)
        )
        (ca := tmp_path / "ca.pem").write_bytes(MEMBERS.pem)
        async with AsyncAdmin([node.address("admin")], ca=ca) as client:
            assert (await client.login("root", PASSWORD)).session
