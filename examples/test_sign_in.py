# SPDX-License-Identifier: Apache-2.0
"""
Tests of `sign_in.py`: against a real cluster's decisions, without a cluster.

    pip install "sparecode[node]" pytest
    pytest examples
"""

from collections.abc import Iterator
from datetime import timedelta

import pytest

from sign_in import sign_in
from sparecode_client import OutcomeUnknown, Unavailable
from sparecode_client.testing import FakeCluster


@pytest.fixture(scope="module")
def cluster() -> Iterator[FakeCluster]:
    with FakeCluster() as cluster:
        yield cluster


def typing(*answers: str):
    """Return a prompt that a user answers with *answers*, in their order."""
    left = iter(answers)
    return lambda _question: next(left)


def test_a_tokencode_opens_once(cluster: FakeCluster):
    alice = cluster.add_user("alice", pin="4719")
    agent = cluster.agent("vpn")
    passcode = alice.passcode()

    assert sign_in(agent, "alice", typing(passcode))
    assert not sign_in(agent, "alice", typing(passcode))


def test_an_emergency_code_works_when_a_node_is_down(cluster: FakeCluster):
    bob = cluster.add_user("bob", pin="4719")
    [code, *_] = bob.issue_codes()
    agent = cluster.agent("vpn")
    cluster.stop_node("n1")
    try:
        assert sign_in(agent, "bob", typing(bob.passcode(code)))
    finally:
        cluster.start_node("n1")


def test_a_user_who_guessed_gets_in_an_hour_later(cluster: FakeCluster):
    carol = cluster.add_user("carol", pin="4719")
    agent = cluster.agent("vpn")
    for _ in range(5):
        assert not sign_in(agent, "carol", typing("4719000000", "000000"))

    cluster.advance(timedelta(hours=1))

    assert sign_in(agent, "carol", typing(carol.passcode(), carol.tokencode()))


def test_without_a_decision_no_one_enters(cluster: FakeCluster):
    dave = cluster.add_user("dave", pin="4719")
    agent = cluster.agent("vpn")

    with cluster.no_quorum(), pytest.raises(Unavailable):
        sign_in(agent, "dave", typing(dave.passcode()))


def test_an_unknown_outcome_is_found_out(cluster: FakeCluster):
    erin = cluster.add_user("erin", pin="4719")
    agent = cluster.agent("vpn")
    passcode = erin.passcode()
    with cluster.lost_answers(), pytest.raises(OutcomeUnknown) as unknown:
        agent.authenticate("erin", passcode)

    again = agent.authenticate("erin", passcode, request_id=unknown.value.request_id)

    assert again.accepted
    assert not agent.authenticate("erin", passcode).accepted
