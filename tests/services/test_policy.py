# SPDX-License-Identifier: Apache-2.0
"""The policy: who may change it, and what a change affects."""

import uuid
from dataclasses import replace
from typing import Any

import pytest

from sparecode_node.domain.administrators import Role
from sparecode_node.domain.emergency_access import RecoveryPolicy
from sparecode_node.domain.outcomes import Reason
from sparecode_node.domain.policy import Policy
from sparecode_node.services.context import CallContext
from sparecode_node.services.emergency.emergency_access import Lifetime
from sparecode_node.services.emergency.issuing import SetTerms
from sparecode_node.services.errors import (
    InvalidFieldError,
    NotPermittedError,
    Refused,
)
from sparecode_node.statemachine.commands.policy import UpdatePolicy
from tests.services.one_node import PIN, SERIAL, OneNode, call_of

pytestmark = pytest.mark.asyncio


def reading(node: OneNode) -> CallContext:
    return replace(node.admin("PolicyService/GetPolicy"), request_id="")


async def current(node: OneNode) -> Policy:
    return (await node.policies.get(reading(node))).value


async def update(
    node: OneNode, version: int = 1, request_id: str = "", **values: Any
) -> None:
    await node.policies.update(
        node.admin("PolicyService/UpdatePolicy", request_id),
        version=version,
        values=values,
    )


def change_elsewhere(node: OneNode, **values: Any) -> None:
    """Let another node change the policy just before the next proposal."""
    absent = dict.fromkeys(UpdatePolicy.__slots__)
    command = UpdatePolicy(**{**absent, "version": 1, **values})
    node.replicator.before_apply = call_of(node, command)


async def test_a_change_is_a_new_version_on_every_replica(node: OneNode) -> None:
    assert await current(node) == Policy()
    await update(node, lock_from_failures=3, lifetime_ms_max=86_400_000)
    changed = replace(
        Policy(), version=2, lock_from_failures=3, lifetime_ms_max=86_400_000
    )
    assert await current(node) == changed
    await update(node, 2, lifetime_ms_max=0)
    assert (await current(node)).lifetime_ms_max is None
    rows = [
        db.execute("SELECT * FROM policy").fetchall()
        for db in (node.primary_db, node.local_db)
    ]
    assert rows[0] == rows[1]
    assert len(rows[0]) == 3


async def test_of_two_changes_of_one_version_one_is_made(node: OneNode) -> None:
    change_elsewhere(node, hotp_look_ahead=20)
    with pytest.raises(Refused) as raised:
        await update(node, hotp_look_ahead=30)
    assert raised.value.rejected.reason is Reason.VERSION
    assert (await current(node)).hotp_look_ahead == 20


async def test_a_retry_changes_nothing_more(node: OneNode) -> None:
    """(Q1)."""
    request_id = str(uuid.uuid4())
    await update(node, request_id=request_id, hotp_look_ahead=20)
    await update(node, request_id=request_id, hotp_look_ahead=20)
    assert (await current(node)).version == 2
    with pytest.raises(Refused) as raised:
        await update(node, request_id=request_id, hotp_look_ahead=30)
    assert raised.value.rejected.reason is Reason.REQUEST_ID_REUSED


@pytest.mark.parametrize("role", [Role.HELP_DESK, Role.AUDITOR, Role.OPERATOR])
async def test_only_super_administrators_change_the_policy(
    node: OneNode, role: Role
) -> None:
    """(P1) Help desk and auditors read it."""
    for db in (node.primary_db, node.local_db):
        db.execute("UPDATE administrators SET role = ?", (role,))
    with pytest.raises(NotPermittedError):
        await update(node, hotp_look_ahead=20)
    if role is Role.OPERATOR:
        with pytest.raises(NotPermittedError):
            await current(node)
    else:
        assert await current(node) == Policy()


@pytest.mark.parametrize(
    ("version", "alphabet", "field"),
    [
        (0, None, "version"),
        (-1, None, "version"),
        (1, "A" * 65, "code_alphabet"),
        (1, "9 " * 33, "further_code_lengths"),
    ],
)
async def test_contradictory_policy_is_refused_before_it_is_proposed(
    node: OneNode, version: int, alphabet: str | None, field: str
) -> None:
    name = field if field != "version" else "code_alphabet"
    before = len(node.replicator.entries)
    with pytest.raises(InvalidFieldError) as raised:
        await update(node, version, **{name: alphabet})
    assert raised.value.field == field
    assert len(node.replicator.entries) == before


