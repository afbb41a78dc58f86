# SPDX-License-Identifier: Apache-2.0
"""Emergency codes are issued, saved once and shown once (I, R)."""

import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import pytest

from sparecode_node.domain.emergency_access import CodeState, RecoveryPolicy
from sparecode_node.domain.ids import AdministratorName, NameKey, TokenSerial
from sparecode_node.domain.outcomes import Reason
from sparecode_node.domain.pins import PinRule
from sparecode_node.domain.policy import UNAMBIGUOUS
from sparecode_node.services.ambient import SystemEntropy
from sparecode_node.services.emergency.emergency_access import (
    GeneratedCodes,
    IssuedCodes,
    Lifetime,
)
from sparecode_node.services.emergency.issuing import SetTerms, draw_codes, grouped
from sparecode_node.services.errors import InvalidFieldError, Refused
from sparecode_node.services.load.fair_queue import Share
from sparecode_node.services.secrets.kdf import KdfInput, Lane
from sparecode_node.statemachine.commands.tokens import AssignToken
from sparecode_node.statemachine.results import EmergencyAccessSaved
from tests.services.one_node import PIN, SERIAL, OneNode, call_of
from tests.services.two_replicas import NOW_MS

HOUR_MS = 3_600_000
METHOD = "EmergencyAccessService"


async def generate(
    node: OneNode, serial: str = SERIAL, count: int = 3
) -> GeneratedCodes:
    return await node.emergency.generate(
        node.admin(f"{METHOD}/GenerateTokencodes"), serial=serial, count=count
    )


async def save(
    node: OneNode, draft: bytes, *, serial: str = SERIAL, request_id: str = ""
) -> EmergencyAccessSaved:
    return await node.emergency.save(
        node.admin(f"{METHOD}/SaveEmergencyAccess", request_id),
        serial=serial,
        draft=draft,
        terms=SetTerms(
            lifetime=Lifetime(ends_at_ms=NOW_MS + HOUR_MS), recovery=RecoveryPolicy.DENY
        ),
    )


def test_codes_are_distinct_and_lettered() -> None:
    """(I5)."""
    codes = draw_codes(SystemEntropy(), alphabet=UNAMBIGUOUS, length=8, count=50)
    assert len(set(codes)) == 50
    for code in codes:
        assert set(code) <= set(UNAMBIGUOUS)
        assert any(symbol.isalpha() for symbol in code)


def test_code_without_a_letter_is_drawn_again() -> None:
    """(I5) A new code is drawn; letters are never inserted into the old one."""

    class Drawn(SystemEntropy):
        codes = iter(["22222222", "2222222A", "2222222A", "B2222222"])

        def choices(self, symbols: object, count: int) -> str:
            return next(self.codes)

    codes = draw_codes(Drawn(), alphabet=UNAMBIGUOUS, length=8, count=2)
    assert codes == ("2222222A", "B2222222")


def test_every_symbol_is_as_likely_at_every_place() -> None:
    """(I5) Chi-squared over 31 symbols: above 90 less than once in 10^6 runs."""
    codes = draw_codes(SystemEntropy(), alphabet=UNAMBIGUOUS, length=8, count=4000)
    counts = Counter("".join(codes))
    expected = 4000 * 8 / 31
    assert sum((counts[s] - expected) ** 2 / expected for s in UNAMBIGUOUS) < 90


def test_alphabet_without_letters_needs_none() -> None:
    (code,) = draw_codes(SystemEntropy(), alphabet="0123456789", length=12, count=1)
    assert code.isdigit()


def test_codes_are_grouped_for_reading() -> None:
    assert grouped("K7PM4XQ2") == "K7PM-4XQ2"


@pytest.mark.asyncio
async def test_generated_codes_are_not_active_until_saved(node: OneNode) -> None:
    """(I3)."""
    await node.add_user()
    generated = await generate(node)
    entries = len(node.replicator.entries)
    assert [code.ordinal for code in generated.codes] == [1, 2, 3]
    assert generated.draft_ends_at_ms == NOW_MS + 15 * 60_000
    assert not await node.accepts(PIN + generated.codes[0].code)
    node.clock.pass_s(2)
    saved = await save(node, generated.draft)
    assert (saved.codes, saved.live_codes, saved.voided_codes) == (3, 3, 0)
    assert saved.ends_at_ms == NOW_MS + HOUR_MS
    assert not saved.pin_missing_warning
    assert await node.accepts(PIN + generated.codes[0].code)
    assert len(node.replicator.entries) == entries + 3


