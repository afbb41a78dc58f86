# SPDX-License-Identifier: Apache-2.0
"""Tokens, PINs, and tokens that come back (K, R, T2), over three nodes."""

import asyncio
import datetime as dt
import os
import signal

import pytest

from sparecode_client import (
    AlreadyExists,
    Decision,
    InvalidArgument,
    NewToken,
    RecoveryPolicy,
    Refused,
    TokenFileFormat,
)
from tests.system.estate import PIN
from tests.system.rules.stage import Person, Stage, seed_of

pytestmark = [pytest.mark.asyncio, pytest.mark.timeout(300)]

HOUR_S = 3600
HOUR = dt.timedelta(hours=1)


async def test_a_tokencode_is_accepted_once_by_all_nodes_together(
    stage: Stage,
) -> None:
    """(K1) Nine tries at three nodes at once; an earlier one is spent with it."""
    person = await stage.person()
    answers = await asyncio.gather(
        *(
            stage.accepts(each % 3, person, PIN + person.tokencode(3))
            for each in range(9)
        )
    )
    assert sum(answers) == 1
    await stage.admins[0].unlock_user(person.name)
    assert not await stage.accepts(1, person, PIN + person.tokencode(2))
    await stage.later(2)
    assert await stage.accepts(2, person, PIN + person.tokencode(4))


async def test_a_pin_follows_the_policy_at_every_node(stage: Stage) -> None:
    """(K2) Too short, too long, letters: for every way to set it, and at once."""
    person = await stage.person()
    for node, pin in enumerate(("123", "123456789", "12ab")):
        with pytest.raises(InvalidArgument) as wrong:
            await stage.admins[node].set_pin(person.serial, pin)
        assert wrong.value.field == "pin"
    assert await stage.accepts(0, person, PIN + person.tokencode(0))
    await stage.admins[1].set_pin(person.serial, "314271")
    assert not await stage.accepts(2, person, PIN + person.tokencode(1))
    await stage.later(2)
    assert await stage.accepts(0, person, "314271" + person.tokencode(1))


async def test_a_challenge_ends_after_two_minutes_on_every_node(stage: Stage) -> None:
    """(K3) Asked at node 1: refused at node 2 to another time, accepted at node 3 in it."""
    person = await stage.person(pin="")
    late = await stage.agents[0].authenticate(person.name, person.tokencode(0))
    assert late.decision is Decision.NEW_PIN_REQUIRED
    await stage.later(121)
    for agent in stage.agents:
        answer = await agent.continue_authentication(
            late, person.tokencode(1), new_pin="314271"
        )
        assert answer.decision is Decision.REFUSED
    assert not (await stage.admins[1].get_token(person.serial)).pin_set
    await stage.admins[0].unlock_user(person.name)
    response = await stage.agents[1].authenticate(person.name, person.tokencode(5))
    assert response.decision is Decision.NEW_PIN_REQUIRED
    await stage.later(100)
    answer = await stage.agents[2].continue_authentication(
        response, person.tokencode(6), new_pin="314271"
    )
    assert answer.accepted
    assert await stage.accepts(0, person, "314271" + person.tokencode(7))


async def test_a_file_goes_in_at_one_node_row_by_row(stage: Stage) -> None:
    """(K4, K5) Bad rows stop no other; the good ones are on every node."""
    rows = (
        "serial,seed,seed_format\n"
        f"rows-1,{seed_of('rows-1').hex()},hex\n"
        "rows-2,not hexadecimal,hex\n"
        f"rows-3,{seed_of('rows-3').hex()},hex\n"
        f"rows-1,{seed_of('rows-1').hex()},hex\n"
        f"rows-4,{seed_of('rows-3').hex()},hex\n"
    )
    results = await stage.admins[1].import_tokens(
        rows.encode(), form=TokenFileFormat.CSV
    )
    assert [row.imported for row in results] == [True, False, True, False, False]
    assert [row.reason for row in results[3:]] == ["TOKEN_EXISTS", "SEED_EXISTS"]
    spare = NewToken(serial="rows-5", seed=seed_of("rows-1"))
    with pytest.raises(AlreadyExists, match="token rows-1 has the same seed"):
        await stage.admins[2].enroll_token(spare)
    for admin in stage.admins:
        assert (await admin.get_token("rows-1")).serial == "rows-1"
        assert (await admin.get_token("rows-3")).serial == "rows-3"


