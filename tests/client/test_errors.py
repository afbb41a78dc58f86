# SPDX-License-Identifier: Apache-2.0
"""Errors that a caller catches, by the status of a node."""

import re
from collections.abc import Callable

import grpc
import pytest

import sparecode_client
from sparecode_client import (
    Admin,
    AlreadyExists,
    AsyncAdmin,
    InvalidArgument,
    NodeFailed,
    NotFound,
    NotPermitted,
    NotSignedIn,
    OutcomeUnknown,
    Overloaded,
    Refused,
    SparecodeError,
    Unavailable,
    errors,
)
from sparecode_client.connection.client import Client
from tests.client.conftest import Pki
from tests.client.fakes import Failure, FakeNode

Code = grpc.StatusCode
CREATE = "UserService/CreateUser"


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("code", "reason", "error"),
    [
        (Code.INVALID_ARGUMENT, "FIELD", InvalidArgument),
        (Code.INVALID_ARGUMENT, "REQUEST_ID_REUSED", InvalidArgument),
        (Code.FAILED_PRECONDITION, "TOKEN_EXPIRED", Refused),
        (Code.FAILED_PRECONDITION, "DRAFT_STALE", Refused),
        (Code.NOT_FOUND, "TOKEN_UNKNOWN", NotFound),
        (Code.ALREADY_EXISTS, "USER_EXISTS", AlreadyExists),
        (Code.UNAUTHENTICATED, "SESSION_ENDED", NotSignedIn),
        (Code.PERMISSION_DENIED, "ROLE", NotPermitted),
        (Code.PERMISSION_DENIED, "SELF_SERVICE_FORBIDDEN", NotPermitted),
        (Code.ABORTED, "VERSION", Refused),
        (Code.RESOURCE_EXHAUSTED, "OVERLOADED", Overloaded),
        (Code.RESOURCE_EXHAUSTED, "RATE", Overloaded),
        (Code.UNAVAILABLE, "NO_QUORUM", Unavailable),
        (Code.UNAVAILABLE, "NO_PRIMARY", Unavailable),
        (Code.UNAVAILABLE, "CLOCK", Unavailable),
        (Code.UNAVAILABLE, "NOT_OPEN", Unavailable),
        (Code.UNAVAILABLE, "OUTCOME_UNKNOWN", OutcomeUnknown),
        (Code.DEADLINE_EXCEEDED, "OUTCOME_UNKNOWN", OutcomeUnknown),
        (Code.INTERNAL, "", NodeFailed),
        (Code.UNIMPLEMENTED, "", NodeFailed),
    ],
)
async def test_each_status_has_its_error(
    connect: Callable[..., Client],
    nodes: list[FakeNode],
    code: grpc.StatusCode,
    reason: str,
    error: type[SparecodeError],
) -> None:
    """(A7) Row by row, as the API defines them."""
    nodes[0].answer(CREATE, Failure(code, reason, "in words", retry_after_s=60))
    admin = AsyncAdmin.over(connect(nodes[0].address))

    with pytest.raises(SparecodeError) as caught:
        await admin.create_user("alice")

    assert type(caught.value) is error
    assert caught.value.reason == (reason or code.name)
    assert "in words" in str(caught.value)


@pytest.mark.asyncio
async def test_bad_field_is_named(
    connect: Callable[..., Client], nodes: list[FakeNode]
) -> None:
    nodes[0].answer(
        CREATE,
        Failure(Code.INVALID_ARGUMENT, "FIELD", "is longer than 254", field="email"),
    )

    with pytest.raises(InvalidArgument) as caught:
        await AsyncAdmin.over(connect(nodes[0].address)).create_user("alice")

    assert caught.value.field == "email"
    assert caught.value.description == "is longer than 254"
    assert str(caught.value) == "email: is longer than 254"


def test_error_tree_in_the_docstring_is_right() -> None:
    tree = set(re.findall(r"^ *[*-] (\w+)", errors.__doc__ or "", re.MULTILINE))
    defined = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, SparecodeError)
    }

    assert tree == defined
    assert defined <= set(sparecode_client.__all__)


def test_unknown_outcome_is_not_caught_as_not_applied() -> None:
    """(A7) `except Unavailable` means that nothing was applied."""
    assert not issubclass(OutcomeUnknown, Unavailable)


def test_a_timeout_in_another_type_is_named(pki: Pki, nodes: list[FakeNode]) -> None:
    """A number of seconds is an easy mistake."""
    with (
        Admin([nodes[0].address], ca=pki.ca) as admin,
        pytest.raises(TypeError, match=r"a timeout is a datetime\.timedelta, not 2"),
    ):
        admin.list_users(within=2)  # type: ignore[arg-type]
