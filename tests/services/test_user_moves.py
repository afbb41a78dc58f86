# SPDX-License-Identifier: Apache-2.0
"""Users move from one cluster to another, and no code works in both (docs/clusters.md)."""

import base64
import dataclasses
import logging
import uuid
from collections.abc import AsyncIterator, Awaitable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import pytest_asyncio

from sparecode_client import slot_of
from sparecode_node.domain import slots
from sparecode_node.domain.administrators import Role
from sparecode_node.domain.ids import KeyId
from sparecode_node.domain.moves import NO_PIECES, MoveState, MoveTicket
from sparecode_node.domain.outcomes import Reason
from sparecode_node.domain.policy import DAY_MS, MINUTE_MS, Policy
from sparecode_node.domain.users import fold
from sparecode_node.services.cluster import move_pieces
from sparecode_node.services.cluster.user_moves import EndedMove, MoveOutcome
from sparecode_node.services.error_table import Audience, Code, answer_for
from sparecode_node.services.errors import ApprovalNeededError, Refused
from sparecode_node.services.secrets.kdf import Secret
from sparecode_node.services.secrets.keyring import UnknownKeyError
from sparecode_node.services.secrets.move_seals import (
    MoveSeals,
    SealedPiece,
    next_chain,
)
from tests.services.one_node import PIN, SERIAL, OneNode, one_node
from tests.services.test_administrators import settled

pytestmark = pytest.mark.asyncio

LAST = 4095
BOB = "000131415927"


@dataclass
class Move:
    """One move from east to west, step by step."""

    east: OneNode
    west: OneNode
    ticket: MoveTicket | None = None
    pieces: list[SealedPiece] = field(default_factory=list)

    @property
    def id(self) -> str:
        assert self.ticket is not None
        return self.ticket.move_id

    async def prepare(
        self, first: int = 0, last: int = LAST, *, same_administrators: bool = False
    ) -> None:
        key = await self.east.user_moves.key(self.east.admin("MoveService/GetMoveKey"))
        self.ticket = await self.west.user_moves.prepare(
            self.west.admin("MoveService/PrepareMove"),
            first_slot=first,
            last_slot=last,
            source=key,
            same_administrators=same_administrators,
        )

    async def freeze(self) -> None:
        await self.east.user_moves.freeze(
            self.east.admin("MoveService/FreezeUsers"), ticket=self.ticket
        )

    async def export(self) -> None:
        pieces = await self.east.user_moves.export(
            self.east.admin("MoveService/ExportMovedUsers"), move_id=self.id
        )
        self.pieces = [piece async for piece in pieces]

    async def load(self, *pieces: SealedPiece) -> None:
        for piece in pieces or self.pieces:
            await self.west.user_moves.import_piece(
                self.west.admin("MoveService/ImportMovedUsers"), piece=piece
            )

    async def activate(self, request_id: str = "") -> EndedMove:
        ended: EndedMove = await self.west.user_moves.activate(
            self.west.admin("MoveService/ActivateMove", request_id), move_id=self.id
        )
        return ended

    async def cancel(self) -> EndedMove:
        ended: EndedMove = await self.west.user_moves.cancel(
            self.west.admin("MoveService/CancelMove"), move_id=self.id
        )
        return ended

    async def end(self, receipt: bytes) -> MoveState:
        ended: MoveOutcome = await self.east.user_moves.end(
            self.east.admin("MoveService/EndMove"), ticket=self.ticket, receipt=receipt
        )
        return ended.state

    async def delete(self, node: OneNode) -> bool:
        left: bool = await node.user_moves.delete(
            node.admin("MoveService/DeleteMovedUsers"), move_id=self.id
        )
        return left

    async def reclaim(
        self, node: OneNode, first: int | None = None, last: int | None = None
    ) -> MoveState:
        ended: MoveOutcome = await node.user_moves.reclaim(
            node.admin("MoveService/ReclaimMove"),
            move_id=self.id,
            reason="burned",
            first_slot=first,
            last_slot=last,
        )
        return ended.state

    async def through_import(self) -> None:
        await self.prepare()
        await self.freeze()
        await self.export()
        await self.load()