async def issue(stage: Stage, person: Person, policy: RecoveryPolicy) -> list[str]:
    """Issue three codes for an hour at node 2."""
    issued = await stage.admins[1].issue_tokencodes(
        person.serial, count=3, lifetime=HOUR, recovery_policy=policy
    )
    return [code.code for code in issued.codes]


async def test_denied_token_works_again_only_once_it_is_reinstated(
    stage: Stage,
) -> None:
    """(R2, R4) Not after the set has ended, nor when it is off: by hand, at any node."""
    person = await stage.person()
    assert await stage.accepts(0, person, PIN + person.tokencode(0))
    codes = await issue(stage, person, RecoveryPolicy.DENY)
    assert not await stage.accepts(2, person, PIN + person.tokencode(1))
    assert await stage.accepts(0, person, PIN + codes[0])
    await stage.admins[0].disable_emergency_access(person.serial)
    assert await stage.everywhere(person, PIN + codes[1]) == [False] * 3
    assert await stage.everywhere(person, PIN + person.tokencode(2)) == [False] * 3
    await stage.later(2 * HOUR_S)
    assert await stage.everywhere(person, PIN + person.tokencode(3)) == [False] * 3
    assert await stage.failures(1, person) == (0, 0)
    await stage.admins[2].reinstate_token(person.serial)
    assert await stage.accepts(0, person, PIN + person.tokencode(4))
    for node in range(3):
        noted = await stage.noted(node, person)
        actions = [action for action, _ in noted]
        assert actions.count("RECOVERED_TOKEN_REFUSED") == 7
        assert actions.count("CODES_VOIDED") == 1
        assert all(cause for _, cause in noted)


async def test_token_that_comes_back_voids_its_codes_on_every_node(
    stage: Stage,
) -> None:
    """(R4) `ALLOW_AND_DISABLE`: accepted at node 3, and no code is good any more."""
    person = await stage.person()
    codes = await issue(stage, person, RecoveryPolicy.ALLOW_AND_DISABLE)
    assert await stage.accepts(0, person, PIN + codes[0])
    assert await stage.accepts(2, person, PIN + person.tokencode(1))
    assert await stage.everywhere(person, PIN + codes[1]) == [False] * 3
    assert not (await stage.admins[1].get_token(person.serial)).lost
    assert await stage.accepts(1, person, PIN + person.tokencode(2))
    actions = [action for action, _ in await stage.noted(0, person)]
    assert actions.count("RECOVERED_TOKEN_ACCEPTED") == 1
    assert actions.count("CODES_VOIDED") == 1


async def test_token_works_from_the_end_of_its_set_on(stage: Stage) -> None:
    """(R1) `ALLOW_AFTER_EXPIRY`: needs an end before the token's, and waits for it."""
    person = await stage.person()
    policy = RecoveryPolicy.ALLOW_AFTER_EXPIRY
    with pytest.raises(Refused) as refused:
        await stage.admins[0].issue_tokencodes(person.serial, recovery_policy=policy)
    assert refused.value.reason == "RECOVERY_NEEDS_END"
    await stage.admins[2].update_token(
        person.serial, expire_time=stage.clocks.now() + HOUR / 2
    )
    with pytest.raises(Refused) as refused:
        await issue(stage, person, policy)
    assert refused.value.reason == "RECOVERY_END_TOO_LATE"
    await stage.admins[2].update_token(person.serial, expire_time=None)
    await issue(stage, person, policy)
    assert await stage.everywhere(person, PIN + person.tokencode(1)) == [False] * 3
    await stage.later(HOUR_S + 1)
    assert await stage.accepts(0, person, PIN + person.tokencode(2))
    assert await stage.accepts(2, person, PIN + person.tokencode(3))


