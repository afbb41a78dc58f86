# SPDX-License-Identifier: Apache-2.0
"""Issuing (I): asked of one node, used on another, looked at on a third."""

import asyncio
import datetime as dt
import re
from dataclasses import replace

import pytest

from sparecode.v1 import emergency_access_pb2
from sparecode_client import (
    AdministratorRole,
    InvalidArgument,
    NotPermitted,
    PinRule,
    RecoveryPolicy,
    Refused,
    TokencodeState,
)
from sparecode_client.connection.client import new_request_id
from sparecode_node.domain.policy import UNAMBIGUOUS
from tests.system.estate import PATIENCE, PIN
from tests.system.rules.stage import Person, Stage

pytestmark = [pytest.mark.asyncio, pytest.mark.timeout(300)]

HOUR = dt.timedelta(hours=1)


async def test_what_one_node_changes_decides_whether_another_issues(
    stage: Stage,
) -> None:
    """(I1) Not assigned, no PIN, disabled, user disabled, expired: each at another node."""
    first, second, third = stage.admins
    person = await stage.person(pin="")

    async def refused(node: int) -> str:
        with pytest.raises(Refused) as refusal:
            await stage.issued(person, at=node)
        return refusal.value.reason

    assert await refused(1) == "PIN_NOT_SET"
    await first.set_pin(person.serial, PIN)
    await second.disable_token(person.serial)
    assert await refused(2) == "TOKEN_DISABLED"
    await second.enable_token(person.serial)
    await third.update_user(person.name, enabled=False)
    assert await refused(0) == "USER_DISABLED"
    await third.update_user(person.name, enabled=True)
    await first.update_token(person.serial, expire_time=stage.clocks.now() - HOUR)
    assert await refused(1) == "TOKEN_EXPIRED"
    await first.update_token(person.serial, expire_time=None)
    assert len(await stage.issued(person, at=2)) == 3
    await second.unassign_token(person.serial)
    assert await refused(0) == "TOKEN_NOT_ASSIGNED"


async def test_any_node_issues_and_every_other_accepts(stage: Stage) -> None:
    """(I2) Three nodes issue; what one has given out, the other two accept at once."""
    for node in range(3):
        person = await stage.person()
        codes = await stage.issued(person, at=node, count=2)
        access = await stage.admins[(node + 1) % 3].get_emergency_access(person.serial)
        assert access.sets[0].node_id == stage.cluster.nodes[node].node_id
        for other, code in zip(((node + 1) % 3, (node + 2) % 3), codes, strict=True):
            assert await stage.accepts(other, person, PIN + code)


async def test_a_draft_of_one_node_is_saved_on_another_once(stage: Stage) -> None:
    """(I3) Not active before; once; stale after a change, and after fifteen minutes."""
    first, second, third = stage.admins
    person = await stage.person()
    generated = await first.generate_tokencodes(person.serial, count=2)
    codes = [code.code for code in generated.codes]
    for code in codes:
        assert code.replace("-", "").encode() not in generated.draft
    # What was only generated is a wrong code, and charged; so is a guess.
    assert not await stage.accepts(1, person, PIN + codes[0])
    await first.unlock_user(person.name)
    generated = await first.generate_tokencodes(person.serial, count=2)
    await third.save_emergency_access(generated)
    assert await stage.accepts(0, person, PIN + generated.codes[0].code)
    for admin in stage.admins:
        with pytest.raises(Refused) as refused:
            await admin.save_emergency_access(generated)
        assert refused.value.reason == "DRAFT_STALE"

    changed = await second.generate_tokencodes(person.serial, count=2)
    await third.set_pin(person.serial, "3682")
    with pytest.raises(Refused) as refused:
        await first.save_emergency_access(changed)
    assert refused.value.reason == "DRAFT_STALE"

    late = await second.generate_tokencodes(person.serial, count=2)
    await stage.later(16 * 60)
    with pytest.raises(Refused) as refused:
        await first.save_emergency_access(late)
    assert refused.value.reason == "DRAFT_STALE"
    assert await stage.live(2, person) == 1


async def test_live_codes_of_a_token_are_counted_across_nodes(stage: Stage) -> None:
    """(I4) None, too many, and too many with those that another node has issued."""
    person = await stage.person()
    for node, count in enumerate((0, 51, -1)):
        with pytest.raises(InvalidArgument, match="1 to 50") as wrong:
            await stage.admins[node].generate_tokencodes(person.serial, count=count)
        assert wrong.value.field == "count"
    await stage.issued(person, at=0, count=30)
    with pytest.raises((Refused, InvalidArgument), match="51 live codes"):
        await stage.admins[1].issue_tokencodes(
            person.serial, count=21, keep_unused_codes=True
        )
    await stage.admins[2].issue_tokencodes(
        person.serial, count=20, keep_unused_codes=True
    )
    assert [await stage.live(node, person) for node in range(3)] == [50] * 3