@pytest_asyncio.fixture
async def move(tmp_path: Path) -> AsyncIterator[Move]:
    """Two clusters. East has alice; west has no users."""
    for name in ("east", "west"):
        (tmp_path / name).mkdir()
    async with one_node(tmp_path / "east") as east, one_node(tmp_path / "west") as west:
        await east.register_agent()
        await west.register_agent()
        await east.add_user("alice")
        yield Move(east, west)


async def refusal(node: OneNode, passcode: str, **options: str) -> Reason:
    with pytest.raises(Refused) as refused:
        await node.authenticate(passcode, **options)
    reason: Reason = refused.value.rejected.reason
    return reason


async def refused(step: Awaitable[object]) -> Reason:
    with pytest.raises(Refused) as answer:
        await step
    reason: Reason = answer.value.rejected.reason
    return reason


def gone(node: OneNode) -> list[str]:
    rows = node.primary_db.execute(
        "SELECT target FROM audit_events WHERE action IN ('USER_GONE', 'TOKEN_GONE') "
        "ORDER BY sequence"
    )
    return [row[0] for row in rows]


@pytest.mark.parametrize(
    "name", ["alice", "ALICE ", "Straße", "\uff26ull", "\ufb01", "\ud800"]
)
async def test_nodes_and_clients_compute_the_same_slots(name: str) -> None:
    assert slots.slot_of(fold(name)) == slot_of(name)


async def test_a_user_signs_in_where_the_slot_has_gone(move: Move) -> None:
    """(A3) The spent code stays spent, the unspent one works there, and there alone."""
    issued = await move.east.issue()
    spent, left, third = (PIN + each.code for each in issued.codes)
    request_id = str(uuid.uuid4())
    assert await move.east.accepts(spent, request_id=request_id)

    await move.prepare()
    assert await refusal(move.west, left) is Reason.SLOT_MOVING
    await move.freeze()
    assert await refusal(move.east, left) is Reason.SLOT_MOVING
    # A caller that does not know the outcome learns it (Q1).
    assert await move.east.accepts(spent, request_id=request_id)
    await move.export()
    await move.load()
    assert await refusal(move.west, left) is Reason.SLOT_MOVING

    ended = await move.activate()
    assert await refusal(move.east, left) is Reason.SLOT_MOVING
    assert not await move.west.accepts(spent)
    assert await move.west.accepts(left)
    assert not await move.west.accepts(left)

    assert await move.end(ended.receipt) is MoveState.GONE
    assert await refusal(move.east, third) is Reason.SLOT_MOVED
    assert await refusal(move.east, third, username="nobody") is Reason.SLOT_MOVED
    assert await move.east.accepts(spent, request_id=request_id)


async def test_a_tokencode_of_the_source_is_spent_in_the_target(move: Move) -> None:
    """(K1) The token's position moves, too."""
    assert await move.east.accepts(PIN + move.east.tokencode())
    await move.through_import()
    await move.activate()
    assert not await move.west.accepts(PIN + move.west.tokencode())
    move.west.clock.pass_s(30)
    assert await move.west.accepts(PIN + move.west.tokencode())


async def test_a_canceled_move_serves_again_in_the_source(move: Move) -> None:
    issued = await move.east.issue()
    await move.through_import()
    ended = await move.cancel()
    assert await refused(move.activate()) is Reason.MOVE_STEP
    assert await refused(move.load()) is Reason.MOVE_STEP
    passcode = PIN + issued.codes[0].code
    assert await refusal(move.east, passcode) is Reason.SLOT_MOVING
    assert await move.end(ended.receipt) is MoveState.RETURNED
    assert await move.east.accepts(passcode)
    assert await refusal(move.west, passcode) is Reason.SLOT_MOVED
    assert not await move.delete(move.west)
    rows = move.west.primary_db.execute(
        "SELECT (SELECT count(*) FROM users), (SELECT count(*) FROM tokens), "
        "(SELECT count(*) FROM codes), (SELECT count(*) FROM former_tokens)"
    )
    assert rows.fetchone() == (0, 0, 0, 0)
    assert await refused(move.export()) is Reason.MOVE_STEP


