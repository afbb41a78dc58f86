# SPDX-License-Identifier: Apache-2.0
"""From the wire to the state and back: the main job, wrong input, wrong credentials."""

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
from tests.rpc.test_credentials import SESSION_METHODS, refusal_of
from tests.rpc.test_imports import pieces
from tests.rpc.whole import PASSWORD, PIN, Whole, new_id, running_whole

CODE = grpc.StatusCode
ACCEPTED = authentication_pb2.AUTHENTICATION_DECISION_ACCEPTED
REFUSED = authentication_pb2.AUTHENTICATION_DECISION_REFUSED


@pytest_asyncio.fixture
async def whole(tmp_path: Path) -> AsyncIterator[Whole]:
    """Start a node; Alice has token 1 with a PIN."""
    async with running_whole(tmp_path) as started:
        await started.populate()
        yield started


def issue(**fields) -> pb.IssueTokencodesRequest:
    return pb.IssueTokencodesRequest(
        **{"request_id": new_id(), "serial": "1", "count": 2, **fields}
    )


@pytest.mark.asyncio
async def test_code_is_accepted_once_with_the_pin_of_its_token(whole):
    """The main job (A1, A2, A5)."""
    issued = await whole.emergency("IssueTokencodes", issue())
    code, other = (each.code for each in issued.codes)
    decisions = [
        await whole.authenticate(PIN + code.lower().replace("-", " ")),
        await whole.authenticate(PIN + code),
        await whole.authenticate("1357" + other),
    ]
    assert decisions == [ACCEPTED, REFUSED, REFUSED]
    shown = await whole.emergency(
        "GetEmergencyAccess", pb.GetEmergencyAccessRequest(serial="1")
    )
    access = shown.emergency_access
    assert [code.state for code in access.sets[0].codes] == [
        pb.TOKENCODE_STATE_USED,
        pb.TOKENCODE_STATE_LIVE,
    ]
    assert access.sets[0].codes[0].agent == "sparecode://agent/vpn"
    assert (access.lost, access.live_codes) == (True, 1)
    assert shown.position.node_id == "n1"


@pytest.mark.asyncio
async def test_retry_gets_the_same_answer_and_another_content_is_refused(whole):
    """(Q1, Q2)."""
    issued = await whole.emergency("IssueTokencodes", issue())
    passcode = PIN + issued.codes[0].code
    request_id = new_id()
    assert await whole.authenticate(passcode, request_id) == ACCEPTED
    assert await whole.authenticate(passcode, request_id) == ACCEPTED
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await whole.authenticate(passcode + "x", request_id)
    found = failure(caught.value)
    assert (found.code, found.reason) == (CODE.INVALID_ARGUMENT, "REQUEST_ID_REUSED")


@pytest.mark.asyncio
async def test_generated_codes_live_once_they_are_saved(whole):
    """(I3)."""
    generated = await whole.emergency(
        "GenerateTokencodes", pb.GenerateTokencodesRequest(serial="1", count=3)
    )
    passcode = PIN + generated.codes[2].code
    before = await whole.authenticate(passcode)
    saved = await whole.emergency(
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
async def test_agent_sees_no_difference_between_users(whole, username):
    """(A6)."""
    assert await whole.authenticate(f"{PIN}K7PM4XQ2", username=username) == REFUSED


@pytest.mark.asyncio
async def test_agent_that_is_not_registered_is_refused_without_a_reason(whole):
    """(A4)."""
    issued = await whole.emergency("IssueTokencodes", issue())
    own = AGENTS.issue_agent("other", now=NOW)
    whole.agents = lambda: Whole.agents(whole, own)
    decision = await whole.authenticate(PIN + issued.codes[0].code)
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
            "ALLOW_AFTER_EXPIRY",
        ),
    ],
)
async def test_bad_issue_names_the_thing_and_changes_nothing(
    whole, fields, code, reason, word
):
    """(I4, I7, R1)."""
    access = pb.GetEmergencyAccessRequest(serial="1", stale_ok=True)
    before = await whole.emergency("GetEmergencyAccess", access)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await whole.emergency("IssueTokencodes", issue(**fields))
    after = await whole.emergency("GetEmergencyAccess", access)
    found = failure(caught.value)
    assert found.code is code
    assert reason in (found.reason, None)
    assert word in found.words
    assert after.emergency_access == before.emergency_access


@pytest.mark.asyncio
async def test_lifetime_is_a_duration_or_an_end(whole):
    """(I7)."""
    request = issue(lifetime=pb.Lifetime(duration=Duration(seconds=60)))
    saved = (await whole.emergency("IssueTokencodes", request)).saved
    lives_ms = saved.end_time.ToMilliseconds() - saved.commit_time.ToMilliseconds()
    assert lives_ms == 60_000


@pytest.mark.asyncio
async def test_file_that_cannot_be_read_changes_nothing(whole):
    """(K4)."""
    before = whole.rows()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await whole.call(TokenServiceStub, "ImportTokens", iter(pieces(b"<broken")))
    found = failure(caught.value)
    assert (found.code, found.reason) == (CODE.INVALID_ARGUMENT, "FIELD")
    assert found.field in {"content", "password", "key"}
    assert whole.rows() == before


@pytest.mark.asyncio
async def test_status_shows_the_digest(whole):
    status = await whole.call(
        ClusterServiceStub, "GetStatus", cluster_pb.GetStatusRequest(digest=True)
    )
    (member,) = status.members
    assert (status.node_id, status.primary, status.quorum) == ("n1", "n1", True)
    assert member.digest == whole.digest


@pytest.mark.asyncio
@pytest.mark.parametrize("method", SESSION_METHODS)
async def test_nobody_administers_without_a_living_session(whole, method):
    """No session, a made-up one, one that has ended: refused, no change of state (P2)."""
    ended = (("authorization", f"Bearer {await whole.sign_in()}"),)
    async with whole.admin() as channel:
        await SessionServiceStub(channel).Logout(
            sessions_pb.LogoutRequest(request_id=new_id()), timeout=5, metadata=ended
        )
    before = whole.rows()
    made_up = (("authorization", "Bearer AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"),)
    async with whole.admin() as channel:
        found = [
            await refusal_of(channel, method, metadata=metadata)
            for metadata in (None, made_up, ended)
        ]
    assert {(each.code, each.reason) for each in found} == {
        (CODE.UNAUTHENTICATED, "SESSION_ENDED")
    }
    assert whole.rows() == before


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("administrator", "password"), [("root", "wrong horse battery"), ("rot", PASSWORD)]
)
async def test_sign_in_says_only_that_it_is_refused(whole, administrator, password):
    """The same for a wrong name and a wrong password."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await whole.call(
            SessionServiceStub,
            "Login",
            sessions_pb.LoginRequest(
                request_id=ID, administrator=administrator, password=password
            ),
        )
    found = failure(caught.value)
    assert (found.code, found.reason) == (CODE.UNAUTHENTICATED, "SIGN_IN_REFUSED")
    assert administrator not in found.words