async def test_codes_are_read_the_same_on_every_node(stage: Stage) -> None:
    """(I5) Distinct, of unambiguous symbols, with a letter; however they are typed."""
    person = await stage.person()
    codes = await stage.issued(person, count=50)
    bare = [code.replace("-", "") for code in codes]
    assert len(set(bare)) == 50
    for code in bare:
        assert len(code) == 8
        assert set(code) <= set(UNAMBIGUOUS)
        assert not code.isdigit()
    typed = (codes[0].lower(), f" {bare[1][:3]} {bare[1][3:]} ", "-".join(bare[2]))
    for node, code in enumerate(typed):
        assert await stage.accepts(node, person, PIN + code)


async def test_no_node_takes_a_policy_that_makes_guessing_easy(stage: Stage) -> None:
    """(I6) Six digits are refused, with the arithmetic."""
    await stage.void_all_codes()
    for admin in stage.admins:
        policy = await admin.get_policy()
        easy = replace(policy, code_length=6, code_alphabet="0123456789")
        with pytest.raises((Refused, InvalidArgument)) as refused:
            await admin.update_policy(easy)
        assert re.search(r"\d+ live codes x 100 guesses / 1000000", str(refused.value))
    assert (await stage.admins[1].get_policy()).version == policy.version


async def test_no_node_issues_what_is_guessed_too_easily(stage: Stage) -> None:
    """
    (I6) Codes of six symbols: eight are safe without a PIN, and nine are not.

    The kept ones count, wherever they were issued; with a PIN there may be more.
    """
    await stage.void_all_codes()
    before = await stage.admins[0].get_policy()
    short = replace(before, code_length=6, codes_per_set_default=5)
    await stage.admins[1].update_policy(short)
    bare, safe = await stage.person(rule=PinRule.NONE), await stage.person()

    async def refused(node: int, count: int, *, keep: bool = False) -> str:
        with pytest.raises(Refused) as refusal:
            await stage.admins[node].issue_tokencodes(
                bare.serial, count=count, keep_unused_codes=keep
            )
        assert refusal.value.reason == "GUESS_ODDS"
        return str(refusal.value)

    space = 31**6 - 8**6  # At least one letter, so not those of the eight digits.
    assert f"9 live codes x 100 guesses / {space} possible" in await refused(0, 9)
    assert len(await stage.issued(bare, at=1, count=8)) == 8
    assert "9 live codes x 100 guesses" in await refused(2, 1, keep=True)
    assert len(await stage.issued(safe, at=2, count=50)) == 50
    assert await stage.live(0, bare) == 8
    await stage.void_all_codes()
    now = await stage.admins[2].get_policy()
    await stage.admins[0].update_policy(replace(before, version=now.version))


async def test_a_set_ends_on_every_node_at_once(stage: Stage) -> None:
    """(I7) Its own end or the token's, evaluated at use; an end that has passed is refused."""
    first, second, third = stage.admins
    person = await stage.person()
    for node, past in ((0, stage.clocks.now() - HOUR), (2, -HOUR)):
        with pytest.raises((Refused, InvalidArgument)) as refused:
            await stage.admins[node].issue_tokencodes(person.serial, lifetime=past)
        assert "lifetime" in str(refused.value)
    issued = await second.issue_tokencodes(person.serial, count=3, lifetime=2 * HOUR)
    ends = stage.clocks.now() + HOUR
    await third.update_token(person.serial, expire_time=ends)
    shown = (await first.get_emergency_access(person.serial)).end_time
    assert shown is not None
    assert abs(shown - ends) < dt.timedelta(seconds=1)
    await first.update_token(person.serial, expire_time=None)
    assert await stage.accepts(2, person, PIN + issued.codes[0].code)
    await stage.later(2 * 3600 - 60)
    assert await stage.accepts(0, person, PIN + issued.codes[1].code)
    await stage.later(61)
    assert await stage.everywhere(person, PIN + issued.codes[2].code) == [False] * 3
    assert (await stage.why(1, person))[-3:] == ["set_expired"] * 3
    assert await stage.failures(2, person) == (0, 0)
    # The primary records it by itself, once (N6).
    async with asyncio.timeout(PATIENCE.total_seconds()):
        while not await ended(stage, 0, person):  # noqa: ASYNC110 - no event tells it.
            await asyncio.sleep(0.1)
    (told,) = {tuple(await ended(stage, node, person)) for node in range(3)}
    assert [detail.partition(": ")[2] for detail in told] == ["1 code unused"]


