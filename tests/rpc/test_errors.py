# SPDX-License-Identifier: Apache-2.0
"""The table of errors, row by row, as a client reads it."""

import asyncio
import logging
from pathlib import Path

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from sparecode.v1 import (
    authentication_pb2,
    authentication_pb2_grpc,
    tokens_pb2,
    tokens_pb2_grpc,
    types_pb2,
    users_pb2,
    users_pb2_grpc,
)
from sparecode_node.domain.outcomes import Reason, Rejected
from sparecode_node.replication.errors import (
    NoPrimaryError,
    NoQuorumError,
    NotAppliedError,
    OutcomeUnknownError,
    OverloadedError,
    ProposeError,
    RemovedError,
    StoppingError,
)
from sparecode_node.services.error_table import EXCEPTIONS, REASONS
from sparecode_node.services.errors import (
    HashingOverloadedError,
    InvalidFieldError,
    NotPermittedError,
    NotSignedInError,
    RateError,
    Refused,
    refusal,
)
from tests.rpc.edge import BEARER, Failure, failure, running_edge

CODE = grpc.StatusCode
SECRET = "K7PM4XQ2"


def refused(reason: Reason, detail: str = "", field: str = "") -> Refused:
    return refusal(Rejected(reason, detail, field))


async def create_user(edge) -> Failure:
    async with edge.admin() as channel:
        stub = users_pb2_grpc.UserServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.CreateUser(
                users_pb2.CreateUserRequest(username="x"), timeout=60, metadata=BEARER
            )
    return failure(caught.value)


async def authenticate(edge) -> Failure:
    async with edge.agents() as channel:
        stub = authentication_pb2_grpc.AuthenticationServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Authenticate(
                authentication_pb2.AuthenticateRequest(passcode=SECRET), timeout=60
            )
    return failure(caught.value)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("error", "code", "reason", "retry_s"),
    [
        (InvalidFieldError("count", "1 to 50"), CODE.INVALID_ARGUMENT, "FIELD", None),
        (
            refused(Reason.REQUEST_ID_REUSED),
            CODE.INVALID_ARGUMENT,
            "REQUEST_ID_REUSED",
            None,
        ),
        (refused(Reason.CODE_COUNT), CODE.INVALID_ARGUMENT, "CODE_COUNT", None),
        (refused(Reason.DRAFT_STALE), CODE.FAILED_PRECONDITION, "DRAFT_STALE", None),
        (
            refused(Reason.TOKEN_EXPIRED),
            CODE.FAILED_PRECONDITION,
            "TOKEN_EXPIRED",
            None,
        ),
        (refused(Reason.TOKEN_UNKNOWN), CODE.NOT_FOUND, "TOKEN_UNKNOWN", None),
        (refused(Reason.USER_UNKNOWN), CODE.NOT_FOUND, "USER_UNKNOWN", None),
        (refused(Reason.AGENT_UNKNOWN), CODE.NOT_FOUND, "AGENT_UNKNOWN", None),
        (refused(Reason.USER_EXISTS), CODE.ALREADY_EXISTS, "USER_EXISTS", None),
        (refused(Reason.TOKEN_EXISTS), CODE.ALREADY_EXISTS, "TOKEN_EXISTS", None),
        (refused(Reason.AGENT_EXISTS), CODE.ALREADY_EXISTS, "AGENT_EXISTS", None),
        (NotSignedInError(), CODE.UNAUTHENTICATED, "SESSION_ENDED", None),
        (
            refused(Reason.SIGN_IN_REFUSED),
            CODE.UNAUTHENTICATED,
            "SIGN_IN_REFUSED",
            None,
        ),
        (NotPermittedError("no"), CODE.PERMISSION_DENIED, "ROLE", None),
        (
            refused(Reason.SELF_SERVICE_FORBIDDEN),
            CODE.PERMISSION_DENIED,
            "SELF_SERVICE_FORBIDDEN",
            None,
        ),
        (OverloadedError(SECRET), CODE.RESOURCE_EXHAUSTED, "OVERLOADED", 1),
        (HashingOverloadedError(2.5), CODE.RESOURCE_EXHAUSTED, "OVERLOADED", 2.5),
        (RateError("this user", 0.25), CODE.RESOURCE_EXHAUSTED, "RATE", 0.25),
        (
            refused(Reason.REQUEST_TABLE_FULL),
            CODE.RESOURCE_EXHAUSTED,
            "OVERLOADED",
            5,
        ),
        (NoQuorumError(SECRET), CODE.UNAVAILABLE, "NO_QUORUM", 1),
        (NoPrimaryError(SECRET), CODE.UNAVAILABLE, "NO_PRIMARY", 0.5),
        (RemovedError(SECRET), CODE.UNAVAILABLE, "REMOVED", None),
        (refused(Reason.NOT_INITIALIZED), CODE.UNAVAILABLE, "NOT_INITIALIZED", 1),
        (refused(Reason.NOT_OPEN), CODE.UNAVAILABLE, "NOT_OPEN", 10),
        (refused(Reason.STALE_PARAMETERS), CODE.UNAVAILABLE, "STALE_PARAMETERS", 0.5),
        (refused(Reason.SLOT_MOVED), CODE.FAILED_PRECONDITION, "SLOT_MOVED", None),
        (refused(Reason.SLOT_MOVING), CODE.UNAVAILABLE, "SLOT_MOVING", 5),
        (StoppingError(), CODE.UNAVAILABLE, "STOPPING", 1),
        (OutcomeUnknownError(SECRET), CODE.UNAVAILABLE, "OUTCOME_UNKNOWN", 0.5),
        (TimeoutError(SECRET), CODE.DEADLINE_EXCEEDED, "OUTCOME_UNKNOWN", 0.5),
    ],
)
async def test_each_error_has_its_status(error, code, reason, retry_s):
    async with running_edge() as edge:
        edge.services["users"].answer = error
        refusal = await create_user(edge)
    assert (refusal.code, refusal.reason, refusal.domain) == (code, reason, "sparecode")
    assert refusal.retry_s == retry_s
    assert refusal.words
    assert SECRET not in refusal.words


