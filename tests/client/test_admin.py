# SPDX-License-Identifier: Apache-2.0
"""`AsyncAdmin`: requests it sends and values it returns."""

import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone

import grpc
import pytest

from sparecode.v1 import (
    emergency_access_pb2,
    sessions_pb2,
    tokens_pb2,
    types_pb2,
    users_pb2,
)
from sparecode_client import (
    AgentProtects,
    AsyncAdmin,
    Commit,
    InvalidArgument,
    NewToken,
    NodeFailed,
    OutcomeUnknown,
    PinRule,
    RecoveryPolicy,
    Refused,
    TokenAlgorithm,
    TokencodeState,
    TokenFilter,
    TokenHash,
)
from sparecode_client.connection.client import Client
from tests.client import answers
from tests.client.fakes import OUTCOME_UNKNOWN, Failure, FakeNode

GENERATE = "EmergencyAccessService/GenerateTokencodes"
SAVE = "EmergencyAccessService/SaveEmergencyAccess"
DRAFT_STALE = Failure(
    grpc.StatusCode.FAILED_PRECONDITION, "DRAFT_STALE", "the PIN has changed since"
)

pytestmark = pytest.mark.asyncio


@pytest.fixture
def node(nodes: list[FakeNode]) -> FakeNode:
    return nodes[0]


@pytest.fixture
def admin(connect: Callable[..., Client], nodes: list[FakeNode]) -> AsyncAdmin:
    return AsyncAdmin.over(connect(nodes[0].address, nodes[1].address))


async def test_issuing_generates_and_then_saves(
    admin: AsyncAdmin, node: FakeNode
) -> None:
    """(I3) The codes come from Generate; Save reports what is live."""
    node.answer(GENERATE, answers.GENERATED)
    node.answer(SAVE, answers.SAVED)

    issued = await admin.issue_tokencodes(
        "000123456789",
        count=2,
        lifetime=timedelta(days=7),
        recovery_policy=RecoveryPolicy.ALLOW_AND_DISABLE,
        keep_unused_codes=True,
    )

    assert [(c.ordinal, c.code) for c in issued.codes] == answers.CODES
    assert issued.end_time == answers.END
    assert issued.commit == Commit(node_id="n2", index=1042)
    assert issued.saved.voided_codes == 3
    (generate,) = node.requests(GENERATE)
    (save,) = node.requests(SAVE)
    assert (generate.serial, generate.count) == ("000123456789", 2)
    assert save.draft == answers.GENERATED.draft
    assert save.lifetime.duration.ToTimedelta() == timedelta(days=7)
    assert save.recovery_policy == types_pb2.RECOVERY_POLICY_ALLOW_AND_DISABLE
    assert save.keep_unused_codes
    assert not save.weaken_recovery_policy


async def test_lost_answer_of_save_is_retried_with_the_same_draft(
    admin: AsyncAdmin, nodes: list[FakeNode]
) -> None:
    """(I3) A retry has the same draft, request id and codes."""
    nodes[0].answer(GENERATE, answers.GENERATED)
    nodes[0].answer(SAVE, OUTCOME_UNKNOWN)
    nodes[1].answer(SAVE, answers.SAVED)

    issued = await admin.issue_tokencodes("000123456789", count=2)

    (first,), (second,) = nodes[0].requests(SAVE), nodes[1].requests(SAVE)
    assert first == second
    assert [(c.ordinal, c.code) for c in issued.codes] == answers.CODES


async def test_stale_draft_is_generated_again(
    admin: AsyncAdmin, node: FakeNode
) -> None:
    """(I3) The returned codes are those of the saved draft."""
    fresh = emergency_access_pb2.GenerateTokencodesResponse(
        codes=[emergency_access_pb2.Tokencode(ordinal=1, code="ABCD-EFG2")],
        draft=b"fresh",
    )
    node.answer(GENERATE, answers.GENERATED, fresh)
    node.answer(SAVE, DRAFT_STALE, answers.SAVED)

    issued = await admin.issue_tokencodes("000123456789")

    assert [code.code for code in issued.codes] == ["ABCD-EFG2"]
    assert [request.draft for request in node.requests(SAVE)] == [
        answers.GENERATED.draft,
        b"fresh",
    ]
    assert len({request.request_id for request in node.requests(SAVE)}) == 2


async def test_draft_that_is_always_stale_is_an_error(
    admin: AsyncAdmin, node: FakeNode
) -> None:
    node.answer(GENERATE, answers.GENERATED)
    node.answer(SAVE, DRAFT_STALE)

    with pytest.raises(Refused) as caught:
        await admin.issue_tokencodes("000123456789")

    assert caught.value.reason == "DRAFT_STALE"
    assert len(node.requests(GENERATE)) == 3


