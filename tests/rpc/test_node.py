# SPDX-License-Identifier: Apache-2.0
"""From gRPC to the state and back: the main job, wrong input, wrong credentials."""

from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
import pytest_asyncio
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from sparecode.v1 import authentication_pb2, types_pb2
from sparecode.v1 import cluster_pb2 as cluster_pb
from sparecode.v1 import emergency_access_pb2 as pb
from sparecode.v1 import sessions_pb2 as sessions_pb
from sparecode.v1.cluster_pb2_grpc import ClusterServiceStub
from sparecode.v1.sessions_pb2_grpc import SessionServiceStub
from sparecode.v1.tokens_pb2_grpc import TokenServiceStub
from tests.rpc.contract import ID
from tests.rpc.edge import AGENTS, NOW, failure
from tests.rpc.loopback_node import PASSWORD, PIN, LoopbackNode, new_id, running_node
from tests.rpc.test_credentials import SESSION_METHODS, refusal_of
from tests.rpc.test_imports import pieces

CODE = grpc.StatusCode
ACCEPTED = authentication_pb2.AUTHENTICATION_DECISION_ACCEPTED
REFUSED = authentication_pb2.AUTHENTICATION_DECISION_REFUSED


@pytest_asyncio.fixture
async def node(tmp_path: Path) -> AsyncIterator[LoopbackNode]:
    """Start a node; Alice has token 1 with a PIN."""
    async with running_node(tmp_path) as started:
        await started.populate()
        yield started


def issue(**fields) -> pb.IssueTokencodesRequest:
    return pb.IssueTokencodesRequest(
        **{"request_id": new_id(), "serial": "1", "count": 2, **fields}
    )


@pytest.mark.asyncio
async def test_code_is_accepted_once_with_the_pin_of_its_token(node):
    """The main job (A1, A2, A5)."""
    issued = await node.emergency("IssueTokencodes", issue())
    code, other = (each.code for each in issued.codes)
    decisions = [
        await node.authenticate(PIN + code.lower().replace("-", " ")),
        await node.authenticate(PIN + code),
        await node.authenticate("1357" + other),
    ]
    assert decisions == [ACCEPTED, REFUSED, REFUSED]
    read = await node.emergency(
        "GetEmergencyAccess", pb.GetEmergencyAccessRequest(serial="1")
    )
    access = read.emergency_access
    assert [code.state for code in access.sets[0].codes] == [
        pb.TOKENCODE_STATE_USED,
        pb.TOKENCODE_STATE_LIVE,
    ]
    assert access.sets[0].codes[0].agent == "sparecode://agent/vpn"
    assert (access.lost, access.live_codes) == (True, 1)
    assert read.position.node_id == "n1"


@pytest.mark.asyncio
async def test_retry_gets_the_same_answer_and_other_content_is_refused(node):
    """(Q1, Q2)."""
    issued = await node.emergency("IssueTokencodes", issue())
    passcode = PIN + issued.codes[0].code
    request_id = new_id()
    assert await node.authenticate(passcode, request_id) == ACCEPTED
    assert await node.authenticate(passcode, request_id) == ACCEPTED
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await node.authenticate(passcode + "x", request_id)
    refusal = failure(caught.value)
    assert (refusal.code, refusal.reason) == (
        CODE.INVALID_ARGUMENT,
        "REQUEST_ID_REUSED",
    )


@pytest.mark.asyncio
async def test_generated_codes_are_live_after_saving(node):
    """(I3)."""
    generated = await node.emergency(
        "GenerateTokencodes", pb.GenerateTokencodesRequest(serial="1", count=3)
    )
    passcode = PIN + generated.codes[2].code
    before = await node.authenticate(passcode)
    saved = await node.emergency(
        "SaveEmergencyAccess",
        pb.SaveEmergencyAccessRequest(
            request_id=new_id(), serial="1", draft=generated.draft
        ),
    )
    assert before == REFUSED
    assert saved.saved.live_codes == 3


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "username", ["nobody", "", "bob" * 40], ids=["unknown", "blank", "long"]
)
async def test_agent_sees_no_difference_between_users(node, username):
    """(A6)."""
    assert await node.authenticate(f"{PIN}K7PM4XQ2", username=username) == REFUSED