def test_every_failure_of_replication_has_a_row():
    """An error without a row would be reported as a bug, and perhaps not retried."""

    def leaves(kind: type[Exception]) -> set[type[Exception]]:
        below = kind.__subclasses__()
        return {kind}.union(*map(leaves, below))

    abstract = {ProposeError, NotAppliedError}
    kinds = leaves(ProposeError) - abstract
    assert all(any(k in EXCEPTIONS for k in kind.__mro__) for kind in kinds)
    assert set(REASONS) == set(Reason)


def test_only_an_unknown_outcome_may_have_changed_something():
    """Every other refused call was certainly not applied (A7)."""
    unknown = {
        row.reason
        for row in (*EXCEPTIONS.values(), *REASONS.values())
        if "may have been made" in row.words
    }
    assert unknown == {"OUTCOME_UNKNOWN"}


@pytest.mark.asyncio
async def test_invalid_field_is_named_with_its_bounds():
    async with running_edge() as edge:
        edge.services["users"].answer = InvalidFieldError("count", "1 to 50; got 51")
        refusal = await create_user(edge)
    assert (refusal.field, refusal.description) == ("count", "1 to 50; got 51")
    assert refusal.words == "count: 1 to 50; got 51"


@pytest.mark.asyncio
async def test_refusal_names_its_subject_and_the_next_step():
    async with running_edge() as edge:
        edge.services["users"].answer = refused(
            Reason.TOKEN_DISABLED, "token 1 is disabled", "serial"
        )
        refusal = await create_user(edge)
    assert refusal.words == "token 1 is disabled; enable it first"
    assert (refusal.field, refusal.description) == ("serial", "token 1 is disabled")