async def test_other_refusal_of_save_is_not_retried(
    admin: AsyncAdmin, node: FakeNode
) -> None:
    node.answer(GENERATE, answers.GENERATED)
    node.answer(
        SAVE, Failure(grpc.StatusCode.FAILED_PRECONDITION, "RECOVERY_WEAKENED", "no")
    )

    with pytest.raises(Refused):
        await admin.issue_tokencodes("000123456789")

    assert len(node.requests(GENERATE)) == 1


async def test_a_count_of_none_is_sent_as_such(
    admin: AsyncAdmin, node: FakeNode
) -> None:
    """(I4) A count of 0 is sent as 0, which the node refuses. It is not the default."""
    node.answer(
        GENERATE,
        Failure(grpc.StatusCode.INVALID_ARGUMENT, "FIELD", "1 to 50", field="count"),
    )

    with pytest.raises(InvalidArgument) as caught:
        await admin.issue_tokencodes("000123456789", count=0)

    assert caught.value.field == "count"
    (request,) = node.requests(GENERATE)
    assert request.HasField("count")
    assert request.count == 0


async def test_codes_are_in_no_repr_and_in_no_log(
    admin: AsyncAdmin, nodes: list[FakeNode], caplog: pytest.LogCaptureFixture
) -> None:
    """(I9) Not even if a try fails, and at the finest log level."""
    caplog.set_level(logging.DEBUG)
    nodes[0].answer(GENERATE, answers.GENERATED)
    nodes[0].answer(SAVE, OUTCOME_UNKNOWN)
    nodes[1].answer(SAVE, answers.SAVED)

    generated = await admin.generate_tokencodes("000123456789", count=2)
    issued = await admin.issue_tokencodes("000123456789", count=2)

    text = repr(generated) + repr(issued) + str(issued) + caplog.text
    assert "ordinal=1" in text
    for _, code in answers.CODES:
        assert code not in text
        assert code.replace("-", "") not in text
    assert "sealed" not in text


FIXED = "EmergencyAccessService/IssueFixedTokencode"


async def test_lost_fixed_tokencode_is_issued_again(
    admin: AsyncAdmin, nodes: list[FakeNode]
) -> None:
    """(I9, I11) Its answer was lost. Another code, under another request id, voids it."""
    nodes[0].answer(FIXED, OUTCOME_UNKNOWN, answers.FIXED)
    nodes[1].answer(FIXED, answers.WITHHELD, answers.FIXED)

    issued = await admin.issue_fixed_tokencode(
        "000123456789",
        lifetime=timedelta(days=3),
        recovery_policy=RecoveryPolicy.ALLOW_AND_DISABLE,
    )

    assert issued.code == "K7PM-4XQ2"
    assert issued.code not in repr(issued)
    first, *others = nodes[0].requests(FIXED) + nodes[1].requests(FIXED)
    assert first.lifetime.duration.ToTimedelta() == timedelta(days=3)
    assert first.recovery_policy == types_pb2.RECOVERY_POLICY_ALLOW_AND_DISABLE
    ids = [request.request_id for request in (first, *others)]
    assert len(ids) == 3
    assert len(set(ids)) == 2


async def test_fixed_tokencode_lost_every_time_is_an_error(
    admin: AsyncAdmin, node: FakeNode
) -> None:
    node.answer(FIXED, answers.WITHHELD)

    with pytest.raises(NodeFailed, match="lost several times"):
        await admin.issue_fixed_tokencode("000123456789")

    assert len(node.requests(FIXED)) == 3


async def test_secrets_are_in_no_repr_and_in_no_error(
    admin: AsyncAdmin, nodes: list[FakeNode]
) -> None:
    nodes[0].answer("SessionService/Login", answers.LOGIN)
    session = await admin.login("root", "correct horse")
    nodes[0].answer("TokenService/SetPin", OUTCOME_UNKNOWN)
    nodes[1].answer("TokenService/SetPin", OUTCOME_UNKNOWN)
    token = NewToken(serial="1", seed=b"12345678901234567890")

    with pytest.raises(OutcomeUnknown) as caught:
        await admin.set_pin("1", "271828", within=timedelta(seconds=0.05))

    text = repr(session) + repr(token) + repr(caught.value) + str(caught.value)
    assert "bearer-of-root" not in text
    assert "12345678901234567890" not in text
    assert "271828" not in text


async def test_session_goes_with_every_call_from_login_to_logout(
    admin: AsyncAdmin, node: FakeNode
) -> None:
    node.answer("SessionService/Login", answers.LOGIN)
    node.answer("SessionService/Logout", sessions_pb2.LogoutResponse())
    node.answer("UserService/GetUser", answers.USER)

    session = await admin.login("root", "correct horse")
    await admin.get_user("alice")
    await admin.logout()
    await admin.get_user("alice")

    assert session.session == "bearer-of-root"
    bearers = [call.metadata.get("authorization") for call in node.calls]
    bearer = "Bearer bearer-of-root"
    assert bearers == [None, bearer, bearer, None]