@pytest.mark.asyncio
async def test_draft_is_saved_once(node: OneNode) -> None:
    """(I3) A retry of the same call is the same save; another call is refused."""
    await node.add_user()
    generated = await generate(node)
    request_id = str(uuid.uuid4())
    first = await save(node, generated.draft, request_id=request_id)
    assert await save(node, generated.draft, request_id=request_id) == first
    with pytest.raises(Refused) as raised:
        await save(node, generated.draft)
    assert raised.value.rejected.reason is Reason.DRAFT_STALE


@pytest.mark.asyncio
async def test_draft_ends_after_fifteen_minutes(node: OneNode) -> None:
    """(I3)."""
    await node.add_user()
    generated = await generate(node)
    node.clock.pass_s(15 * 60)
    await node.login()
    with pytest.raises(Refused) as raised:
        await save(node, generated.draft)
    assert raised.value.rejected.reason is Reason.DRAFT_STALE


@pytest.mark.asyncio
async def test_draft_is_stale_after_a_change_of_the_user(node: OneNode) -> None:
    """(I3)."""
    await node.add_user()
    generated = await generate(node)
    await node.tokens.set_pin(
        node.admin("TokenService/SetPin"), serial=SERIAL, pin="9386"
    )
    with pytest.raises(Refused) as raised:
        await save(node, generated.draft)
    assert raised.value.rejected.reason is Reason.DRAFT_STALE


@pytest.mark.asyncio
async def test_draft_of_another_token_or_administrator_is_refused(
    node: OneNode,
) -> None:
    """(I3) A forged draft too: named in the refusal, and nothing is committed."""
    await node.add_user()
    await node.add_user("bob", serial="2")
    generated = await generate(node)
    opened = node.sealing.unseal_draft(generated.draft)
    foreign = node.sealing.seal_draft(
        replace(opened, administrator=AdministratorName("eve"))
    )
    entries = len(node.replicator.entries)
    for draft, serial, says in [
        (b"", SERIAL, "not a draft"),
        (generated.draft[:-1], SERIAL, "not a draft of this cluster"),
        (b"x" * 20_000, SERIAL, "more than 16384 bytes"),
        (generated.draft, "2", "another token"),
        (foreign, SERIAL, "another administrator"),
    ]:
        with pytest.raises(InvalidFieldError, match=says) as raised:
            await save(node, draft, serial=serial)
        assert raised.value.field == "draft"
    assert len(node.replicator.entries) == entries


@pytest.mark.asyncio
async def test_issued_codes_are_live(node: OneNode) -> None:
    """(I2, R) With a warning where DENY would lock out users without a PIN."""
    await node.add_user(pin="")
    issued = await node.issue(recovery=RecoveryPolicy.DENY, count=None)
    assert not issued.withheld
    assert len(issued.codes) == issued.saved.codes == 10
    assert issued.saved.pin_missing_warning
    assert await node.accepts(issued.codes[9].code)


@pytest.mark.asyncio
async def test_retry_of_an_issue_withholds_the_codes(node: OneNode) -> None:
    """(I9) The answer tells what was committed, without the codes."""
    await node.add_user()
    request_id = str(uuid.uuid4())
    first = await node.issue(request_id=request_id)
    again = await node.issue(request_id=request_id)
    assert again.withheld
    assert again.codes == ()
    assert again.saved == first.saved
    assert await node.accepts(PIN + first.codes[0].code)
    with pytest.raises(Refused) as raised:
        await node.issue(request_id=request_id, count=4)
    assert raised.value.rejected.reason is Reason.REQUEST_ID_REUSED