async def test_codes_have_the_form_of_the_policy(node: OneNode) -> None:
    """(I5, T4) Drawing, reading and hashing follow it, with the same evaluations."""
    await node.add_user()
    await update(node, code_length=10, code_alphabet="0123456789ABCDEF")
    issued = await node.issue()
    code = issued.codes[0].code.replace("-", "")
    assert len(code) == 10
    assert set(code) <= set("0123456789ABCDEF")
    before = node.kdf.evaluations()
    assert await node.accepts(PIN + code)
    assert not await node.accepts(PIN + code)
    assert not await node.accepts(PIN + "123456789")
    assert node.kdf.evaluations() - before == 6


async def cost(node: OneNode, passcode: str, username: str = "alice") -> list[int]:
    """Return the cost of an attempt: hashes, forwards, commits (A6)."""

    def so_far() -> list[int]:
        return [
            node.kdf.evaluations(),
            node.replicator.forwarded,
            len(node.replicator.entries),
        ]

    before = so_far()
    await node.accepts(passcode, username=username)
    return [after - earlier for earlier, after in zip(before, so_far(), strict=True)]


async def test_codes_of_the_old_length_work_until_they_end(node: OneNode) -> None:
    """(T4, A6) A longer length voids no code, and every attempt costs the same."""
    await node.add_user()
    old = (await node.issue(count=4)).codes
    await update(node, code_length=10)
    assert (await current(node)).further_code_lengths == "8"
    new = (await node.issue(count=2, keep_unused_codes=True)).codes
    assert {len(code.code.replace("-", "")) for code in new} == {10}
    right, other = PIN + old[0].code, PIN + new[0].code
    wrong = PIN + old[1].code[:-1] + ("2" if old[1].code[-1] != "2" else "3")
    tries = [right, right, other, "0000" + new[1].code, wrong, "", "x", "123456"]
    costs = [await cost(node, each) for each in tries]
    costs += [await cost(node, each, "nobody") for each in tries]
    assert {tuple(each) for each in costs} == {(4, costs[0][1], 1)}
    node.clock.pass_s(60)
    assert await node.accepts(PIN + old[2].code)
    assert await node.accepts(PIN + new[1].code)
    assert not await node.accepts(right)
    assert not await node.accepts(other)


async def test_a_length_that_codes_still_have_stays(node: OneNode) -> None:
    """(T4) Once those codes are gone it is dropped, and every attempt costs less."""
    await node.add_user()
    await node.issue(count=4)
    await update(node, code_length=9)
    with pytest.raises(Refused) as raised:
        await update(node, version=2, further_code_lengths="")
    assert raised.value.rejected.reason is Reason.CODES_LIVE
    assert "4 live codes" in raised.value.rejected.detail
    await node.emergency.disable(
        node.admin("EmergencyAccessService/DisableEmergencyAccess"),
        serial=SERIAL,
        reinstate_token=True,
    )
    assert (await cost(node, PIN + "K7PM4XQ2"))[0] == 4
    await update(node, version=2, further_code_lengths="")
    assert (await cost(node, PIN + "K7PM4XQ2"))[0] == 2


async def test_a_change_during_an_attempt_charges_no_one(
    node: OneNode,
) -> None:
    """(T2) The candidates are computed again with the new policy."""
    await node.add_user()
    change_elsewhere(node, hotp_look_ahead=20)
    assert await node.accepts(PIN + node.tokencode())
    assert (await current(node)).version == 2


async def test_a_change_makes_drafts_stale(node: OneNode) -> None:
    """(I3)."""
    await node.add_user()
    generated = await node.emergency.generate(
        node.admin("EmergencyAccessService/GenerateTokencodes"), serial=SERIAL
    )
    await update(node, hotp_look_ahead=20)
    with pytest.raises(Refused) as raised:
        await node.emergency.save(
            node.admin("EmergencyAccessService/SaveEmergencyAccess"),
            serial=SERIAL,
            draft=generated.draft,
            terms=SetTerms(lifetime=Lifetime(), recovery=RecoveryPolicy.DENY),
        )
    assert raised.value.rejected.reason is Reason.DRAFT_STALE


async def test_pins_and_counts_follow_the_policy(node: OneNode) -> None:
    """(K2, I4)."""
    await node.add_user()
    await update(node, pin_length_min=6, codes_per_set_default=4)
    with pytest.raises(InvalidFieldError, match="6 to 8 digits"):
        await node.tokens.set_pin(
            node.admin("TokenService/SetPin"), serial=SERIAL, pin="12345"
        )
    assert len((await node.issue(count=None)).codes) == 4
