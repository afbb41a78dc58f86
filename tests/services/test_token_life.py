# SPDX-License-Identifier: Apache-2.0
"""Tokens after their enrollment: unassigned, disabled, expired, deleted (K, R3)."""

import uuid
from dataclasses import replace as replace_parameters

import pytest

from sparecode_node.domain.emergency_access import RecoveryPolicy
from sparecode_node.domain.ids import AdministratorName, Moment, TokenSerial
from sparecode_node.domain.outcomes import Reason
from sparecode_node.domain.pins import PinRule
from sparecode_node.domain.tokencodes import Algorithm, HashName, tokencode_at
from sparecode_node.replication.replicator import Proposal
from sparecode_node.services.ambient import SystemEntropy
from sparecode_node.services.context import Deadline
from sparecode_node.services.emergency.emergency_access import Lifetime
from sparecode_node.services.emergency.issuing import SetTerms
from sparecode_node.services.errors import InvalidFieldError, Refused
from sparecode_node.services.secrets.keyring import KeyRing
from sparecode_node.services.secrets.sealing import Sealing
from sparecode_node.services.state.stamping import PrimaryStamper
from sparecode_node.statemachine.commands.tokens import (
    ReplaceToken,
    ResynchronizeToken,
    SetPin,
)
from tests.services.one_node import PIN, ROOT, SEED, SERIAL, TOTP, OneNode, call_of
from tests.services.two_replicas import NOW_MS

pytestmark = pytest.mark.asyncio


async def unassign(node: OneNode) -> None:
    context = node.admin("TokenService/UnassignToken")
    await node.tokens.unassign(context, serial=SERIAL)


async def enable(node: OneNode) -> None:
    context = node.admin("TokenService/EnableToken")
    await node.tokens.enable(context, serial=SERIAL)


async def disable(node: OneNode) -> None:
    context = node.admin("TokenService/DisableToken")
    await node.tokens.disable(context, serial=SERIAL)


async def expire(node: OneNode, expires_at_ms: int | None, *, never: bool) -> None:
    context = node.admin("TokenService/UpdateToken")
    await node.tokens.update(
        context, serial=SERIAL, expires_at_ms=expires_at_ms, never_expires=never
    )


async def delete(node: OneNode) -> None:
    context = node.admin("TokenService/DeleteToken")
    await node.tokens.delete(context, serial=SERIAL)


async def clear_pin(node: OneNode) -> None:
    context = node.admin("TokenService/ClearPin")
    await node.tokens.clear_pin(context, serial=SERIAL)


async def give(node: OneNode, username: str) -> None:
    await node.tokens.assign(
        node.admin("TokenService/AssignToken"), serial=SERIAL, username=username
    )
    await node.tokens.set_pin(node.admin("TokenService/SetPin"), serial=SERIAL, pin=PIN)


@pytest.mark.parametrize("end", [unassign, disable, delete])
async def test_codes_of_a_token_that_ended_are_refused(node: OneNode, end) -> None:
    """(R3) On any node, with the next attempt, even if it lags."""
    await node.add_user()
    issued = await node.issue()
    node.replicator.lags = True
    await end(node)
    assert not await node.accepts(PIN + issued.codes[0].code)


async def test_draft_of_a_token_that_changed_is_stale(node: OneNode) -> None:
    """(I3) Disabling and enabling it counts as a change."""
    await node.add_user()
    generated = await node.emergency.generate(
        node.admin("EmergencyAccessService/GenerateTokencodes"), serial=SERIAL
    )
    await disable(node)
    await enable(node)
    with pytest.raises(Refused) as raised:
        await node.emergency.save(
            node.admin("EmergencyAccessService/SaveEmergencyAccess"),
            serial=SERIAL,
            draft=generated.draft,
            terms=SetTerms(lifetime=Lifetime(), recovery=RecoveryPolicy.DENY),
        )
    assert raised.value.rejected.reason is Reason.DRAFT_STALE


async def test_disabled_token_works_again_when_it_is_enabled(node: OneNode) -> None:
    await node.add_user()
    await disable(node)
    assert not await node.accepts(PIN + node.tokencode())
    await enable(node)
    assert await node.accepts(PIN + node.tokencode())
    assert node.reasons() == ["token_disabled", ""]