@pytest.mark.asyncio
async def test_agent_that_is_not_registered_is_refused_without_a_reason(node):
    """(A4)."""
    issued = await node.emergency("IssueTokencodes", issue())
    own = AGENTS.issue_agent("other", now=NOW)
    node.agents = lambda: LoopbackNode.agents(node, own)
    decision = await node.authenticate(PIN + issued.codes[0].code)
    assert decision == REFUSED


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("fields", "code", "reason", "word"),
    [
        ({"serial": "99"}, CODE.NOT_FOUND, "TOKEN_UNKNOWN", "99"),
        ({"count": 0}, CODE.INVALID_ARGUMENT, None, "1 to 50"),
        ({"count": 51}, CODE.INVALID_ARGUMENT, None, "1 to 50"),
        ({"count": -1}, CODE.INVALID_ARGUMENT, None, "1 to 50"),
        ({"request_id": "7"}, CODE.INVALID_ARGUMENT, "FIELD", "UUID"),
        (
            {"lifetime": pb.Lifetime(end_time=Timestamp(seconds=1))},
            CODE.FAILED_PRECONDITION,
            "LIFETIME_PAST",
            "future",
        ),
        (
            {"recovery_policy": types_pb2.RECOVERY_POLICY_ALLOW_AFTER_EXPIRY},
            CODE.FAILED_PRECONDITION,
            "RECOVERY_NEEDS_END",
            "allow after expiry",
        ),
    ],
)
async def test_refused_issue_names_the_subject_and_changes_nothing(
    node, fields, code, reason, word
):
    """(I4, I7, R1)."""
    access = pb.GetEmergencyAccessRequest(serial="1", stale_ok=True)
    before = await node.emergency("GetEmergencyAccess", access)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await node.emergency("IssueTokencodes", issue(**fields))
    after = await node.emergency("GetEmergencyAccess", access)
    refusal = failure(caught.value)
    assert refusal.code is code
    assert reason in (refusal.reason, None)
    assert word in refusal.words
    assert after.emergency_access == before.emergency_access


@pytest.mark.asyncio
async def test_lifetime_is_a_duration_or_an_end(node):
    """(I7)."""
    request = issue(lifetime=pb.Lifetime(duration=Duration(seconds=60)))
    saved = (await node.emergency("IssueTokencodes", request)).saved
    lives_ms = saved.end_time.ToMilliseconds() - saved.commit_time.ToMilliseconds()
    assert lives_ms == 60_000


@pytest.mark.asyncio
async def test_file_that_cannot_be_read_changes_nothing(node):
    """(K4)."""
    before = node.rows()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await node.call(TokenServiceStub, "ImportTokens", iter(pieces(b"<broken")))
    refusal = failure(caught.value)
    assert (refusal.code, refusal.reason) == (CODE.INVALID_ARGUMENT, "FIELD")
    assert refusal.field in {"content", "password", "key"}
    assert node.rows() == before


@pytest.mark.asyncio
async def test_status_shows_the_digest(node):
    status = await node.call(
        ClusterServiceStub, "GetStatus", cluster_pb.GetStatusRequest(digest=True)
    )
    (member,) = status.members
    assert (status.node_id, status.primary, status.quorum) == ("n1", "n1", True)
    assert member.digest == node.digest


@pytest.mark.asyncio
@pytest.mark.parametrize("method", SESSION_METHODS)
async def test_administration_needs_a_live_session(node, method):
    """No session, an invented one, an ended one: refused, and nothing changes (P2)."""
    ended = (("authorization", f"Bearer {await node.sign_in()}"),)
    async with node.admin() as channel:
        await SessionServiceStub(channel).Logout(
            sessions_pb.LogoutRequest(request_id=new_id()), timeout=60, metadata=ended
        )
    before = node.rows()
    made_up = (("authorization", "Bearer AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"),)
    async with node.admin() as channel:
        refusal = [
            await refusal_of(channel, method, metadata=metadata)
            for metadata in (None, made_up, ended)
        ]
    assert {(each.code, each.reason) for each in refusal} == {
        (CODE.UNAUTHENTICATED, "SESSION_ENDED")
    }
    assert node.rows() == before


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("administrator", "password"), [("root", "wrong horse battery"), ("rot", PASSWORD)]
)
async def test_refused_sign_in_gives_no_reason(node, administrator, password):
    """A wrong name and a wrong password get the same answer."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await node.call(
            SessionServiceStub,
            "Login",
            sessions_pb.LoginRequest(
                request_id=ID, administrator=administrator, password=password
            ),
        )
    refusal = failure(caught.value)
    assert (refusal.code, refusal.reason) == (CODE.UNAUTHENTICATED, "SIGN_IN_REFUSED")
    assert administrator not in refusal.words
