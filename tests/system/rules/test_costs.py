# SPDX-License-Identifier: Apache-2.0
"""The cost of an attempt on real nodes, read from their metrics (A6, T1, T4, I12)."""

import asyncio
import http.client
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Self

import pytest
from local_cluster.cluster import LocalNode
from prometheus_client.parser import text_string_to_metric_families

from tests.system.estate import PATIENCE, PIN
from tests.system.rules.stage import Person, Stage

pytestmark = [pytest.mark.asyncio, pytest.mark.timeout(300)]

ROUNDS = 2


@dataclass(frozen=True)
class Reading:
    """The counters of one node."""

    hashes: int
    """Of the authenticating lane."""
    issuing: int
    forwards: int
    commits: int
    """Proposals of its callers that a quorum has committed."""
    term: int
    is_primary: bool
    otherwise: int
    """Events that are no decision on a passcode: a node notes refused calls now and then."""

    @classmethod
    def of(cls, node: LocalNode) -> Self:
        """Ask a node for its metrics."""
        connection = http.client.HTTPConnection(node.metrics_address, timeout=60)
        try:
            connection.request("GET", "/metrics")
            text = connection.getresponse().read().decode()
        finally:
            connection.close()
        counted: Counter[str] = Counter()
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                name = sample.name.removeprefix("sparecode_")
                if name == "kdf_computed_total":
                    name = sample.labels["lane"]
                if name == "events_total" and sample.labels["action"] != "Authenticate":
                    name = "otherwise"
                if name == "proposal_seconds_count":
                    name = f"proposals {sample.labels['outcome']}"
                counted[name] += int(sample.value)
        return cls(
            hashes=counted["authenticating"],
            issuing=counted["issuing"],
            forwards=counted["forwards_total"],
            commits=counted["proposals applied"],
            term=counted["raft_term"],
            is_primary=counted["is_primary"] == 1,
            otherwise=counted["otherwise"],
        )


@dataclass(frozen=True)
class Cost:
    """The cost of a call on one node."""

    hashes: int = 0
    issuing: int = 0
    forwards: int = 0
    commits: int = 0


Readings = tuple[Reading, ...]


async def readings(stage: Stage) -> Readings:
    """Read all three nodes."""
    nodes = stage.cluster.nodes
    return tuple(
        await asyncio.gather(*(asyncio.to_thread(Reading.of, node) for node in nodes))
    )


async def costs(
    stage: Stage, call: Callable[[], Awaitable[object]]
) -> tuple[list[Cost], Readings]:
    """
    Return the cost of a call on each node, and the readings after it.

    The call is repeated if anything else happened at the same time: a change of the
    primary, or the recording of refused calls, which may still be on its way.
    """
    async with asyncio.timeout(PATIENCE.total_seconds()):
        while True:
            before = await readings(stage)
            await call()
            after = await readings(stage)
            undisturbed = all(
                (now.term, now.otherwise) == (then.term, then.otherwise)
                for now, then in zip(after, before, strict=True)
            )
            cost = [
                Cost(
                    hashes=now.hashes - then.hashes,
                    issuing=now.issuing - then.issuing,
                    forwards=now.forwards - then.forwards,
                    commits=now.commits - then.commits,
                )
                for now, then in zip(after, before, strict=True)
            ]
            # A node's own call that is on its way has no event yet.
            undisturbed &= all(each.forwards <= each.commits for each in cost)
            if undisturbed and any(each.is_primary for each in after):
                return cost, after


async def locked_person(stage: Stage) -> tuple[Person, str]:
    """Return a user locked for a quarter of an hour, and one of the user's codes."""
    person = await stage.person()
    (code,) = await stage.issued(person, at=1, count=1)
    policy = await stage.admins[0].get_policy()
    await stage.admins[0].update_policy(replace(policy, lock_from_failures=1))
    assert not await stage.accepts(2, person, PIN + "ABCDEFGH")
    now = await stage.admins[0].get_policy()
    await stage.admins[0].update_policy(replace(policy, version=now.version))
    return person, code


async def test_every_refusal_costs_the_same_at_every_node(stage: Stage) -> None:
    """
    (A6, T1, T4, L5) Interleaved, at each of three nodes, with the counters of all three.

    Unknown user, blank name, wrong PIN, wrong code, used code, nothing typed, locked,
    disabled: two hashes where it was asked and none elsewhere, one call handed to the
    primary by each of the others and none by itself, one commit.
    """
    used, disabled = await stage.person(), await stage.person()
    code, live = await stage.issued(used, count=2)
    assert await stage.accepts(0, used, PIN + code)
    locked, right = await locked_person(stage)
    await stage.admins[0].update_user(disabled.name, enabled=False)
    attempts = {
        "unknown user": ("nobody-of-that-name", PIN + live),
        "no name": ("", PIN + live),
        "used code": (used.name, PIN + code),
        "nothing": (used.name, ""),
        "wrong PIN": (used.name, "9999" + live),
        "wrong code": (used.name, PIN + "ABCDEFGH"),
        "locked, wrong": (locked.name, PIN + "ABCDEFGH"),
        "locked, right": (locked.name, PIN + right),
        "disabled": (disabled.name, PIN + "123456"),
    }
    for number in range(ROUNDS * 3):
        for what, (name, passcode) in attempts.items():
            node = number % 3

            async def refused() -> None:
                answer = await stage.agents[node].authenticate(name, passcode)  # noqa: B023
                assert not answer.accepted
                assert answer.challenge == b""

            result, after = await costs(stage, refused)
            calls = Cost(hashes=2, forwards=int(not after[node].is_primary), commits=1)
            expected = [calls if other == node else Cost() for other in range(3)]
            assert result == expected, (what, node)
    reasons = set(await stage.why(1, used)) | set(await stage.why(2, disabled))
    assert reasons == {
        *("", "code_not_live", "wrong_pin", "wrong_passcode", "locked"),
        "user_disabled",
    }
    assert set((await stage.why(2, locked))[1:]) == {"locked"}


async def test_the_node_that_issues_hashes_in_a_lane_of_its_own(stage: Stage) -> None:
    """(I12, T1) Twenty codes at one node: no other hashes, and no agent waits for them."""
    for node in range(3):
        person = await stage.person()
        before = await readings(stage)
        await stage.issued(person, at=node, count=20)
        after = await readings(stage)
        for other in range(3):
            issuing = after[other].issuing - before[other].issuing
            assert issuing == (20 if other == node else 0)
            assert after[other].hashes == before[other].hashes