async def test_codes_of_the_previous_user_do_not_work_for_the_next(
    node: OneNode,
) -> None:
    """(T3) Verifiers are bound to the user: PIN and codes go with them."""
    await node.add_user()
    issued = await node.issue()
    await unassign(node)
    await node.users.create(
        node.admin("UserService/CreateUser"), username="bob", display_name="", email=""
    )
    await give(node, "bob")
    assert not await node.accepts(PIN + issued.codes[0].code, username="bob")
    assert node.reasons() == ["wrong_passcode"]


async def test_unassigned_lost_token_puts_no_user_in_emergency_access(
    node: OneNode,
) -> None:
    """The list shows users in emergency access now, not the token's previous user."""
    await node.add_user()
    await node.issue()

    async def serials() -> tuple[list[str], list[str], list[str]]:
        listed = await node.emergency.list(
            node.admin("EmergencyAccessService/ListEmergencyAccess")
        )
        tokens = [
            await node.tokens.list(
                node.admin("TokenService/ListTokens"), in_emergency_access=wanted
            )
            for wanted in (True, False)
        ]
        pages = [listed.value.items, *(read.value.items for read in tokens)]
        inside, filtered, others = ([each.serial for each in page] for page in pages)
        return inside, filtered, others

    assert await serials() == ([SERIAL], [SERIAL], [])
    await unassign(node)
    assert await serials() == ([], [], [SERIAL])
    read = await node.tokens.get(node.admin("TokenService/GetToken"), SERIAL)
    assert read.value.lost


async def test_end_of_a_token_is_set_and_removed(node: OneNode) -> None:
    """(I7) The end of its codes follows."""
    await node.add_user()
    issued = await node.issue(lifetime=Lifetime())
    await expire(node, NOW_MS, never=False)
    read = await node.tokens.get(node.admin("TokenService/GetToken"), SERIAL)
    assert (read.value.expires_at_ms, read.value.live_codes) == (NOW_MS, 0)
    assert not await node.accepts(PIN + issued.codes[0].code)
    await expire(node, None, never=True)
    read = await node.tokens.get(node.admin("TokenService/GetToken"), SERIAL)
    assert (read.value.expires_at_ms, read.value.live_codes) == (None, 3)
    assert await node.accepts(PIN + issued.codes[0].code)


@pytest.mark.parametrize(
    ("expires_at_ms", "never"), [(None, False), (NOW_MS, True), (-1, False)]
)
async def test_end_is_a_time_or_never(
    node: OneNode, expires_at_ms: int | None, never: bool
) -> None:
    entries = len(node.replicator.entries)
    with pytest.raises(InvalidFieldError) as raised:
        await expire(node, expires_at_ms, never=never)
    assert raised.value.field == "expire_time"
    assert len(node.replicator.entries) == entries


async def test_nothing_is_accepted_after_the_pin_was_cleared(node: OneNode) -> None:
    """(A2) Neither a tokencode nor a code, with or without the old PIN."""
    await node.add_user()
    issued = await node.issue()
    await clear_pin(node)
    read = await node.tokens.get(node.admin("TokenService/GetToken"), SERIAL)
    assert not read.value.pin_set
    code = issued.codes[0].code
    for passcode in (PIN + code, code, PIN + node.tokencode(), node.tokencode()):
        assert not await node.accepts(passcode)
    assert set(node.reasons()) == {"pin_not_set"}


async def test_deleted_token_can_be_enrolled_again(node: OneNode) -> None:
    """Nothing of the old one remains: user, PIN, codes, lost mark."""
    await node.add_user()
    await node.issue()
    await delete(node)
    await node.enroll()
    read = await node.tokens.get(node.admin("TokenService/GetToken"), SERIAL)
    assert (read.value.username, read.value.pin_set, read.value.lost) == (
        "",
        False,
        False,
    )


# --- Replacing ---------------------------------------------------------------

NEW = "T-2"
NEW_SEED = b"another seed of 20 b"


async def replace(node: OneNode, *, keep_pin: bool, request_id: str = "") -> None:
    context = node.admin("TokenService/ReplaceToken", request_id)
    await node.tokens.replace(
        context, serial=SERIAL, replacement_serial=NEW, keep_pin=keep_pin
    )


