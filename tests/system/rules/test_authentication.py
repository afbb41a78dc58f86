# SPDX-License-Identifier: Apache-2.0
"""Authenticating and request ids (A, Q), over three nodes."""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from sparecode_client import (
    AgentProtects,
    Authentication,
    Decision,
    InvalidArgument,
    NotPermitted,
    OutcomeUnknown,
    SparecodeError,
    TokencodeState,
    Unavailable,
    certificate_fingerprint,
)
from sparecode_client.connection.client import new_request_id
from tests.system.estate import PIN
from tests.system.rules.stage import Stage

pytestmark = [pytest.mark.asyncio, pytest.mark.timeout(300)]


async def test_right_code_with_a_wrong_pin_is_spent_nowhere(stage: Stage) -> None:
    """(A1, A2) Wrong, missing and cleared PIN, each at another node: the code lives on."""
    person = await stage.person()
    (code,) = await stage.issued(person, at=0, count=1)
    for node, passcode in enumerate(("9999" + code, code, PIN + code + "2")):
        assert not await stage.accepts(node, person, passcode)
        assert await stage.live((node + 1) % 3, person) == 1
        await stage.later(6)
    assert await stage.failures(0, person) == (0, 3)
    assert (await stage.why(1, person))[0] == "wrong_pin"
    await stage.admins[2].clear_pin(person.serial)
    assert not await stage.accepts(0, person, PIN + code)
    assert await stage.live(1, person) == 1
    await stage.admins[2].unlock_user(person.name)
    await stage.admins[0].set_pin(person.serial, "3682")
    assert await stage.accepts(1, person, "3682" + code)


async def test_one_of_nine_tries_at_once_spends_the_code(stage: Stage) -> None:
    """(A3, A5) Three at each node; all nodes name the same agent, node and index."""
    person = await stage.person()
    codes = await stage.issued(person, at=1, count=2)
    answers = await asyncio.gather(
        *(stage.accepts(each % 3, person, PIN + codes[0]) for each in range(9))
    )
    assert sum(answers) == 1
    shown = []
    for admin in stage.admins:
        access = await admin.get_emergency_access(person.serial)
        shown.append(next(code for code in access.sets[0].codes if code.ordinal == 1))
    assert shown == [shown[0]] * 3
    assert shown[0].state is TokencodeState.USED
    assert shown[0].index > 0
    # The other eight were no guesses.
    assert await stage.failures(0, person) == (0, 0)
    assert sorted(await stage.why(2, person)) == ["", *["code_not_live"] * 8]
    assert await stage.accepts(2, person, PIN + codes[1])


async def test_a_used_code_is_no_guess_whatever_the_pin(stage: Stage) -> None:
    """(A5) Used at node 1: right PIN at node 2 and wrong PIN at node 3 are uncharged."""
    person = await stage.person()
    codes = await stage.issued(person, at=2, count=2)
    assert await stage.accepts(0, person, PIN + codes[0])
    assert not await stage.accepts(1, person, PIN + codes[0])
    assert await stage.failures(2, person) == (0, 0)
    assert not await stage.accepts(2, person, "9999" + codes[0])
    assert await stage.failures(0, person) == (0, 0)
    assert (await stage.why(1, person))[1:] == ["code_not_live"] * 2
    assert not await stage.accepts(1, person, "9999" + codes[1])
    assert await stage.failures(0, person) == (0, 1)


Change = Callable[[Any, Any], Any]


async def test_who_may_not_come_in_comes_in_nowhere(
    stage: Stage, tmp_path: Path
) -> None:
    """
    (A4) Cloud, disabled and removed agents, a denied certificate, a disabled user.

    Said at one node, it holds at all three for connections that are open, and only
    the audit log says why. Tokencodes are judged for a cloud agent as for any.
    """
    person = await stage.person()
    codes = await stage.issued(person, at=0, count=12)
    agents = await stage.agents_of("gate", tmp_path)
    await stage.admins[0].register_agent("gate", "sparecode://agent/gate")
    fingerprint = certificate_fingerprint((tmp_path / "gate.pem").read_bytes())

    async def is_accepted(node: int, passcode: str) -> bool:
        return (await agents[node].authenticate(person.name, passcode)).accepted

    first, second, third = stage.admins
    for node in range(3):
        assert await is_accepted(node, PIN + codes.pop())

    async def refused(reason: str) -> None:
        for node in range(3):
            assert not await is_accepted(node, PIN + codes[0])
        assert [(await stage.why(node, person))[-1] for node in range(3)] == [
            reason
        ] * 3

    async def on_all() -> None:
        """Wait until every node knows what was committed: each turns away by itself."""
        for admin in stage.admins:
            await admin.get_user(person.name)

    await first.update_agent("gate", protects=AgentProtects.CLOUD)
    await refused("resource_not_covered")
    # The token counts as lost, but it was judged, not left aside.
    assert not await is_accepted(0, PIN + person.tokencode(0))
    assert (await stage.why(1, person))[-1] == "recovered_token_refused"
    await first.update_agent("gate", protects=AgentProtects.AUTHENTICATION_MANAGER)
    await second.update_agent("gate", enabled=False)
    await refused("agent_disabled")
    await third.update_agent("gate", enabled=True)
    await first.deny_certificate(fingerprint=fingerprint)
    await on_all()
    for node in range(3):
        with pytest.raises(NotPermitted):
            await is_accepted(node, PIN + codes[0])
    await second.allow_certificate(fingerprint=fingerprint)
    await on_all()
    await third.update_user(person.name, enabled=False)
    await refused("user_disabled")
    await first.update_user(person.name, enabled=True)
    for node in range(3):
        assert await is_accepted(node, PIN + codes.pop())
    await second.remove_agent("gate")
    await refused("agent_unknown")
    assert await stage.failures(2, person) == (0, 0)