async def test_times_arrive_with_their_zone(admin: AsyncAdmin, node: FakeNode) -> None:
    node.answer("TokenService/GetToken", answers.TOKEN)
    node.answer(GENERATE, answers.GENERATED)
    node.answer(SAVE, answers.SAVED)
    noon = datetime(2026, 12, 1, 12, tzinfo=timezone(timedelta(hours=1)))

    token = await admin.get_token("000123456789")
    await admin.issue_tokencodes("000123456789", lifetime=noon)

    assert token.expire_time == datetime(2027, 6, 1, tzinfo=UTC)
    assert token.period == timedelta(seconds=30)
    (save,) = node.requests(SAVE)
    assert save.lifetime.end_time.ToJsonString() == "2026-12-01T11:00:00Z"


async def test_time_without_a_zone_is_refused(
    admin: AsyncAdmin, node: FakeNode
) -> None:
    node.answer(GENERATE, answers.GENERATED)
    noon = datetime(2026, 12, 1, 12)  # noqa: DTZ001  The point of the test.

    with pytest.raises(ValueError, match="has no time zone"):
        await admin.issue_tokencodes("000123456789", lifetime=noon)

    assert node.requests(SAVE) == []


async def test_enrolling_sends_the_seed_and_the_defaults(
    admin: AsyncAdmin, node: FakeNode
) -> None:
    node.answer("TokenService/EnrollToken", tokens_pb2.EnrollTokenResponse())

    await admin.enroll_token(NewToken(serial="a", seed=b"s" * 20))
    await admin.enroll_token(
        NewToken(
            serial="b",
            seed=b"s" * 20,
            algorithm=TokenAlgorithm.HOTP,
            hash=TokenHash.SHA256,
            digits=8,
            counter=7,
            pin_rule=PinRule.NONE,
        )
    )

    totp, hotp = node.requests("TokenService/EnrollToken")
    assert (totp.algorithm, totp.period_seconds) == (types_pb2.TOKEN_ALGORITHM_TOTP, 30)
    assert (totp.hash, totp.digits) == (types_pb2.TOKEN_HASH_SHA1, 6)
    assert totp.seed == b"s" * 20
    assert (hotp.algorithm, hotp.period_seconds) == (types_pb2.TOKEN_ALGORITHM_HOTP, 0)
    assert (hotp.hash, hotp.digits) == (types_pb2.TOKEN_HASH_SHA256, 8)
    assert (hotp.counter, hotp.pin_rule) == (7, types_pb2.PIN_RULE_NONE)


async def test_unset_filters_are_not_sent(admin: AsyncAdmin, node: FakeNode) -> None:
    node.answer("TokenService/ListTokens", tokens_pb2.ListTokensResponse())

    await admin.list_tokens()
    await admin.list_tokens(
        TokenFilter(enabled=False, algorithm=TokenAlgorithm.HOTP, search="ash")
    )

    every, some = node.requests("TokenService/ListTokens")
    assert not every.HasField("enabled")
    assert some.HasField("enabled")
    assert not some.enabled
    assert some.algorithm == types_pb2.TOKEN_ALGORITHM_HOTP
    assert some.search == "ash"

    node.answer("UserService/ListUsers", users_pb2.ListUsersResponse())
    await admin.list_users(search="ash", locked=True)
    (users,) = node.requests("UserService/ListUsers")
    assert (users.search, users.locked) == ("ash", True)
    assert not users.HasField("enabled")


async def test_unknown_kind_is_none(admin: AsyncAdmin, node: FakeNode) -> None:
    """A node may be upgraded before the client."""
    newer = tokens_pb2.GetTokenResponse()
    newer.CopyFrom(answers.TOKEN)
    newer.token.algorithm = 99  # type: ignore[assignment]
    node.answer("TokenService/GetToken", newer)

    assert (await admin.get_token("000123456789")).algorithm is None


@pytest.mark.parametrize(
    ("kind", "wire"),
    [
        (TokenAlgorithm, types_pb2.TokenAlgorithm),
        (TokenHash, types_pb2.TokenHash),
        (PinRule, types_pb2.PinRule),
        (RecoveryPolicy, types_pb2.RecoveryPolicy),
        (AgentProtects, types_pb2.AgentProtects),
        (TokencodeState, emergency_access_pb2.TokencodeState),
    ],
)
async def test_enums_match_the_api(kind, wire) -> None:
    prefix = wire.keys()[0].removesuffix("UNSPECIFIED")

    assert {prefix + member.name for member in kind} == set(wire.keys()[1:])