@pytest.mark.asyncio
async def test_issue_computes_again_when_the_user_changed_meanwhile(
    node: OneNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """(T2) Between hashing and commit, another node gives the user a second token."""
    await node.add_user()
    await node.enroll("2")
    changes = [
        call_of(node, AssignToken(serial=TokenSerial("2"), name_key=NameKey("alice")))
    ]
    before, derive = node.kdf.evaluations(Lane.ISSUING), node.kdf.derive

    async def interrupted(
        inputs: Sequence[KdfInput], *, lane: Lane, share: Share, timeout_s: float
    ) -> tuple[bytes, ...]:
        hashes = await derive(inputs, lane=lane, share=share, timeout_s=timeout_s)
        node.replicator.before_apply = changes.pop() if changes else None
        return hashes

    monkeypatch.setattr(node.kdf, "derive", interrupted)
    issued = await node.issue()
    assert not issued.withheld
    assert node.kdf.evaluations(Lane.ISSUING) - before == 6
    assert await node.accepts(PIN + issued.codes[2].code)


@pytest.mark.asyncio
async def test_reissue_voids_or_keeps_the_older_codes(node: OneNode) -> None:
    """(I8)."""
    await node.add_user()
    old = await node.issue()
    kept = await node.issue(keep_unused_codes=True)
    assert (kept.saved.live_codes, kept.saved.voided_codes) == (6, 0)
    new = await node.issue()
    assert (new.saved.live_codes, new.saved.voided_codes) == (3, 6)
    assert not await node.accepts(PIN + old.codes[0].code)
    assert await node.accepts(PIN + new.codes[0].code)


@pytest.mark.asyncio
async def test_refusals_come_before_codes_are_shown(
    node: OneNode,
) -> None:
    """(I1) For Generate and Issue alike."""
    await node.enroll("1")
    await node.enroll("2")
    await node.users.create(
        node.admin("UserService/CreateUser"),
        username="bob",
        display_name="",
        email="",
    )
    await node.tokens.assign(
        node.admin("TokenService/AssignToken"), serial="2", username="bob"
    )
    for serial, reason in [
        ("none", Reason.TOKEN_UNKNOWN),
        ("1", Reason.TOKEN_NOT_ASSIGNED),
        ("2", Reason.PIN_NOT_SET),
    ]:
        with pytest.raises(Refused) as generated:
            await generate(node, serial)
        with pytest.raises(Refused) as issued:
            await node.issue(serial)
        assert generated.value.rejected.reason is reason
        assert issued.value.rejected.reason is reason


@pytest.mark.parametrize("count", [-1, 51, 1000])
@pytest.mark.asyncio
async def test_count_beyond_the_bound_is_named(node: OneNode, count: int) -> None:
    """(I4)."""
    await node.add_user()
    for call in (generate, lambda node, count: node.issue(count=count)):
        with pytest.raises(InvalidFieldError, match="1 to 50") as raised:
            await call(node, count=count)
        assert raised.value.field == "count"


@pytest.mark.parametrize(
    ("lifetime", "field"),
    [
        (Lifetime(ends_at_ms=1, duration_ms=1), "lifetime"),
        (Lifetime(duration_ms=0), "lifetime.duration"),
        (Lifetime(duration_ms=-1), "lifetime.duration"),
        (Lifetime(ends_at_ms=-1), "lifetime.end_time"),
        (Lifetime(ends_at_ms=2**62), "lifetime.end_time"),
    ],
)
@pytest.mark.asyncio
async def test_lifetime_beyond_its_form_is_named(
    node: OneNode, lifetime: Lifetime, field: str
) -> None:
    """(I7)."""
    await node.add_user()
    with pytest.raises(InvalidFieldError) as raised:
        await node.issue(lifetime=lifetime)
    assert raised.value.field == field


@pytest.mark.parametrize(
    ("lifetime", "recovery", "reason"),
    [
        (Lifetime(ends_at_ms=NOW_MS), RecoveryPolicy.DENY, Reason.LIFETIME_PAST),
        (
            Lifetime(),
            RecoveryPolicy.ALLOW_AFTER_EXPIRY,
            Reason.RECOVERY_NEEDS_END,
        ),
    ],
)
@pytest.mark.asyncio
async def test_rules_about_the_lifetime_refuse(
    node: OneNode, lifetime: Lifetime, recovery: RecoveryPolicy, reason: Reason
) -> None:
    """(I7, R1)."""
    await node.add_user()
    with pytest.raises(Refused) as raised:
        await node.issue(lifetime=lifetime, recovery=recovery)
    assert raised.value.rejected.reason is reason


@pytest.mark.asyncio
async def test_emergency_access_is_shown_without_codes(node: OneNode) -> None:
    """(I9) Ordinals, states and where each code was used."""
    await node.add_user()
    await node.issue()
    codes = (await node.issue()).codes
    assert await node.accepts(PIN + codes[1].code)
    read = await node.emergency.get(node.admin(f"{METHOD}/GetEmergencyAccess"), SERIAL)
    shown = read.value
    newest, oldest = shown.sets
    assert (shown.serial, shown.username) == (SERIAL, "alice")
    assert (shown.enabled, shown.lost, shown.live_codes) == (True, True, 2)
    assert shown.recovery is RecoveryPolicy.ALLOW_AND_DISABLE
    assert shown.ends_at_ms == newest.ends_at_ms == NOW_MS + HOUR_MS
    assert [code.state for code in newest.codes] == [
        CodeState.LIVE,
        CodeState.USED,
        CodeState.LIVE,
    ]
    assert newest.codes[1].agent == "spiffe://example/vpn"
    assert newest.codes[1].node_id == "n1"
    assert newest.codes[1].used_at_ms == NOW_MS
    assert 0 < newest.index < newest.codes[1].index <= read.applied_index
    assert {code.state for code in oldest.codes} == {CodeState.VOID}
    assert (newest.issuer, newest.node_id, newest.expired) == ("root", "n1", False)
    node.clock.pass_s(3600)
    await node.login()
    read = await node.emergency.get(node.admin(f"{METHOD}/GetEmergencyAccess"), SERIAL)
    assert (read.value.enabled, read.value.live_codes) == (False, 0)
    assert (read.value.ends_at_ms, read.value.lost) == (None, True)
    assert read.value.sets[0].expired


@pytest.mark.asyncio
async def test_codes_end_with_their_token(node: OneNode) -> None:
    """(I7) The effective end is saved, shown and enforced."""
    end_ms = NOW_MS + HOUR_MS // 2
    await node.add_user(expires_at_ms=end_ms)
    issued = await node.issue()
    method = f"{METHOD}/GetEmergencyAccess"
    before = (await node.emergency.get(node.admin(method), SERIAL)).value
    assert issued.saved.ends_at_ms == before.ends_at_ms == end_ms
    assert before.sets[0].ends_at_ms == end_ms
    node.clock.pass_s(1800)
    await node.login()
    after = (await node.emergency.get(node.admin(method), SERIAL)).value
    token = await node.tokens.get(node.admin("TokenService/GetToken"), SERIAL)
    assert (after.enabled, after.live_codes, token.value.live_codes) == (False, 0, 0)
    assert after.sets[0].expired
    assert not await node.accepts(PIN + issued.codes[0].code)


@pytest.mark.asyncio
async def test_users_in_emergency_access_are_listed(node: OneNode) -> None:
    for serial in "1234":
        await node.add_user(f"user-{serial}", serial=serial)
    await node.issue("1", count=5, lifetime=Lifetime())
    await node.issue("2", count=2)
    await node.issue("3", count=2, lifetime=Lifetime(duration_ms=2 * HOUR_MS))

    async def serials(**filters: int) -> str:
        read = await node.emergency.list(
            node.admin(f"{METHOD}/ListEmergencyAccess"), **filters
        )
        assert all(access.sets == () for access in read.value.items)
        return "".join(access.serial for access in read.value.items)

    assert await serials() == "123"
    assert await serials(live_codes_max=2) == "23"
    assert await serials(end_before_ms=NOW_MS + HOUR_MS + 1) == "2"
    assert await serials(end_before_ms=NOW_MS + HOUR_MS) == ""
    with pytest.raises(InvalidFieldError, match="live_codes_max"):
        await serials(live_codes_max=-1)


@pytest.mark.asyncio
async def test_turning_off_voids_and_keeps_the_lost_mark(node: OneNode) -> None:
    """(R2) Unless the administrator asks to reinstate the token as well."""
    await node.add_user()
    method = f"{METHOD}/DisableEmergencyAccess"
    code = (await node.issue(recovery=RecoveryPolicy.DENY)).codes[0].code
    await node.emergency.disable(node.admin(method), serial=SERIAL)
    assert not await node.accepts(PIN + code)
    assert not await node.accepts(PIN + node.tokencode())
    await node.emergency.disable(
        node.admin(method), serial=SERIAL, reinstate_token=True
    )
    assert await node.accepts(PIN + node.tokencode())


@pytest.mark.asyncio
async def test_reinstated_token_works_and_its_codes_do_not(node: OneNode) -> None:
    """(R)."""
    await node.add_user()
    code = (await node.issue(recovery=RecoveryPolicy.DENY)).codes[0].code
    await node.tokens.reinstate(
        node.admin("TokenService/ReinstateToken"), serial=SERIAL
    )
    assert await node.accepts(PIN + node.tokencode())
    assert not await node.accepts(PIN + code)


@pytest.mark.asyncio
async def test_token_without_pin_has_codes_of_its_own_rule(node: OneNode) -> None:
    """(A1) Each of a user's tokens has its PIN rule and its sets."""
    await node.add_user()
    await node.enroll("2", pin_rule=PinRule.NONE)
    await node.tokens.assign(
        node.admin("TokenService/AssignToken"), serial="2", username="alice"
    )
    first, second = await node.issue(), await node.issue("2")
    assert await node.accepts(second.codes[0].code)
    assert not await node.accepts(first.codes[0].code)
    node.clock.pass_s(2)
    assert not await node.accepts(PIN + second.codes[1].code)


# --- Fixed tokencodes


async def issue_fixed(node: OneNode, request_id: str = "") -> IssuedCodes:
    return await node.emergency.issue_fixed(
        node.admin("EmergencyAccessService/IssueFixedTokencode", request_id),
        serial=SERIAL,
        terms=SetTerms(lifetime=Lifetime(), recovery=RecoveryPolicy.ALLOW_AND_DISABLE),
    )


@pytest.mark.asyncio
async def test_fixed_tokencode_is_accepted_until_its_end(node: OneNode) -> None:
    """(I11) Seven days by default; earlier one-time codes are void."""
    await node.add_user()
    before = await node.issue()
    issued = await issue_fixed(node)
    (code,) = issued.codes
    assert (issued.saved.live_codes, issued.saved.voided_codes) == (1, 3)
    assert issued.saved.ends_at_ms == NOW_MS + 7 * 24 * 3_600_000
    assert not await node.accepts(PIN + before.codes[0].code)
    for _ in range(3):
        node.clock.pass_s(24 * 3600)
        assert await node.accepts(PIN + code.code)
    await node.login()
    read = await node.emergency.get(
        node.admin("EmergencyAccessService/GetEmergencyAccess"), SERIAL
    )
    assert [each.fixed for each in read.value.sets] == [True, False]
    assert read.value.live_codes == 1
    node.clock.pass_s(4 * 24 * 3600)
    assert not await node.accepts(PIN + code.code)
    assert node.reasons()[-1] == Reason.SET_EXPIRED


@pytest.mark.asyncio
async def test_retry_of_a_fixed_tokencode_does_not_show_it_again(
    node: OneNode,
) -> None:
    """(I9, I11) And issues no second one."""
    await node.add_user()
    request_id = str(uuid.uuid4())
    first = await issue_fixed(node, request_id)
    again = await issue_fixed(node, request_id)
    assert (again.withheld, again.codes) == (True, ())
    assert again.saved == first.saved
    assert await node.accepts(PIN + first.codes[0].code)


@pytest.mark.asyncio
async def test_attempt_with_a_fixed_tokencode_costs_the_same(
    node: OneNode,
) -> None:
    """(T4)."""
    await node.add_user()
    issued = await issue_fixed(node)
    before = node.kdf.evaluations(Lane.AUTHENTICATING)
    assert await node.accepts(PIN + issued.codes[0].code)
    assert node.kdf.evaluations(Lane.AUTHENTICATING) - before == 2


@pytest.mark.asyncio
async def test_refusal_of_a_fixed_tokencode_names_the_reason(node: OneNode) -> None:
    """(I1)."""
    with pytest.raises(Refused) as raised:
        await issue_fixed(node)
    assert raised.value.rejected.reason is Reason.TOKEN_UNKNOWN
    await node.enroll()
    with pytest.raises(Refused) as raised:
        await issue_fixed(node)
    assert raised.value.rejected.reason is Reason.TOKEN_NOT_ASSIGNED