async def test_replacement_takes_the_pin_along(node: OneNode) -> None:
    """(T3) No one types it: the seal of its verifier is for one serial."""
    await node.add_user()
    await node.enroll(NEW, seed=NEW_SEED)
    issued = await node.issue()
    before = node.kdf.evaluations()
    await replace(node, keep_pin=True)
    assert node.kdf.evaluations() == before
    assert not await node.accepts(PIN + issued.codes[0].code)
    node.clock.pass_s(1)
    assert not await node.accepts(PIN + node.tokencode())
    node.clock.pass_s(1)
    assert await node.accepts(PIN + node.tokencode(seed=NEW_SEED))
    old = await node.tokens.get(node.admin("TokenService/GetToken"), SERIAL)
    assert (old.value.username, old.value.enabled, old.value.pin_set) == (
        "",
        False,
        False,
    )


async def test_replacement_without_the_pin_has_none(node: OneNode) -> None:
    await node.add_user()
    await node.enroll(NEW, seed=NEW_SEED)
    await replace(node, keep_pin=False)
    read = await node.tokens.get(node.admin("TokenService/GetToken"), NEW)
    assert (read.value.username, read.value.pin_set) == ("alice", False)
    assert not await node.accepts(PIN + node.tokencode(seed=NEW_SEED))
    assert node.reasons() == ["pin_not_set"]