async def ended(stage: Stage, node: int, person: Person) -> list[str]:
    """Return what the audit log of a node says of ended sets."""
    noted = await stage.noted(node, person)
    return [detail for action, detail in noted if action == "SET_ENDED"]


async def test_issuing_again_voids_what_another_node_has_issued(stage: Stage) -> None:
    """(I8) In the same commit, unless kept; `DENY` is weakened only where that is said."""
    first, second, third = stage.admins
    person = await stage.person()
    old = await stage.issued(person, at=0)
    new = await stage.issued(person, at=1)
    assert await stage.everywhere(person, PIN + old[0]) == [False] * 3
    kept = await third.issue_tokencodes(person.serial, count=2, keep_unused_codes=True)
    assert await stage.live(0, person) == 5
    assert await stage.accepts(2, person, PIN + new[0])
    assert await stage.accepts(1, person, PIN + kept.codes[0].code)
    weaker = RecoveryPolicy.ALLOW_AND_DISABLE
    with pytest.raises(Refused) as refused:
        await first.issue_tokencodes(person.serial, recovery_policy=weaker)
    assert refused.value.reason == "RECOVERY_WEAKENED"
    assert await stage.live(1, person) == 3
    await second.issue_tokencodes(
        person.serial, count=1, recovery_policy=weaker, weaken_recovery_policy=True
    )
    access = await third.get_emergency_access(person.serial)
    assert (access.recovery_policy, access.live_codes) == (weaker, 1)


async def test_a_retry_at_another_node_gives_no_codes_out_again(stage: Stage) -> None:
    """(I9) The committed result, with the codes withheld; no list shows one either."""
    person = await stage.person()
    request = emergency_access_pb2.IssueTokencodesRequest(
        request_id=new_request_id(), serial=person.serial, count=2
    )
    answers = [
        await admin._client.unary(
            lambda node: node.emergency_access.IssueTokencodes, request
        )
        for admin in stage.admins
    ]
    assert [answer.codes_withheld for answer in answers] == [False, True, True]
    assert [len(answer.codes) for answer in answers] == [2, 0, 0]
    assert len({answer.saved.set_id for answer in answers}) == 1
    code = answers[0].codes[0].code
    for admin in stage.admins:
        shown = repr(await admin.get_emergency_access(person.serial))
        assert code not in shown
        assert code.replace("-", "") not in shown


async def test_administrators_may_not_serve_themselves_at_any_node(
    stage: Stage,
) -> None:
    """(I10) An administrator's own user: not their PIN, their codes, nor their lock."""
    person = await stage.person()
    async with stage.administrator(
        "self-server", AdministratorRole.HELP_DESK, username=person.name
    ) as own:
        for admin in own:
            for attempt in (
                admin.issue_tokencodes(person.serial),
                admin.unlock_user(person.name),
                admin.clear_pin(person.serial),
            ):
                with pytest.raises(NotPermitted) as refused:
                    await attempt
                assert refused.value.reason == "SELF_SERVICE_FORBIDDEN"
    assert await stage.live(2, person) == 0


async def test_a_fixed_tokencode_ends_everywhere(stage: Stage) -> None:
    """(I11) Used again and again at every node, for a week; one-time codes are void."""
    person = await stage.person()
    once = await stage.issued(person, at=0)
    fixed = await stage.admins[1].issue_fixed_tokencode(person.serial)
    assert await stage.everywhere(person, PIN + fixed.code) == [True] * 3
    assert await stage.everywhere(person, PIN + once[0]) == [False] * 3
    await stage.later(7 * 24 * 3600 - 60)
    assert await stage.everywhere(person, PIN + fixed.code) == [True] * 3
    await stage.later(61)
    assert await stage.everywhere(person, PIN + fixed.code) == [False] * 3
    (fixed_set, _) = (await stage.admins[2].get_emergency_access(person.serial)).sets
    assert fixed_set.fixed
    assert fixed_set.codes[0].state is not TokencodeState.USED


async def test_codes_of_a_token_without_pin_stand_alone(stage: Stage) -> None:
    """(A1, I6) At every node: the code alone, and not one character more."""
    person = await stage.person(rule=PinRule.NONE)
    codes = await stage.issued(person, at=2, count=3)
    assert await stage.accepts(0, person, codes[0])
    assert not await stage.accepts(1, person, PIN + codes[1])
    assert await stage.failures(2, person) == (0, 1)
    await stage.later(2)
    assert not await stage.accepts(2, person, codes[1] + "7")
    await stage.later(2)
    assert await stage.accepts(0, person, codes[1])