async def test_a_canceled_move_that_had_not_begun_never_begins(move: Move) -> None:
    """A freeze that arrives late would stop the users for good."""
    await move.prepare()
    ended = await move.cancel()
    assert await move.end(ended.receipt) is MoveState.NEVER
    assert await refused(move.freeze()) is Reason.MOVE_STEP
    assert await move.east.accepts(PIN + move.east.tokencode())


async def test_each_step_can_be_repeated(move: Move) -> None:
    issued = await move.east.issue()
    await move.prepare()
    await move.freeze()
    await move.freeze()
    await move.export()
    first = move.pieces
    await move.export()
    assert [each.chain for each in move.pieces] == [each.chain for each in first]
    await move.load(first[0])
    await move.load()  # The other export has the same content.
    await move.load()
    ended = await move.activate()
    assert (await move.activate()).receipt == ended.receipt
    await move.end(ended.receipt)
    assert await move.end(ended.receipt) is MoveState.GONE
    assert await move.west.accepts(PIN + issued.codes[0].code)


async def export_in_pieces(move: Move, monkeypatch: pytest.MonkeyPatch) -> None:
    """Freeze users whose export has several pieces, and export them."""
    monkeypatch.setattr(move_pieces, "CONTENT_BYTES", 500)
    await move.east.issue(count=50)
    await move.prepare()
    await move.freeze()
    await move.export()


async def test_pieces_come_in_order_and_none_is_left_out(
    move: Move, monkeypatch: pytest.MonkeyPatch
) -> None:
    await export_in_pieces(move, monkeypatch)
    assert len(move.pieces) > 3
    await move.load(move.pieces[0])
    assert await refused(move.load(move.pieces[2])) is Reason.MOVE_EXPORT
    assert await refused(move.activate()) is Reason.MOVE_STEP
    await move.load(*move.pieces[1:-1])
    assert await refused(move.activate()) is Reason.MOVE_STEP
    await move.load(move.pieces[-1])
    await move.activate()