async def test_pin_set_in_between_is_the_one_that_is_carried(
    node: OneNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """(T2) Apply finds the earlier verifier stale, and it is made again."""
    await node.add_user()
    await node.enroll(NEW, seed=NEW_SEED)
    deadline = Deadline.of(node.admin(), node.clock)
    setting = await node.tokens._pin_setting(
        TokenSerial(SERIAL), "9362", deadline, AdministratorName(ROOT)
    )
    prepare = node.tokens._replacement

    async def prepared(*serials: TokenSerial, keep_pin: bool) -> ReplaceToken:
        command = await prepare(*serials, keep_pin=keep_pin)
        if setting not in changes:
            changes.append(setting)
            node.replicator.before_apply = call_of(node, setting)
        return command

    changes: list[SetPin] = []
    monkeypatch.setattr(node.tokens, "_replacement", prepared)
    await replace(node, keep_pin=True)
    assert not await node.accepts(PIN + node.tokencode(seed=NEW_SEED))
    node.clock.pass_s(1)
    assert await node.accepts("9362" + node.tokencode(seed=NEW_SEED))


async def test_retry_of_a_replacement_is_the_same(node: OneNode) -> None:
    """(Q1) Although the old token has no user and no PIN by then."""
    await node.add_user()
    await node.enroll(NEW, seed=NEW_SEED)
    request_id = str(uuid.uuid4())
    await replace(node, keep_pin=True, request_id=request_id)
    await replace(node, keep_pin=True, request_id=request_id)
    assert await node.accepts(PIN + node.tokencode(seed=NEW_SEED))


async def test_invalid_serial_of_a_replacement_is_named(node: OneNode) -> None:
    with pytest.raises(InvalidFieldError) as raised:
        await node.tokens.replace(
            node.admin("TokenService/ReplaceToken"),
            serial=SERIAL,
            replacement_serial="",
            keep_pin=False,
        )
    assert raised.value.field == "replacement_serial"


# --- Resynchronizing ---------------------------------------------------------


async def resynchronize(node: OneNode, first: str, second: str) -> None:
    context = node.admin("TokenService/ResynchronizeToken")
    await node.tokens.resynchronize(
        context, serial=SERIAL, first_tokencode=first, second_tokencode=second
    )


@pytest.mark.parametrize(
    ("step", "known"),
    [(-61, False), (-60, True), (-2, True), (40, True), (60, True), (61, False)],
)
async def test_token_whose_clock_ran_away_is_found_by_two_tokencodes(
    node: OneNode, step: int, known: bool
) -> None:
    """(K1) Within 60 steps. From then on its drift is followed."""
    await node.add_user()
    first, second = (node.tokencode(step=step + n) for n in (0, 1))
    if not known:
        with pytest.raises(Refused) as raised:
            await resynchronize(node, first, second)
        assert raised.value.rejected.reason is Reason.TOKENCODES_NOT_CONSECUTIVE
        return
    await resynchronize(node, f"{first[:3]} {first[3:]}", second)
    for spent in (first, second):
        assert not await node.accepts(PIN + spent)
        node.clock.pass_s(2)
    assert await node.accepts(PIN + node.tokencode(step=step + 2))


async def test_token_whose_counter_ran_away_is_found_by_two_tokencodes(
    node: OneNode,
) -> None:
    """(K1) Within 100 counters; one tokencode finds it within 10."""
    await node.users.create(
        node.admin("UserService/CreateUser"), username="bob", display_name="", email=""
    )
    hotp = replace_parameters(TOTP, algorithm=Algorithm.HOTP, period_s=0)
    await node.tokens.enroll(
        node.admin("TokenService/EnrollToken"),
        serial=SERIAL,
        algorithm=Algorithm.HOTP,
        hash_name=HashName.SHA1,
        digits=6,
        period_s=0,
        counter=0,
        seed=SEED,
        pin_rule=PinRule.NONE,
        expires_at_ms=None,
    )
    await node.tokens.assign(
        node.admin("TokenService/AssignToken"), serial=SERIAL, username="bob"
    )
    shown = [tokencode_at(SEED, hotp, Moment(n)) for n in range(105)]
    assert not await node.accepts(shown[98], username="bob")
    with pytest.raises(Refused):
        await resynchronize(node, shown[100], shown[101])
    await resynchronize(node, shown[98], shown[99])
    node.clock.pass_s(2)
    assert not await node.accepts(shown[99], username="bob")
    assert await node.accepts(shown[100], username="bob")


async def test_tokencodes_that_resynchronize_stay_out_of_the_log(node: OneNode) -> None:
    """(T1) The clear digits end at the primary."""
    await node.add_user(digits=8)
    first, second = (node.tokencode(step=n, digits=8) for n in (20, 21))
    await resynchronize(node, first, second)
    database = "\n".join(node.primary_db.iterdump())
    for each in (first, second):
        assert each not in database
        assert all(each.encode() not in entry for entry in node.replicator.entries)


@pytest.mark.parametrize(
    ("first", "second", "field"),
    [
        ("", "123456", "first_tokencode"),
        ("123456", "1234567", "second_tokencode"),
        ("12345a", "123456", "first_tokencode"),
        ("\u0661" * 5 + "x", "123456", "first_tokencode"),
    ],
)
async def test_tokencode_beyond_its_form_is_named_without_it(
    node: OneNode, first: str, second: str, field: str
) -> None:
    entries = len(node.replicator.entries)
    with pytest.raises(InvalidFieldError, match="6 or 8 digits") as raised:
        await resynchronize(node, first, second)
    assert raised.value.field == field
    assert not first or first not in str(raised.value)
    assert len(node.replicator.entries) == entries


async def test_primary_that_cannot_open_the_seed_knows_no_tokencode(
    node: OneNode,
) -> None:
    """The call is refused, and the rest of the batch proceeds."""
    await node.add_user()
    digits = tuple(node.tokencode(step=n) for n in (0, 1))
    command = ResynchronizeToken(serial=TokenSerial(SERIAL), moments=())
    unknown = ResynchronizeToken(serial=TokenSerial("none"), moments=())
    ring = KeyRing.draw(SystemEntropy())
    stamper = PrimaryStamper(seeds=node.seeds, sealing=Sealing(ring), clock=node.clock)
    calls = stamper.stamp(
        [
            Proposal(call=call_of(node, each), tokencodes=tokencodes)
            for each, tokencodes in (
                (command, digits),
                (unknown, digits),
                (command, ()),
                (command, digits[:1]),
            )
        ]
    )
    assert [call.command for call in calls] == [command, unknown, command, command]


async def test_a_token_does_not_replace_itself(node: OneNode) -> None:
    """(K) "Is assigned already: unassign it" would be the wrong advice."""
    await node.add_user()
    with pytest.raises(InvalidFieldError, match="of another token") as wrong:
        await node.tokens.replace(
            node.admin("TokenService/ReplaceToken"),
            serial=SERIAL,
            replacement_serial=SERIAL,
            keep_pin=True,
        )
    assert wrong.value.field == "replacement_serial"