async def test_without_a_quorum_no_user_is_accepted(stage: Stage) -> None:
    """
    (I2, A7) One node of three accepts and issues nothing.

    An unknown outcome may be a success: with the others back, the same request id gives
    the answer, at any node.
    """
    person = await stage.person()
    (code,) = await stage.issued(person, at=0, count=1)
    lost = stage.cluster.nodes[:2]
    for node in lost:
        node.kill()
    request_id = new_request_id()
    second = timedelta(seconds=3)
    with pytest.raises((Unavailable, OutcomeUnknown)):
        await stage.agents[2].authenticate(
            person.name, PIN + code, request_id=request_id, within=second
        )
    with pytest.raises(SparecodeError):
        await stage.admins[2].issue_tokencodes(person.serial, within=second)
    for node in lost:
        node.start()
    await asyncio.to_thread(stage.cluster.wait_ready)
    reports = [
        await agent.authenticate(person.name, PIN + code, request_id=request_id)
        for agent in stage.agents
    ]
    assert reports == [reports[0]] * 3
    assert reports[0].accepted
    assert await stage.everywhere(person, PIN + code) == [False] * 3
    access = await stage.admins[1].get_emergency_access(person.serial)
    assert len(access.sets) == 1


async def test_a_retry_at_another_node_is_told_the_same(stage: Stage) -> None:
    """(Q1, Q2) One spend, one charge; other content is refused as such; not once disabled."""
    person = await stage.person()
    codes = await stage.issued(person, at=2, count=2)

    async def ask(node: int, passcode: str, request_id: str) -> Authentication:
        return await stage.agents[node].authenticate(
            person.name, passcode, request_id=request_id
        )

    accepted = new_request_id()
    answers = [await ask(node, PIN + codes[0], accepted) for node in range(3)]
    assert answers == [answers[0]] * 3
    assert answers[0].accepted
    for node in range(3):
        with pytest.raises(InvalidArgument) as reused:
            await ask(node, PIN + codes[1], accepted)
        assert reused.value.reason == "REQUEST_ID_REUSED"
    wrong = new_request_id()
    for node in range(3):
        answer = await ask(node, "9999" + codes[1], wrong)
        assert answer.decision is Decision.REFUSED
    assert await stage.failures(1, person) == (0, 1)
    await stage.admins[1].update_user(person.name, enabled=False)
    for node in range(3):
        answer = await ask(node, PIN + codes[0], accepted)
        assert answer.decision is Decision.REFUSED


async def test_clocks_that_jump_ahead_together_forget_no_id(stage: Stage) -> None:
    """
    (Q2, Q3, T5) A quorum agrees on a wrong time, and the cluster takes it over.

    The retry of an accepted call is still accepted; ten minutes that have passed end it.
    """
    person = await stage.person()
    (code,) = await stage.issued(person, at=0, count=1)
    request_id = new_request_id()

    async def again(node: int) -> Authentication:
        return await stage.agents[node].authenticate(
            person.name, PIN + code, request_id=request_id
        )

    first = await again(0)
    assert first.accepted
    await stage.jump(3600)
    assert [await again(node) for node in range(3)] == [first] * 3
    await stage.later(11 * 60)
    assert not (await again(1)).accepted
    assert (await stage.why(1, person))[-1] == "code_not_live"


async def test_an_id_is_remembered_for_ten_minutes_on_every_node(stage: Stage) -> None:
    """(Q3) Of committed time: nine minutes later the same answer, then a used code."""
    person = await stage.person()
    (code,) = await stage.issued(person, at=0, count=1)
    request_id = new_request_id()

    async def again(node: int) -> Authentication:
        return await stage.agents[node].authenticate(
            person.name, PIN + code, request_id=request_id
        )

    first = await again(0)
    await stage.later(9 * 60)
    assert [await again(node) for node in range(3)] == [first] * 3
    await stage.later(2 * 60)
    answers = [await again(node) for node in (1, 2, 0)]
    assert not any(answer.accepted for answer in answers)
    assert (await stage.why(2, person))[-1] == "code_not_live"
