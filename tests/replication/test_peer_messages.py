# SPDX-License-Identifier: Apache-2.0
"""Messages between members about a call keep their meaning."""

from collections.abc import Iterator

import pytest

from sparecode.internal.v1 import peers_pb2
from sparecode_node.domain.ids import NodeId
from sparecode_node.replication import errors
from sparecode_node.replication.calls import peer_messages
from sparecode_node.replication.codec import encode_call
from sparecode_node.replication.errors import (
    ChangeRefusedError,
    MalformedCallError,
    NoPrimaryError,
    NotAppliedError,
    RemovedError,
)
from sparecode_node.replication.settings import CALL_BYTES_MAX
from tests.replication.recording_state import call


def kinds_of(error: type[NotAppliedError]) -> Iterator[type[NotAppliedError]]:
    """Yield all errors of that kind that a primary can raise here."""
    for each in error.__subclasses__():
        if each.__module__ == errors.__name__:
            yield each
            yield from kinds_of(each)


ERRORS = sorted(
    set(kinds_of(NotAppliedError)) - {ChangeRefusedError, RemovedError}, key=repr
)
"""
The refusal of a change is told with its reason, in a message of its own. `RemovedError`
is about the node that raises it: to another member that node is no primary.
"""


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.__name__)
def test_the_forwarding_member_learns_why_a_call_was_not_applied(
    error: type[NotAppliedError],
) -> None:
    """Otherwise the caller hears of a missing primary when a clock is wrong."""
    response = peer_messages.not_applied(error("because"))
    assert type(peer_messages.outcome_of(response)) is error
    read = peer_messages.not_readable(error("because"))
    assert type(peer_messages.error_of(read.not_applied)) is error


def test_every_kind_that_can_be_told_is_an_error_of_its_own() -> None:
    kinds = set(peers_pb2.NotAppliedKind.values())
    kinds -= {peers_pb2.NOT_APPLIED_KIND_UNSPECIFIED}
    results = {type(peer_messages.error_of(kind)) for kind in kinds}
    assert results == set(ERRORS)


def test_a_removed_node_is_no_primary_to_another_member() -> None:
    """Otherwise the forwarding member would tell its own callers that it was removed."""
    response = peer_messages.not_applied(RemovedError("n1"))
    assert type(peer_messages.outcome_of(response)) is NoPrimaryError


def test_a_kind_of_a_newer_release_is_not_applied_all_the_same() -> None:
    response = peers_pb2.ForwardResponse()
    response.MergeFromString(b"\x10\x63")  # not_applied: 99
    assert type(peer_messages.outcome_of(response)) is NoPrimaryError


def test_the_time_of_a_forwarded_call_is_dropped() -> None:
    """(T1) Only the primary's clocks count."""
    forwarded = call("r", "n2").stamped(4_000_000_000_000, monotonic_ms=7)
    request = peer_messages.request_of(encode_call(forwarded), (), timeout_s=1)
    assert peer_messages.proposal_of(NodeId("n2"), request).call == call("r", "n2")


@pytest.mark.parametrize(
    ("caller", "data"),
    [
        ("n3", encode_call(call("r", "n2"))),
        ("n2", encode_call(call("r" * CALL_BYTES_MAX, "n2"))),
        ("n2", b"\xff"),
    ],
    ids=["of another node", "too large", "nonsense"],
)
def test_what_is_no_call_of_the_callers_own_is_refused(
    caller: str, data: bytes
) -> None:
    request = peer_messages.request_of(data, (), timeout_s=1)
    with pytest.raises(MalformedCallError):
        peer_messages.proposal_of(NodeId(caller), request)