async def test_a_piece_that_a_node_did_not_expect_has_no_rows(
    move: Move, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be the next one when it is applied, and nobody has looked into it."""
    await export_in_pieces(move, monkeypatch)
    (arriving,) = await move.west.user_moves.list(
        move.west.admin("MoveService/ListMoves")
    )
    west = move.west.user_moves
    for piece, has_rows in ((move.pieces[0], True), (move.pieces[1], False)):
        command = move_pieces.import_of(
            west._seals, west._kdf.profile, arriving, Policy(), piece
        )
        assert bool(command.rows) is has_rows


def written(
    move: Move, number: int, *, last: bool, chain: bytes = NO_PIECES
) -> SealedPiece:
    """Return a piece of another export that the source has written."""
    assert move.ticket is not None
    piece: SealedPiece = move.east.user_moves._seals.seal_piece(
        move.ticket, b"[]", number=number, chain=next_chain(chain, b"[]"), last=last
    )
    return piece


async def test_no_other_export_passes_for_one_that_is_imported(
    move: Move, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its operator would go on to activate, and give up users who are not here."""
    await export_in_pieces(move, monkeypatch)
    for imported in (move.pieces[:-1], move.pieces[-1:]):
        await move.load(*imported)
        newest = imported[-1]
        shorter = written(move, 0, last=True)
        equal = written(move, newest.number, last=newest.last)
        for other in (shorter, equal):
            assert await refused(move.load(other)) is Reason.MOVE_EXPORT
    longer = written(move, newest.number + 1, last=True, chain=newest.chain)
    assert await refused(move.load(longer)) is Reason.MOVE_EXPORT
    await move.load()
    await move.activate()


async def test_a_forged_piece_does_not_pass_for_one_that_is_imported(
    move: Move, monkeypatch: pytest.MonkeyPatch
) -> None:
    await export_in_pieces(move, monkeypatch)
    await move.load()
    for piece in move.pieces:
        for forged in (
            dataclasses.replace(piece, sealed=b"another"),
            dataclasses.replace(piece, signature=bytes(64)),
        ):
            assert await refused(move.load(forged)) is Reason.MOVE_EXPORT


async def test_a_node_that_lacks_a_key_leaves_the_export_to_another_one(
    move: Move, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client repeats the call on the next node; the users are not at fault."""

    def lacking(*_: object) -> bytes:
        raise UnknownKeyError(KeyId(9))

    await move.prepare()
    await move.freeze()
    monkeypatch.setattr(MoveSeals, "unseal_seed", lacking)
    with pytest.raises(UnknownKeyError) as caught:
        await move.export()
    answer = answer_for(caught.value, Audience.ADMINISTRATOR)
    assert answer is not None
    assert (answer.code, answer.reason) == (Code.UNAVAILABLE, "KEY_MISSING")


async def test_a_name_that_folds_otherwise_here_is_refused(move: Move) -> None:
    """Clusters of two releases may have different Unicode tables."""
    await move.prepare()
    await move.freeze()
    await move.export()
    [piece] = move.pieces
    assert move.ticket is not None
    key = await move.east.user_moves.key(move.east.admin("MoveService/GetMoveKey"))
    content = move.west.user_moves._seals.open_piece(
        move.ticket, piece, key_id=KeyId(1), source_key=key.public_key
    )
    other = content.replace(b'"name_key":"alice"', b'"name_key":"alicf"')
    assert other != content
    wrong = move.east.user_moves._seals.seal_piece(
        move.ticket, other, number=0, chain=next_chain(NO_PIECES, other), last=True
    )
    assert await refused(move.load(wrong)) is Reason.MOVE_EXPORT
    await move.load()


async def test_an_altered_piece_is_refused(move: Move) -> None:
    await move.prepare()
    await move.freeze()
    await move.export()
    [piece] = move.pieces
    for wrong in (
        dataclasses.replace(
            piece, sealed=piece.sealed[:-1] + bytes([piece.sealed[-1] ^ 1])
        ),
        dataclasses.replace(piece, last=False),
        dataclasses.replace(piece, chain=bytes(32)),
        dataclasses.replace(piece, signature=bytes(64)),
    ):
        assert await refused(move.load(wrong)) is Reason.MOVE_EXPORT


async def test_only_the_source_can_write_an_export(move: Move) -> None:
    """A reader of a ticket could otherwise bring in a user with a PIN of their own."""
    await move.prepare()
    await move.freeze()
    await move.export()
    [piece] = move.pieces
    assert move.ticket is not None
    key = await move.east.user_moves.key(move.east.admin("MoveService/GetMoveKey"))
    seals = move.west.user_moves._seals
    content = seals.open_piece(
        move.ticket, piece, key_id=KeyId(1), source_key=key.public_key
    )
    forged = seals.seal_piece(
        move.ticket, content, number=0, chain=piece.chain, last=True
    )
    assert await refused(move.load(forged)) is Reason.MOVE_EXPORT


async def test_an_export_of_another_move_is_refused(move: Move) -> None:
    await move.prepare()
    await move.freeze()
    await move.export()
    old = move.pieces
    await move.end((await move.cancel()).receipt)
    await move.delete(move.west)
    move.west.clock.pass_s(11 * 60)
    await move.west.login()
    await move.prepare()
    assert await refused(move.load(*old)) is Reason.MOVE_STEP
    moved = [dataclasses.replace(each, move_id=move.id) for each in old]
    assert await refused(move.load(*moved)) is Reason.MOVE_EXPORT


async def test_a_slot_comes_back_after_ten_minutes(move: Move) -> None:
    """Until then a copy of an attempt may arrive, whose caller was told SLOT_MOVED."""
    await move.prepare()
    await move.cancel()
    assert await refused(move.prepare()) is Reason.MOVE_SLOTS
    move.west.clock.pass_s(10 * MINUTE_MS / 1000 + 1)
    await move.west.login()
    await move.prepare()


async def test_a_forged_receipt_ends_nothing(move: Move) -> None:
    await move.through_import()
    assert await refused(move.end(bytes(32))) is Reason.MOVE_RECEIPT
    ended = await move.activate()
    assert await move.end(ended.receipt) is MoveState.GONE


async def test_a_frozen_user_is_not_changed(move: Move) -> None:
    await move.prepare()
    await move.freeze()
    east = move.east
    for step in (
        east.issue(),
        east.tokens.set_pin(
            east.admin("TokenService/SetPin"), serial=SERIAL, pin="8264"
        ),
        east.users.delete(east.admin("UserService/DeleteUser"), username="alice"),
        east.users.create(
            east.admin("UserService/CreateUser"),
            username="carol",
            display_name="",
            email="",
        ),
    ):
        assert await refused(step) is Reason.SLOT_MOVING


async def test_other_slots_are_served_meanwhile(move: Move) -> None:
    await move.east.add_user("bob", serial=BOB)
    slot = slot_of("alice")
    assert slot != slot_of("bob")
    await move.prepare(slot, slot)
    await move.freeze()
    await move.export()
    await move.load()
    await move.end((await move.activate()).receipt)
    seed = BOB.encode().ljust(20, b".")
    passcode = PIN + move.east.tokencode(seed=seed)
    assert await move.east.accepts(passcode, username="bob")
    assert not await move.west.accepts(passcode, username="bob")
    assert await move.west.accepts(PIN + move.west.tokencode())


async def test_users_are_deleted_after_a_day(move: Move) -> None:
    """(K1) A token that is enrolled again in the source does not repeat a tokencode."""
    await move.through_import()
    await move.end((await move.activate()).receipt)
    assert await refused(move.delete(move.east)) is Reason.MOVE_STEP
    move.east.clock.pass_s(DAY_MS / 1000)
    await move.east.login()
    assert not await move.delete(move.east)
    assert move.east.primary_db.execute("SELECT count(*) FROM users").fetchone() == (0,)
    assert gone(move.east) == [SERIAL, "alice"]
    assert await refusal(move.east, PIN + move.east.tokencode()) is Reason.SLOT_MOVED
    assert (
        move.east.primary_db.execute("SELECT count(*) FROM former_tokens").fetchone()
    ) == (1,)


async def test_a_late_deletion_spares_users_who_came_back(move: Move) -> None:
    await move.through_import()
    await move.end((await move.activate()).receipt)
    move.east.clock.pass_s(DAY_MS / 1000)
    await move.east.login()
    await move.delete(move.east)
    move.west.clock.now = move.east.clock.now
    await move.west.login()
    back = Move(move.west, move.east)
    await back.through_import()
    await back.end((await back.activate()).receipt)
    assert not await move.delete(move.east)
    move.east.clock.pass_s(30)
    assert await move.east.accepts(PIN + move.east.tokencode())


async def test_slots_with_users_get_no_others(move: Move) -> None:
    await move.west.add_user("bob", serial=BOB)
    assert await refused(move.prepare()) is Reason.MOVE_SLOTS


async def test_a_slot_without_users_is_not_frozen(move: Move) -> None:
    """The slot table proves nothing: perhaps another cluster has the slot."""
    other = (slot_of("alice") + 1) % 4096
    await move.prepare(other, other)
    assert await refused(move.freeze()) is Reason.MOVE_SLOTS


async def test_a_token_that_exists_in_the_target_is_named(move: Move) -> None:
    await move.west.enroll()
    await move.prepare()
    await move.freeze()
    await move.export()
    with pytest.raises(Refused, match=SERIAL) as conflict:
        await move.load()
    assert conflict.value.rejected.reason is Reason.MOVE_CONFLICT
    await move.west.tokens.delete(
        move.west.admin("TokenService/DeleteToken"), serial=SERIAL
    )
    await move.load()
    await move.activate()


async def test_a_lost_target_gives_the_users_back(move: Move) -> None:
    await move.prepare()
    await move.freeze()
    move.east.clock.pass_s(11 * 60)
    await move.east.login()
    await move.reclaim(move.east)
    move.east.clock.pass_s(60)
    assert await move.east.accepts_two()


async def approved(node: OneNode, dora: str, step: Awaitable[object]) -> None:
    """Expect that a step waits, and let the other super administrator approve it."""
    with pytest.raises(ApprovalNeededError) as waiting:
        await step
    root, node.bearer = node.bearer, dora
    await node.approvals.approve(
        node.admin("AdministratorService/Approve"),
        approval_id=waiting.value.approval_id,
    )
    node.bearer = root


async def test_the_end_of_an_unknown_move_needs_an_approval(move: Move) -> None:
    """Else one administrator could fill the state with tickets of their own."""
    await move.prepare()
    ended = await move.cancel()
    of_east = await settled(move.east, Role.SUPER_ADMIN)
    await approved(move.east, of_east, move.end(ended.receipt))
    assert await move.end(ended.receipt) is MoveState.NEVER


async def test_giving_or_taking_users_needs_an_approval(move: Move) -> None:
    """(P3) Freezing takes service away; an import brings verifiers in."""
    east, west = move.east, move.west
    of_east = await settled(east, Role.SUPER_ADMIN)
    of_west = await settled(west, Role.SUPER_ADMIN)
    await approved(west, of_west, move.prepare())
    (arriving,) = await west.user_moves.list(west.admin("MoveService/ListMoves"))
    move.ticket = arriving.ticket
    await approved(east, of_east, move.freeze())
    await move.freeze()  # It is frozen: a repeated step asks nobody.
    await move.export()
    await move.load()
    await approved(west, of_west, move.activate())
    await move.end((await move.activate()).receipt)
    assert await west.accepts(PIN + west.tokencode())


async def test_giving_users_up_for_lost_needs_an_approval(move: Move) -> None:
    """(P3) The target may be alive, and serve them, too."""
    await move.prepare()
    await move.freeze()
    move.east.clock.pass_s(11 * 60)
    await move.east.login()
    of_east = await settled(move.east, Role.SUPER_ADMIN)
    await approved(move.east, of_east, move.reclaim(move.east))
    move.east.clock.pass_s(60)
    assert await move.east.accepts_two()


async def test_a_move_needs_a_recent_password(move: Move) -> None:
    """(P7) A stolen session moves nobody."""
    await move.prepare()
    await move.freeze()
    await move.export()
    for node in (move.east, move.west):
        node.clock.pass_s(6 * 60)
    for step in (move.export(), move.load(), move.cancel(), move.activate()):
        assert await refused(step) is Reason.REAUTHENTICATION_NEEDED
    await move.west.login()
    await move.load()
    ended = await move.activate()
    await move.east.login()
    await move.end(ended.receipt)
    move.east.clock.pass_s(DAY_MS / 1000)
    await move.east.login()
    move.east.clock.pass_s(6 * 60)
    assert await refused(move.delete(move.east)) is Reason.REAUTHENTICATION_NEEDED


async def test_no_secret_is_in_clear_on_the_way(
    move: Move, caplog: pytest.LogCaptureFixture
) -> None:
    """(T3) Neither seed, PIN, code, hash nor receipt is in log, state, audit or export."""
    with caplog.at_level(logging.DEBUG):
        seed = b"canary-seed-canary!!"
        await move.east.add_user("bob", serial=BOB, seed=seed, pin="90817263")
        issued = await move.east.issue(BOB)
        await move.through_import()
        ended = await move.activate()
        await move.end(ended.receipt)
    hashes = []
    seals = move.east.user_moves._seals
    for user_id, verifier in move.east.primary_db.execute(
        "SELECT user_id, pin_verifier FROM tokens WHERE serial = ?", (BOB,)
    ):
        hashes.append(seals._hash_in(verifier, 1, Secret.PIN, user_id, BOB))
    assert hashes
    secrets = [seed, b"90817263", ended.receipt, *hashes]
    secrets += [each.code.encode() for each in issued.codes]
    secrets += [each.code.replace("-", "").encode() for each in issued.codes]
    haystacks = [caplog.text.encode(), repr(move.pieces).encode(), repr(ended).encode()]
    haystacks += [each.sealed for each in move.pieces]
    for node in (move.east, move.west):
        haystacks.append("\n".join(node.primary_db.iterdump()).encode())
        haystacks += node.replicator.entries
    for secret in secrets:
        for form in (secret, secret.hex().encode(), base64.b64encode(secret)[:-4]):
            for haystack in haystacks:
                assert form not in haystack


async def test_no_count_of_codes_begins_while_users_arrive(move: Move) -> None:
    """(I6) The next piece may add codes to a set that the count has seen empty."""
    counts = move.west.policies._counts
    await move.prepare()
    assert await refused(counts._count()) is Reason.MOVE_STEP
    await move.cancel()
    await counts._count()