@pytest.mark.asyncio
async def test_bug_gives_internal_without_details_and_a_logged_trace(caplog):
    """No detail leaks, whatever the exception contains."""
    async with running_edge() as edge:
        edge.services["users"].answer = RuntimeError(f"it was {SECRET}")
        with caplog.at_level(logging.ERROR, logger="sparecode_node"):
            refusal = await create_user(edge)
    assert refusal == Failure(CODE.INTERNAL, "internal error")
    (record,) = [r for r in caplog.records if r.name.startswith("sparecode_node")]
    assert record.exc_info
    assert record.method == "UserService/CreateUser"


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "reason",
    sorted(
        set(Reason)
        - {
            Reason.REQUEST_ID_REUSED,
            Reason.REQUEST_TABLE_FULL,
            Reason.STALE_PARAMETERS,
            Reason.ENTRY_SKIPPED,
            Reason.NOT_INITIALIZED,
            Reason.NOT_OPEN,
            Reason.SLOT_MOVED,
            Reason.SLOT_MOVING,
        }
    ),
)
async def test_agent_sees_no_reason_of_the_rules(reason, caplog):
    """Not even if a use case let one through (A6)."""
    async with running_edge() as edge:
        edge.services["authentication"].answer = refused(reason, "alice is locked")
        with caplog.at_level(logging.CRITICAL):
            refusal = await authenticate(edge)
    assert refusal == Failure(CODE.INTERNAL, "internal error")


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (refused(Reason.REQUEST_ID_REUSED), "REQUEST_ID_REUSED"),
        (refused(Reason.REQUEST_TABLE_FULL), "OVERLOADED"),
        (refused(Reason.SLOT_MOVED), "SLOT_MOVED"),
        (refused(Reason.SLOT_MOVING), "SLOT_MOVING"),
        (InvalidFieldError("username", "at most 128"), "FIELD"),
        (NoQuorumError(), "NO_QUORUM"),
        (OutcomeUnknownError(), "OUTCOME_UNKNOWN"),
        (HashingOverloadedError(1), "OVERLOADED"),
        (RateError("this user", 1), "RATE"),
    ],
)
async def test_agent_sees_reasons_that_decide_a_retry(error, reason):
    """But no reason of the rules (A7)."""
    async with running_edge() as edge:
        edge.services["authentication"].answer = error
        refusal = await authenticate(edge)
    assert refusal.reason == reason


@pytest.mark.asyncio
async def test_log_contains_no_content_of_a_request(caplog):
    async with running_edge() as edge:
        edge.services["authentication"].answer = OutcomeUnknownError()
        edge.services["users"].answer = OutcomeUnknownError()
        with caplog.at_level(logging.DEBUG):
            await authenticate(edge)
            await create_user(edge)
    logged = "\n".join(f"{vars(record)}" for record in caplog.records)
    assert "sparecode://agent/vpn" in logged
    assert SECRET not in logged
    assert "s3cret-bearer" not in logged


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (tokens_pb2.EnrollTokenRequest(), "algorithm"),
        (tokens_pb2.EnrollTokenRequest(algorithm=99), "algorithm"),
        (
            tokens_pb2.EnrollTokenRequest(algorithm=types_pb2.TOKEN_ALGORITHM_TOTP),
            "pin_rule",
        ),
        (tokens_pb2.EnrollTokenRequest(hash=99), "hash"),
        (
            tokens_pb2.EnrollTokenRequest(expire_time=Timestamp(seconds=1 << 60)),
            "expire_time",
        ),
        (
            tokens_pb2.EnrollTokenRequest(expire_time=Timestamp(nanos=-1)),
            "expire_time",
        ),
    ],
    ids=lambda value: repr(str(value)),
)
async def test_unconvertible_value_is_an_invalid_field(request_, field):
    async with running_edge() as edge, edge.admin() as channel:
        stub = tokens_pb2_grpc.TokenServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.EnrollToken(request_, timeout=60, metadata=BEARER)
        assert not edge.services["tokens"].calls
    refusal = failure(caught.value)
    assert (refusal.code, refusal.reason) == (CODE.INVALID_ARGUMENT, "FIELD")
    assert refusal.field == field


@pytest.mark.asyncio
async def test_call_ends_at_its_deadline_with_the_outcome_unknown():
    """The use case hangs. A call without a deadline ends after the default time."""

    async def hang() -> None:
        await asyncio.Event().wait()

    async with running_edge() as edge:
        edge.services["users"].answer = hang
        async with edge.admin() as channel:
            stub = users_pb2_grpc.UserServiceStub(channel)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.CreateUser(
                    users_pb2.CreateUserRequest(), timeout=0.2, metadata=BEARER
                )
    assert caught.value.code() is CODE.DEADLINE_EXCEEDED


def test_the_page_of_reasons_has_every_answer() -> None:
    """One reason may come with two statuses: a deadline, and a lost primary."""
    page = (Path(__file__).parents[2] / "docs/reasons.md").read_text()
    for answer in EXCEPTIONS.values():
        assert f"| `{answer.reason}` | {answer.code.name} |" in page
