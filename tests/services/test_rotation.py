# SPDX-License-Identifier: Apache-2.0
"""
Everything is sealed again, in any order of events, and nothing is lost.

A value that does not open is reported and does not hold up the rest (T3, P5).
"""

import asyncio
import itertools
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sparecode_node.domain.ids import KeyId
from sparecode_node.queries import seals
from sparecode_node.replication.replicator import Proposal
from sparecode_node.services.keys import resealing
from sparecode_node.services.keys import rotation as rotating
from sparecode_node.services.keys.resealing import Resealer, unopened
from sparecode_node.services.keys.rotation import Phase, RotationProgress, UnopenedSeal
from sparecode_node.services.load.pacing import REST
from sparecode_node.services.secrets.keyring import KeyRing
from sparecode_node.services.secrets.sealing import Sealing
from sparecode_node.statemachine.commands.keys import ReplaceSeals, SealKind
from sparecode_node.statemachine.digest import digest
from sparecode_node.statemachine.results import Result
from tests.services.one_node import PIN, OneNode, one_node
from tests.services.pauses import slow_commits, watch_pauses
from tests.services.two_replicas import NODE, TwoReplicas

NOBODY = KeyId(99)
"""No key: everything is sealed with another one."""


@pytest.fixture(autouse=True)
def leading(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the node lead, and seal few rows at a time so that work comes in between."""
    monkeypatch.setattr(TwoReplicas, "primary", NODE)
    monkeypatch.setattr(resealing, "ROWS_MAX", 2)
    monkeypatch.setattr(rotating, "STALLED_S", 0.0)


async def follow(node: OneNode) -> None:
    """Let the ring follow the keys of the state, as its holder does."""
    async with node.state.transaction() as transaction:
        node.key_holder.follow(await seals.keys(transaction))


async def begin(node: OneNode) -> None:
    """Activate another key and leave: the cluster continues by itself."""
    progress = await node.rotation.rotate(
        node.admin("ClusterService/RotateKeys"), at_once=True, keep_old_key=False
    )
    async for each in progress:
        if each.phase is not Phase.HANDING_OUT:
            break
    await progress.aclose()
    await follow(node)


async def finish(node: OneNode) -> None:
    """Seal everything that is left."""
    while await node.resealer.step():
        await follow(node)


@dataclass
class Town:
    """Users whose codes and tokens must work, whatever happens to the keys."""

    node: OneNode
    numbers: "itertools.count[int]" = field(default_factory=itertools.count)
    codes: dict[str, list[str]] = field(default_factory=dict)
    """Live codes by user."""
    spent: list[tuple[str, str]] = field(default_factory=list)
    serials: dict[str, str] = field(default_factory=dict)
    pins: dict[str, str] = field(default_factory=dict)

    async def move_in(self) -> None:
        """Add a user with a token, a PIN and three codes."""
        name = f"user{next(self.numbers)}"
        self.serials[name] = f"serial-{name}"
        self.pins[name] = PIN
        await self.node.add_user(
            name, serial=self.serials[name], seed=name.encode().ljust(20, b".")
        )
        await self._issue(name)

    async def reissue(self) -> None:
        """Replace one user's codes."""
        if self.codes:
            await self._issue(next(iter(self.codes)))

    async def spend(self) -> None:
        """Spend a code."""
        for name, codes in self.codes.items():
            if codes:
                code = codes.pop()
                assert await self.node.accepts(self.pins[name] + code, username=name)
                self.spent.append((name, code))
                return

    async def choose_pin(self) -> None:
        """Give every user another PIN."""
        for name in self.codes:
            self.pins[name] = f"{next(self.numbers) + 7580}"
            await self.node.tokens.set_pin(
                self.node.admin("TokenService/SetPin"),
                serial=self.serials[name],
                pin=self.pins[name],
            )

    async def lose_a_token(self) -> None:
        """Delete one user's token: no code of it is a guess (A5)."""
        if len(self.codes) > 1:
            name = next(iter(self.codes))
            await self.node.tokens.delete(
                self.node.admin("TokenService/DeleteToken"), serial=self.serials[name]
            )
            self.spent += [(name, code) for code in self.codes.pop(name)]

    async def check(self) -> None:
        """Check that every code and token behaves as it should."""
        node = self.node
        for name, codes in self.codes.items():
            pin = self.pins[name]
            seed = name.encode().ljust(20, b".")
            for code in codes:
                assert await node.accepts(pin + code, username=name)
                assert not await node.accepts(pin + code, username=name)
            assert await node.accepts(pin + node.tokencode(seed=seed), username=name)
        for name, code in self.spent[-8:]:
            assert not await node.accepts(self.pins[name] + code, username=name)
        failures = node.primary_db.execute("SELECT * FROM lockouts WHERE failures > 0")
        assert failures.fetchall() == []  # No attempt was charged as a guess.
        await node.login()

    async def _issue(self, name: str) -> None:
        issued = await self.node.issue(self.serials[name])
        self.codes[name] = [code.code for code in issued.codes]


Deed = Callable[[Town], Awaitable[object]]


async def seal_some(town: Town) -> None:
    """Seal one batch."""
    await town.node.resealer.step()
    await follow(town.node)


async def overtake(town: Town) -> None:
    """Change rows between computing and applying each of some batches."""
    node = town.node
    propose = node.replicator.propose

    async def later(proposal, *, timeout_s):
        node.replicator.propose = propose
        command = proposal.call.command
        kinds = {each.kind for each in getattr(command, "seals", ())}
        if SealKind.PIN in kinds:
            await town.choose_pin()
        if SealKind.CODES in kinds:
            await town.reissue()
        return await propose(proposal, timeout_s=timeout_s)

    for _ in range(8):
        node.replicator.propose = later
        try:
            await node.resealer.step()
        finally:
            node.replicator.propose = propose
        await follow(node)


async def change_primary(town: Town) -> None:
    """Let another primary continue, which remembers nothing."""
    node = town.node
    node.resealer = Resealer(
        replicator=node.replicator,
        state=node.state,
        sealing=node.sealing,
        clock=node.clock,
        entropy=node.resealer._entropy,
        pace=node.resealer._pace,
    )


async def rotate_again(town: Town) -> None:
    """Start a rotation, or watch the running one."""
    await begin(town.node)


DEEDS: tuple[Deed, ...] = (
    seal_some,
    seal_some,
    overtake,
    change_primary,
    rotate_again,
    Town.move_in,
    Town.reissue,
    Town.spend,
    Town.choose_pin,
    Town.lose_a_token,
)


async def check_rotation(deeds: list[Deed]) -> None:
    with TemporaryDirectory() as folder:
        async with one_node(Path(folder)) as node:
            await node.register_agent()
            town = Town(node)
            for _ in range(3):
                await town.move_in()
            await begin(node)
            for deed in deeds:
                await deed(town)
            await finish(node)
            await check_only_the_new_key_is_needed(node)
            await town.check()
            assert digest(node.primary_db) == digest(node.local_db)


async def check_only_the_new_key_is_needed(node: OneNode) -> None:
    """Check every row with a ring that holds only the active key."""
    async with node.state.transaction() as transaction:
        keys = await seals.keys(transaction)
        result = await seals.to_replace(transaction, NOBODY, most=10_000)
        result += await seals.waiting_sets(transaction, most=10_000)
        counts = await seals.counts(transaction, keys.active)
    assert keys.aging == ()
    assert node.ring.key_ids == (keys.active,)
    assert counts.old == 0
    assert counts.every == len(result)
    assert {each.key_id for each in result} == {keys.active}
    alone = KeyRing.from_bytes(node.ring.to_bytes())
    assert unopened(Sealing(alone), result, keys.active) == ()


@settings(
    max_examples=20,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(deeds=st.lists(st.sampled_from(DEEDS), max_size=10))
def test_nothing_is_lost_in_any_order_of_events(deeds: list[Deed]) -> None:
    """(T3, P5) Batches, writes, new primaries, a second rotation during the first."""
    asyncio.run(check_rotation(deeds))


DAMAGE = {
    SealKind.SEED: "UPDATE tokens SET sealed_seed = zeroblob(60) WHERE serial = '1'",
    SealKind.PIN: "UPDATE tokens SET pin_verifier = zeroblob(60) WHERE serial = '1'",
    SealKind.CODES: "UPDATE codes SET verifier = zeroblob(60) "
    "WHERE set_id IN (SELECT set_id FROM code_sets WHERE serial = '1')",
}


def damage(node: OneNode, sql: str) -> None:
    """Change both replicas behind the log, as a bad backup would."""
    for db in (node.primary_db, node.local_db):
        db.execute(sql)
        db.commit()


async def watched(node: OneNode) -> list[RotationProgress]:
    """Return the progress that a watching administrator sees, to the end."""
    progress = await node.rotation.rotate(
        node.admin("ClusterService/RotateKeys"), at_once=True, keep_old_key=False
    )
    return [each async for each in progress]


@pytest.mark.asyncio
@pytest.mark.parametrize("kind", DAMAGE)
async def test_unopened_value_is_reported_and_holds_up_nothing_else(
    node: OneNode, kind: SealKind
) -> None:
    """(T3, P5) Which one, never its content. Once it is replaced, the old key goes."""
    for serial, name in (("1", "alice"), ("2", "bob")):
        await node.add_user(name, serial=serial)
    (code, *_) = (await node.issue("2")).codes
    await node.issue("1")
    damage(node, DAMAGE[kind])
    await begin(node)
    await finish(node)
    last = (await watched(node))[-1]
    assert last.phase is Phase.RESEALING
    assert last.stopped
    # A fingerprint cannot be made from such a seed either (K5).
    kinds = {kind, SealKind.SEED_FINGERPRINT} if kind is SealKind.SEED else {kind}
    assert {each.kind for each in last.unopened} == kinds
    report = next(each for each in last.unopened if each.kind is kind)
    assert (report.kind, report.serial) == (kind, "1" if kind is SealKind.CODES else "")
    assert last.every - last.done == len(kinds)
    assert await node.accepts(PIN + code.code, username="bob")
    match kind:
        case SealKind.SEED:
            await node.tokens.delete(node.admin("TokenService/DeleteToken"), serial="1")
        case SealKind.PIN:
            await node.tokens.clear_pin(node.admin("TokenService/ClearPin"), serial="1")
        case _:
            await node.emergency.disable(
                node.admin("EmergencyAccessService/DisableEmergencyAccess"),
                serial="1",
                reinstate_token=False,
            )
    await finish(node)
    await check_only_the_new_key_is_needed(node)


@pytest.mark.asyncio
async def test_resealing_pauses_after_each_batch(
    node: OneNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """(I12) No caller waits for it, and sign-ins are answered nearly as fast."""
    for serial, name in (("1", "alice"), ("2", "bob")):
        await node.add_user(name, serial=serial)
        await node.issue(serial)
    await begin(node)
    pauses = watch_pauses(node, monkeypatch, node.resealer)
    slow_commits(node, monkeypatch, ReplaceSeals, 0.02)
    step = node.resealer.step

    async def followed() -> bool:
        done = await step()
        await follow(node)
        if not done:
            raise asyncio.CancelledError
        return done

    monkeypatch.setattr(node.resealer, "step", followed)
    with pytest.raises(asyncio.CancelledError):
        await node.resealer.run()
    await check_only_the_new_key_is_needed(node)
    assert len(pauses.taken_s) > 3
    assert set(pauses.taken_s) == {round(REST * 0.02, 3)}


@pytest.mark.asyncio
async def test_a_repeat_that_was_prepared_under_the_old_key_gets_the_same_answer(
    node: OneNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    (Q1) A node that was behind a rotation refused what had been accepted.

    `make faults SERIES=points` found it: the tags of the users' names were new already.
    """
    await node.add_user("alice")
    code = (await node.issue()).codes[0].code
    request_id = str(uuid.uuid4())
    assert await node.accepts(PIN + code, request_id=request_id)
    ring = node.key_holder.ring
    old = ring.active
    await begin(node)
    tags = "SELECT tag_key_id FROM users"
    while node.primary_db.execute(tags).fetchone() == (old,):
        assert await node.resealer.step()
    await follow(node)
    new, aging = ring.active, ring.aging
    assert (new != old, aging) == (True, (old,))
    ring.active, ring.aging = old, ()
    propose = node.replicator.propose

    async def propose_behind(proposal: Proposal, *, timeout_s: float) -> Result:
        """Let the node apply the rotation while its proposal is under way."""
        result = await propose(proposal, timeout_s=timeout_s)
        ring.active, ring.aging = new, aging
        return result

    monkeypatch.setattr(node.replicator, "propose", propose_behind)
    assert await node.accepts(PIN + code, request_id=request_id)


@pytest.mark.asyncio
async def test_a_repeat_that_a_reseal_overtakes_gets_the_same_answer(
    node: OneNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    (Q1) The node knows the new key, but the tag of the user's name is replaced later.

    `make sim` found it, with the fault of members that come and go (seed 22).
    """
    await node.add_user("alice")
    code = (await node.issue()).codes[0].code
    request_id = str(uuid.uuid4())
    assert await node.accepts(PIN + code, request_id=request_id)
    old = node.key_holder.ring.active
    await begin(node)
    tags = "SELECT tag_key_id FROM users"
    assert node.primary_db.execute(tags).fetchone() == (old,)
    propose = node.replicator.propose
    tries = 0

    async def propose_late(proposal: Proposal, *, timeout_s: float) -> Result:
        """Let the log replace the tag before the proposal comes."""
        nonlocal tries
        tries += 1
        monkeypatch.setattr(node.replicator, "propose", propose)
        while node.primary_db.execute(tags).fetchone() == (old,):
            assert await node.resealer.step()
        return await propose(proposal, timeout_s=timeout_s)

    monkeypatch.setattr(node.replicator, "propose", propose_late)
    assert await node.accepts(PIN + code, request_id=request_id)
    assert tries == 1


@pytest.mark.asyncio
async def test_slow_rotation_is_not_called_broken(node: OneNode) -> None:
    """(P5) Between two primaries nothing is sealed, and the progress says so."""
    await node.add_user()
    await node.issue()
    await begin(node)
    context = node.admin("ClusterService/RotateKeys")
    progress = await node.rotation.rotate(context, at_once=True, keep_old_key=False)
    looking = asyncio.create_task(anext(aiter(progress)))
    first = await looking
    assert (first.unopened, first.stopped) == ((), False)
    stalled = await node.rotation._with_unopened(first)
    assert (stalled.unopened, stalled.stopped) == ((), False)
    await progress.aclose()
    await finish(node)


def test_progress_names_no_value() -> None:
    """(T3) It has no field that could hold one."""
    assert set(UnopenedSeal.__slots__) == {"kind", "row", "serial"}
