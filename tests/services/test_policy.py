# SPDX-License-Identifier: Apache-2.0
"""The policy: who may change it, and what a change affects."""

import asyncio
import sqlite3
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from sparecode_node.domain.administrators import Role
from sparecode_node.domain.emergency_access import RecoveryPolicy
from sparecode_node.domain.ids import KeyId, SetId, TokenSerial
from sparecode_node.domain.outcomes import Reason
from sparecode_node.domain.policy import Policy
from sparecode_node.domain.policy_changes import merged
from sparecode_node.queries import live_codes as counting
from sparecode_node.queries.state import ReadTransaction
from sparecode_node.replication.codec import decode_entry
from sparecode_node.replication.errors import StoppingError
from sparecode_node.services.cluster.user_moves import MoveKey
from sparecode_node.services.context import CallContext
from sparecode_node.services.emergency.emergency_access import Lifetime
from sparecode_node.services.emergency.issuing import SetTerms
from sparecode_node.services.errors import (
    CountingError,
    InvalidFieldError,
    NotPermittedError,
    Refused,
)
from sparecode_node.services.people import live_codes as counts
from sparecode_node.services.secrets.move_seals import KEY_BYTES
from sparecode_node.statemachine.commands.emergency_access import (
    SaveEmergencyAccess,
    SealedCode,
)
from sparecode_node.statemachine.commands.policy import CountedCodes, UpdatePolicy
from sparecode_node.statemachine.tables import live_codes
from tests.services.one_node import PIN, SERIAL, OneNode, call_of
from tests.statemachine.steps import add_crowd

pytestmark = pytest.mark.asyncio

Rest = Callable[[], Awaitable[object]]
"""What a count awaits after each part."""


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


def proposed(node: OneNode) -> UpdatePolicy:
    """Return the change of the last entry."""
    (call,) = decode_entry(node.replicator.entries[-1])
    assert isinstance(call.command, UpdatePolicy)
    return call.command


async def test_live_codes_are_counted_before_a_change_is_proposed(
    node: OneNode,
) -> None:
    """(I6, c) Apply, which answers nobody meanwhile, need not count them."""
    await node.add_user()
    await node.issue(count=4)
    await update(node, code_length=9)
    counted = proposed(node).counted
    assert counted is not None
    assert counted.last_set == 1
    (group,) = counted.live
    assert (group.first, group.codes) == (SERIAL, {8: 4})
    await update(node, 2, hotp_look_ahead=20)
    assert proposed(node).counted is None


async def test_codes_that_end_by_the_clock_of_a_node_are_counted(
    node: OneNode,
) -> None:
    """(I6) Its clock may be ahead of the log, by which they are live."""
    await node.add_user()
    await node.issue(count=4, lifetime=Lifetime(duration_ms=60_000))
    node.clock.pass_s(61)
    await update(node, code_length=9)
    counted = proposed(node).counted
    assert counted is not None
    assert [group.codes for group in counted.live] == [{8: 4}]