async def test_voided_codes_revive_no_lost_token(stage: Stage) -> None:
    """
    (R2) The newest set has ended, and kept codes live: the token waits for these.

    Voiding them early, at any node, does not revive the token.
    """
    person = await stage.person()
    policy = RecoveryPolicy.ALLOW_AFTER_EXPIRY
    await stage.admins[0].issue_tokencodes(
        person.serial, count=2, lifetime=4 * HOUR, recovery_policy=policy
    )
    await stage.admins[1].issue_tokencodes(
        person.serial,
        count=2,
        lifetime=HOUR,
        recovery_policy=policy,
        keep_unused_codes=True,
    )
    await stage.later(HOUR_S + 1)
    assert await stage.everywhere(person, PIN + person.tokencode(0)) == [False] * 3
    await stage.admins[2].disable_emergency_access(person.serial)
    assert await stage.everywhere(person, PIN + person.tokencode(1)) == [False] * 3
    assert (await stage.why(0, person))[-3:] == ["recovered_token_refused"] * 3
    await stage.admins[1].reinstate_token(person.serial)
    assert await stage.accepts(0, person, PIN + person.tokencode(2))


async def test_used_up_codes_do_not_revive_a_lost_token(stage: Stage) -> None:
    """(R2, R4) Low and exhausted are events on every node; the token waits for the end."""
    person = await stage.person()
    codes = await issue(stage, person, RecoveryPolicy.ALLOW_AFTER_EXPIRY)
    for node, code in enumerate(codes):
        assert await stage.accepts(node, person, PIN + code)
    assert await stage.everywhere(person, PIN + person.tokencode(1)) == [False] * 3
    for node in range(3):
        actions = [action for action, _ in await stage.noted(node, person)]
        assert actions[:3] == ["SET_LOW", "SET_LOW", "SET_EXHAUSTED"]
        assert actions[3:] == ["RECOVERED_TOKEN_REFUSED"] * 3
    await stage.later(HOUR_S + 1)
    assert await stage.accepts(0, person, PIN + person.tokencode(2))


async def test_what_becomes_of_the_token_voids_its_codes_everywhere(
    stage: Stage,
) -> None:
    """(R3) Disabled, unassigned, replaced, deleted: said at one node, void at the others."""
    for number in range(4):
        person = await stage.person()
        (code,) = await stage.issued(person, at=number % 3, count=1)
        first, second, third = stage.admins
        match number:
            case 0:
                await second.disable_token(person.serial)
                await third.enable_token(person.serial)
            case 1:
                await third.unassign_token(person.serial)
                await first.assign_token(person.serial, person.name)
                await first.set_pin(person.serial, PIN)
            case 2:
                spare = NewToken(serial="spare-one", seed=seed_of("spare-one"))
                await first.enroll_token(spare)
                await first.replace_token(person.serial, "spare-one", keep_pin=True)
            case 3:
                await second.delete_token(person.serial)
        assert await stage.everywhere(person, PIN + code) == [False] * 3
        for node in range(3):
            actions = [action for action, _ in await stage.noted(node, person)]
            assert actions == ["CODES_VOIDED"]


async def test_a_replica_that_lags_accepts_a_user_it_does_not_know(
    stage: Stage,
) -> None:
    """
    (T2) A node is paused while a user is added, and called before it has caught up.

    It computes as for an unknown name. The primary answers that this is stale, and the
    node computes again: the passcode is right, and no one is charged.
    """
    lagging = (await stage.primary() + 1) % 3
    one, other = (number for number in range(3) if number != lagging)
    pid = stage.cluster.nodes[lagging].pid
    assert pid is not None
    await stage.agents[lagging].authenticate("nobody", "x")  # It is connected.
    os.kill(pid, signal.SIGSTOP)
    try:
        # Much that it has to apply before, when it goes on.
        agent = stage.agents[other]
        await asyncio.gather(*(agent.authenticate("nobody", "x") for _ in range(100)))
        person = await stage.person(at=(one, other, one))
        passcode = PIN + person.tokencode(0)
        calls = asyncio.create_task(stage.accepts(lagging, person, passcode))
        await stage.failures(one, person)  # Meanwhile it is sent.
    finally:
        os.kill(pid, signal.SIGCONT)
    assert await calls
    assert await stage.failures(other, person) == (0, 0)
    assert await stage.why(lagging, person) == [""]
