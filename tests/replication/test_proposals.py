# SPDX-License-Identifier: Apache-2.0
"""Proposals that cannot be stamped, or do not fit, are answered and hold up no other."""

from collections.abc import Sequence

import pytest

from sparecode_node.replication.errors import NotAppliedError, OverloadedError
from sparecode_node.replication.raft import proposals
from sparecode_node.replication.raft.proposals import Outcome, Pending, Proposals
from sparecode_node.replication.replicator import Proposal
from sparecode_node.statemachine.commands import Call
from tests.replication.recording_state import FixedStamper, call

BAD = "bad"


class Broken(FixedStamper):
    """Fails at one request."""

    def stamp(self, proposals: Sequence[Proposal]) -> tuple[Call, ...]:
        if any(each.call.request.request_id == BAD for each in proposals):
            raise ArithmeticError
        return super().stamp(proposals)


class Refusing(FixedStamper):
    """Refuses one request."""

    def stamp(
        self, proposals: Sequence[Proposal]
    ) -> tuple[Call | NotAppliedError, ...]:
        return tuple(
            OverloadedError("too late")
            if each.call.request.request_id == BAD
            else each.call.stamped(self.at_ms)
            for each in proposals
        )


def submitted(queue: Proposals, *request_ids: str) -> dict[str, list[Outcome]]:
    """Submit calls, and return where their outcomes will be."""
    outcomes: dict[str, list[Outcome]] = {each: [] for each in request_ids}
    for each in request_ids:
        proposal = Proposal(call=call(each))
        queue.submit(Pending(proposal, 10.0, outcomes[each].append))
    return outcomes


def test_a_call_that_cannot_be_stamped_stops_no_primary() -> None:
    queue = Proposals(Broken())
    told = submitted(queue, "one", BAD)
    assert queue.take() is None
    for outcome in (told["one"], told[BAD]):
        assert len(outcome) == 1
        assert isinstance(outcome[0], OverloadedError)
    submitted(queue, "two")
    entry = queue.take()
    assert entry is not None
    assert len(entry.waiting) == 1


def test_a_refused_call_holds_up_no_other_of_its_entry() -> None:
    queue = Proposals(Refusing())
    told = submitted(queue, "one", BAD, "two")
    entry = queue.take()
    assert entry is not None
    assert [each.proposal.call.request.request_id for each in entry.waiting] == [
        "one",
        "two",
    ]
    assert [str(each) for each in told[BAD]] == ["too late"]
    assert told["one"] == told["two"] == []


def test_no_entry_is_made_of_refused_calls_alone() -> None:
    queue = Proposals(Refusing())
    told = submitted(queue, BAD)
    assert queue.take() is None
    assert len(told[BAD]) == 1


def test_what_does_not_fit_waits_and_what_never_fits_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    queue = Proposals(FixedStamper())
    submitted(queue, "alone")
    alone = queue.take()
    assert alone is not None
    monkeypatch.setattr(proposals, "COMMAND_BYTES_MAX", len(alone.payload))
    told = submitted(queue, "first", "again", "third")
    entries = [queue.take() for _ in range(3)]
    assert all(each and len(each.waiting) == 1 for each in entries)
    assert not any(told.values())
    told = submitted(queue, "longer than the others")
    assert queue.take() is None
    assert "too large" in str(told["longer than the others"])