async def test_outdated_counts_are_made_again(
    node: OneNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """(T2) More sets were issued meanwhile than apply looks at."""
    monkeypatch.setattr(live_codes, "NEW_SETS_MAX", 0)
    await node.add_user()
    (user_id, version) = node.primary_db.execute(
        "SELECT user_id, auth_version FROM users"
    ).fetchone()
    node.replicator.before_apply = call_of(
        node,
        SaveEmergencyAccess(
            serial=TokenSerial(SERIAL),
            user_id=user_id,
            auth_version=version,
            policy_version=1,
            key_id=KeyId(1),
            set_id=SetId("elsewhere"),
            code_length=8,
            codes=(SealedCode(ordinal=1, verifier=b"verifier"),),
            ends_at_ms=None,
            lifetime_ms=None,
            recovery=RecoveryPolicy.DENY,
            keep_unused_codes=False,
            weaken_recovery_policy=False,
            draft_id="",
            draft_ends_at_ms=0,
        ),
    )
    await update(node, code_length=9)
    counted = proposed(node).counted
    assert counted is not None
    assert counted.last_set == 1
    assert (await current(node)).code_lengths == (9, 8)


async def test_a_stolen_session_lets_no_node_count(node: OneNode) -> None:
    """(P7, c) It is refused before the work for the change."""
    node.clock.pass_s(301)
    before = len(node.replicator.entries)
    with pytest.raises(Refused) as refused:
        await update(node, code_length=9)
    assert refused.value.rejected.reason is Reason.REAUTHENTICATION_NEEDED
    assert not node.replicator.commands(UpdatePolicy, after=before)


async def test_a_count_goes_on_when_the_time_of_its_caller_ends(
    node: OneNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """(c) With ten million codes it may take longer than a call: it is not begun again."""
    await node.add_user()
    await node.issue(count=4)
    begun, goes_on = 0, asyncio.Event()
    count = counting.count

    async def slow(transaction: ReadTransaction, *, rest: Rest) -> CountedCodes:
        nonlocal begun
        begun += 1
        await goes_on.wait()
        return await count(transaction, rest=rest)

    monkeypatch.setattr(counting, "count", slow)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(counts, "waits_s", lambda _left_s: 0.0)
        for _ in range(2):
            with pytest.raises(CountingError, match="still being counted"):
                await update(node, code_length=9)
    goes_on.set()
    await update(node, code_length=9)
    assert begun == 1
    assert (await current(node)).code_lengths == (9, 8)
    await update(node, 2, code_length=10)
    assert begun == 2, "each change has a count of its own"


async def test_sets_of_the_time_of_a_count_do_not_outdate_it(
    node: OneNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """(I6) A count may take a minute, and a cluster issues thousands of sets in that."""
    monkeypatch.setattr(live_codes, "NEW_SETS_MAX", 0)
    await node.add_user()
    count, counts = counting.count, 0

    async def slow(transaction: ReadTransaction, *, rest: Rest) -> CountedCodes:
        nonlocal counts
        counts += 1
        counted = await count(transaction, rest=rest)
        await node.issue(count=4)
        return counted

    monkeypatch.setattr(counting, "count", slow)
    await update(node, code_length=9)
    assert counts == 1
    assert (await current(node)).code_lengths == (9, 8)


async def test_a_move_that_begins_during_a_count_refuses_it(
    node: OneNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    (I6) A set that is arriving may have only some of its codes.

    If the move is activated before the change is applied, apply cannot refuse it.
    """
    count, move = counting.count, ""

    async def slow(transaction: ReadTransaction, *, rest: Rest) -> CountedCodes:
        nonlocal move
        counted = await count(transaction, rest=rest)
        ticket = await node.user_moves.prepare(
            node.admin("MoveService/PrepareMove"),
            first_slot=0,
            last_slot=4095,
            source=MoveKey(cluster_id="east", key_id=1, public_key=bytes(KEY_BYTES)),
        )
        move = ticket.move_id
        return counted

    monkeypatch.setattr(counting, "count", slow)
    with pytest.raises(Refused) as refused:
        await update(node, code_length=9)
    assert refused.value.rejected.reason is Reason.MOVE_STEP
    assert not node.replicator.commands(UpdatePolicy), (
        "the node refuses it, and not apply"
    )
    monkeypatch.setattr(counting, "count", count)
    await node.user_moves.cancel(node.admin("MoveService/CancelMove"), move_id=move)
    await update(node, code_length=9)
    assert (await current(node)).code_length == 9


async def test_a_node_that_stops_ends_its_count(
    node: OneNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    The state is closed after its readers: a stop would take as long as the count.

    A call that comes after this begins no other one.
    """
    add_crowd(node.local_db, 12)
    monkeypatch.setattr(counting, "TOKENS_AT_ONCE", 5)
    begun, ends = asyncio.Event(), asyncio.Event()

    async def long(_seconds: float) -> None:
        begun.set()
        await ends.wait()

    monkeypatch.setattr(node.policies._counts, "_sleep", long)
    try:
        change = asyncio.create_task(update(node, code_length=9))
        await begun.wait()
        await node.services.close()
        begun.clear()
        for each in (change, update(node, code_length=9)):
            with pytest.raises(StoppingError):
                await each
        assert not begun.is_set()
        await node.services.close()  # No count runs any more.
    finally:
        ends.set()
    assert (await current(node)).code_length == 8


async def test_a_count_in_parts_is_that_of_all_tokens_at_once(
    node: OneNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """(I6) It rests after each part: with ten million codes it takes a core for long."""
    add_crowd(node.local_db, 12)
    node.local_db.execute(
        "UPDATE codes SET state = 'used' WHERE ordinal <= (SELECT number % 4 "
        "FROM code_sets WHERE code_sets.set_id = codes.set_id)"
    )
    node.local_db.commit()
    rests: list[float] = []

    async def sleep(seconds: float) -> None:
        rests.append(seconds)

    monkeypatch.setattr(node.policies._counts, "_sleep", sleep)
    found = []
    for tokens, parts in ((5, 3), (1_000, 1)):
        monkeypatch.setattr(counting, "TOKENS_AT_ONCE", tokens)
        rests.clear()
        found.append(await node.policies._counts._count())
        assert len(rests) == parts
        assert all(each > 0 for each in rests)
    in_parts, at_once = found
    assert in_parts == at_once
    whole = live_codes.count_all(node.local_db, 0)
    alphabet = (await current(node)).code_alphabet
    assert in_parts.live == merged(whole, alphabet)
    assert sum(group.tokens for group in in_parts.live) == 12


async def test_a_caller_hears_in_time_that_a_count_goes_on() -> None:
    """Otherwise it would not know whether the policy was changed."""
    assert counts.waits_s(60) == 58
    assert counts.waits_s(4) == 3


async def test_a_kept_count_grows_old(
    node: OneNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Codes that ended since would still stand in the way of a change."""
    monkeypatch.setattr(counts, "KEEP_S", 0.0)
    await node.add_user()
    await node.issue(count=4)
    goes_on, count = asyncio.Event(), counting.count

    async def slow(transaction: ReadTransaction, *, rest: Rest) -> CountedCodes:
        await goes_on.wait()
        return await count(transaction, rest=rest)

    monkeypatch.setattr(counting, "count", slow)
    context = replace(node.admin("PolicyService/UpdatePolicy"), deadline_s=0.05)
    with pytest.raises(CountingError):
        await node.policies.update(context, version=1, values={"code_length": 9})
    goes_on.set()
    await node.policies._counts._running.task  # type: ignore[union-attr]
    await node.emergency.disable(
        node.admin("EmergencyAccessService/DisableEmergencyAccess"), serial=SERIAL
    )
    await update(node, code_length=9)
    assert (await current(node)).code_lengths == (9,)


async def test_a_failed_count_is_made_again(
    node: OneNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    count, failures = counting.count, [sqlite3.OperationalError("disk I/O error")]

    async def failing(transaction: ReadTransaction, *, rest: Rest) -> CountedCodes:
        if failures:
            raise failures.pop()
        return await count(transaction, rest=rest)

    monkeypatch.setattr(counting, "count", failing)
    with pytest.raises(sqlite3.OperationalError):
        await update(node, code_length=9)
    await update(node, code_length=9)
    assert (await current(node)).code_length == 9
