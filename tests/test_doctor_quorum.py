# SPDX-License-Identifier: Apache-2.0
"""The members that the doctor counts for a quorum: only voters."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import cast

import pytest

from sparecode_node.domain.ids import NodeId
from sparecode_node.replication.links.tls import PeerTls
from sparecode_node.replication.replicator import MemberStatus
from sparecode_node.services.ambient import SystemClock
from sparecode_node.tool.doctor import machine
from sparecode_node.tool.doctor.findings import Verdict
from sparecode_node.tool.doctor.membership import voters_among

N1, N2, N3, N4 = (NodeId(f"n{number}") for number in range(1, 5))
NO_TLS = cast("PeerTls", None)


async def failures(
    monkeypatch: pytest.MonkeyPatch,
    *,
    reached: Sequence[NodeId],
    other_voters: Sequence[NodeId],
    votes: bool = True,
    refusals: Mapping[NodeId, str] = MappingProxyType({}),
) -> list[str]:
    """Return the failures on n1, which knows n2, n3 and n4."""
    clock = SystemClock()

    async def ask(addresses, _tls, *, timeout_s, hello):
        return [
            MemberStatus(
                node_id=member,
                reachable=member in reached,
                refusal=refusals.get(member, ""),
                clock_ms=clock.now_ms(),
            )
            for member in addresses
        ]

    monkeypatch.setattr(machine, "ask_members", ask)
    result = await machine.check_peers(
        dict.fromkeys((N2, N3, N4), "h:1"),
        NO_TLS,
        clock,
        other_voters=other_voters,
        votes=votes,
    )
    return [each.words for each in result if each.verdict is Verdict.FAIL]


def no_quorum(reached: int, voters: int) -> str:
    """Return the words of the finding."""
    return (
        f"{reached} of {voters} voters can be reached, which is not a quorum: start the "
        "others, or check the network"
    )


@pytest.mark.asyncio
async def test_stopped_learner_does_not_break_the_quorum(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two of three voters are a quorum, even if a learner has joined."""
    assert await failures(monkeypatch, reached=[N2], other_voters=[N2, N3]) == []
    result = await failures(monkeypatch, reached=[N2], other_voters=[N2, N3, N4])
    assert result == [no_quorum(2, 4)]


@pytest.mark.asyncio
async def test_learner_does_not_count_for_the_quorum(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    result = await failures(monkeypatch, reached=[N4], other_voters=[N2, N3])
    assert result == [no_quorum(1, 3)]


@pytest.mark.asyncio
async def test_node_that_does_not_vote_does_not_count_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    voters = [N2, N3, N4]
    report = {"other_voters": voters, "votes": False}
    assert await failures(monkeypatch, reached=[N2, N3], **report) == []
    result = await failures(monkeypatch, reached=[N2], **report)
    assert result == [no_quorum(1, 3)]


@pytest.mark.asyncio
async def test_refusal_of_a_member_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Other members cannot help, so a missing quorum is not reported."""
    result = await failures(
        monkeypatch,
        reached=[],
        other_voters=[N2, N3],
        refusals={N2: "another journal", N3: "removed"},
    )
    assert len(result) == 2
    assert result[0].startswith("n2 refuses this node: this node's journal is not")
    assert "docs/runbooks/blank-node.md" in result[0]
    assert "docs/runbooks/removed-node.md" in result[1]
    result = await failures(
        monkeypatch,
        reached=[],
        other_voters=[N2, N3],
        refusals={N2: "not a member"},
    )
    assert result == ["n2 refuses this node: not a member", no_quorum(1, 3)]


def test_without_a_journal_all_members_are_voters() -> None:
    assert voters_among([N1, N2], None) == {N1, N2}
