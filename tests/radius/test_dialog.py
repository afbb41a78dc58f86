# SPDX-License-Identifier: Apache-2.0
"""Requests and their answers by RADIUS: users, guesses, copies, next steps (D1-D3, K3)."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
import pytest_asyncio
from pyrad.packet import AccessAccept, AccessChallenge, AccessReject, StatusServer

from sparecode_client.connection import radius
from sparecode_client.connection.radius import RadiusCode
from sparecode_node.queries import seals
from sparecode_node.radius import dialog, packets
from sparecode_node.radius.dialog import NO_LOCAL_USER, REPEATED_MS
from sparecode_node.replication.errors import NoQuorumError
from sparecode_node.services.authentication import prompts
from sparecode_node.services.context import AgentCaller
from sparecode_node.services.keys.rotation import Phase
from sparecode_node.services.load import rates
from sparecode_node.statemachine.results import BarrierPassed
from tests.radius.door import (
    SILENCE_S,
    TIMEOUT_S,
    Door,
    answered,
    connected,
    decoded,
    failures,
    give_attributes,
    open_door,
    request,
    update,
)
from tests.services.one_node import PIN, SERIAL, UNLIMITED, one_node
from tests.services.two_replicas import NODE, TwoReplicas

pytestmark = pytest.mark.asyncio

NAS_PORT = (packets.NAS_PORT, bytes(4))
WRONG = "1" * 10


def sshd_text(length: int) -> str:
    """Return what `fake_password` of OpenSSH sends after *length* typed characters."""
    return "".join(itertools.islice(itertools.cycle(NO_LOCAL_USER), length))


async def challenge(door: Door, username: str = "alice", **more: object) -> bytes:
    """Bring a user to the next tokencode, and return the State of the challenge."""
    for _ in range(3):
        sent = request(door.secret, username, WRONG, **more)
        assert await answered(door, sent) == AccessReject
        door.node.clock.pass_s(10)
    passcode = PIN + door.node.tokencode()
    return await state_of(door, passcode, username=username, **more)


async def state_of(
    door: Door,
    password: str,
    state: bytes = b"",
    *,
    username: str = "alice",
    **more: object,
) -> bytes:
    """Answer a prompt, and return the State of the challenge that follows."""
    attributes = [(packets.STATE, state)] if state else []
    sent = request(door.secret, username, password, attributes=attributes, **more)
    reply = decoded(door.secret, sent, await door.send(sent))
    assert reply.code == AccessChallenge
    return b"".join(reply[packets.STATE])


def with_state(
    door: Door, state: bytes, password: str, username: str = "alice", **more: object
) -> bytes:
    """Return the request that answers a challenge."""
    return request(
        door.secret, username, password, attributes=[(packets.STATE, state)], **more
    )


@pytest_asyncio.fixture
async def pinless(door: Door) -> AsyncIterator[Door]:
    """Return a door at which Alice must choose a PIN."""
    await door.node.tokens.clear_pin(
        door.node.admin("TokenService/ClearPin"), serial=SERIAL
    )
    yield door


# --- Users


async def test_a_challenge_signs_in_the_user_that_it_was_sent_for(door):
    """(K3) A client lets in the user whom the packet names, and the user may name anyone."""
    state = await challenge(door)
    door.node.clock.pass_s(30)
    code = door.node.tokencode()
    for other in ("mallory", "root", "alice2", ""):
        sent = with_state(door, state, code, other)
        assert await answered(door, sent) == AccessReject
    assert failures(door) == 3
    assert await answered(door, with_state(door, state, code, " ALICE")) == AccessAccept


async def test_a_chosen_pin_needs_the_same_user_in_each_packet(pinless):
    """(K2, K3)."""
    state = await state_of(pinless, pinless.node.tokencode())
    sent = with_state(pinless, state, "82649173", "mallory")
    assert await answered(pinless, sent) == AccessReject
    state = await state_of(pinless, "82649173", state)
    sent = with_state(pinless, state, "82649173", "mallory")
    assert await answered(pinless, sent) == AccessReject


# --- Guesses


@pytest.mark.parametrize("length", [0, 1, 8, 10, 12, 13, 14, 26, 48])
async def test_what_sshd_sends_for_unknown_users_is_no_guess(door, length):
    """(D2) A spray of names over SSH, with any input, charges no user."""
    for _ in range(4):
        sent = request(door.secret, password=sshd_text(length))
        assert await answered(door, sent) == AccessReject
    assert failures(door) == 0


@pytest.mark.parametrize("password", ["\b\n\r\x7fINCORRECU", "INCORRECT", " ", "-"])
async def test_what_only_resembles_it_is_a_guess(door, password):
    sent = request(door.secret, password=password)
    assert await answered(door, sent) == AccessReject
    assert failures(door) == 1


async def test_an_empty_answer_to_a_challenge_prompts_again(door):
    state = await challenge(door)
    again = await state_of(door, "", state)
    door.node.clock.pass_s(30)
    sent = with_state(door, again, door.node.tokencode())
    assert await answered(door, sent) == AccessAccept


# --- Unsigned requests


async def test_answers_to_unsigned_requests_tell_nothing_about_octets(door):
    """(D2) Anyone can change the password of a recorded packet: each copy is rejected."""
    await update(door, allow_unsigned=True)
    sent = request(door.secret, "no-such-user", "4711123456", signed=False)
    start = len(sent) - 16
    garbled = 0
    for number, change in enumerate((0x00, 0x01, 0x10, 0x4F, 0x7F, 0x80, 0xC3)):
        changed = bytearray(sent)
        changed[start + 3] ^= change
        changed[8] = number  # The authenticator: no copy of the one before.
        assert await answered(door, bytes(changed)) == AccessReject
        garbled += 1
    assert door.counted("rejected") + door.counted("unreadable") == garbled
    assert door.counted("unreadable") > 0
    published = door.counts.published()
    assert published == {("vpn", "rejected"): garbled}
    known = bytearray(request(door.secret, password=WRONG, signed=False))
    known[-1] ^= 0xFF
    assert await answered(door, bytes(known)) == AccessReject
    assert failures(door) == 0


async def test_no_pin_is_chosen_in_unsigned_requests(pinless):
    """Prompts tell digits from other octets, so a changed copy would reveal a PIN."""
    door = pinless
    await update(door, allow_unsigned=True)
    sent = request(door.secret, password=door.node.tokencode(), signed=False)
    reply = decoded(door.secret, sent, await door.send(sent))
    assert reply.code == AccessReject
    assert reply[packets.REPLY_MESSAGE] == [dialog.PIN_NEEDS_SIGNATURE.encode()]
    door.node.clock.pass_s(30)
    state = await state_of(door, door.node.tokencode())
    for password in ("82649173", "none"):
        sent = with_state(door, state, password, signed=False)
        assert await answered(door, sent) == AccessReject


async def test_a_malformed_tokencode_in_an_unsigned_request_is_rejected(door):
    await update(door, allow_unsigned=True)
    state = await challenge(door)
    sent = with_state(door, state, "12345x", signed=False)
    assert await answered(door, sent) == AccessReject
    door.node.clock.pass_s(30)
    sent = with_state(door, state, door.node.tokencode(), signed=False)
    assert await answered(door, sent) == AccessAccept


async def test_unsigned_requests_can_end_with_the_first_signed_one(door, caplog):
    """(D2) A signature that is stripped afterwards gets no answer."""
    await update(door, allow_unsigned=True, unsigned_until_signed=True)
    await door.listener.refresh()
    warned = [each for each in caplog.messages if each == "radius_unsigned_allowed"]
    assert len(warned) == 1
    status = request(door.secret, code=StatusServer)
    assert await answered(door, status) == AccessAccept  # It is always signed.
    unsigned = request(door.secret, password=WRONG, signed=False)
    assert await answered(door, unsigned) == AccessReject
    assert await door.silent(request("another", password=WRONG))
    unsigned = request(door.secret, password=WRONG, signed=False)
    assert await answered(door, unsigned) == AccessReject
    signed = request(door.secret, password=WRONG)
    assert await answered(door, signed) == AccessReject
    assert await door.silent(request(door.secret, password=WRONG, signed=False))
    assert door.counted("no_message_authenticator") == 1
    await update(door, allow_unsigned=True)
    unsigned = request(door.secret, password=WRONG, signed=False)
    assert await answered(door, unsigned) == AccessReject


async def test_signatures_stay_required_after_a_restart_and_on_all_nodes(door):
    """(D2) That a client can sign is a fact in the state, not in a node's memory."""
    node = door.node
    await update(door, allow_unsigned=True, unsigned_until_signed=True)
    async with open_door(node) as other:
        other.secret = door.secret
        unsigned = request(door.secret, password=WRONG, signed=False)
        assert await answered(other, unsigned) == AccessReject
        signed = request(door.secret, password=WRONG)
        assert await answered(door, signed) == AccessReject
        await other.listener.refresh()
        assert await other.silent(request(door.secret, password=WRONG, signed=False))
    (client,) = (await node.radius_clients.directory()).clients
    assert not client.settings.allow_unsigned
    assert not client.settings.unsigned_until_signed
    (event,) = node.primary_db.execute(
        "SELECT detail FROM audit_events WHERE action = 'SIGNATURES_REQUIRED'"
    )
    assert "the RADIUS client has sent a signed request" in event[0]


async def test_the_answer_to_a_challenge_also_requires_signatures(door):
    """(D2, K3)."""
    await update(door, allow_unsigned=True, unsigned_until_signed=True)
    state = await challenge(door, signed=False)
    door.node.clock.pass_s(30)
    sent = with_state(door, state, door.node.tokencode())
    assert await answered(door, sent) == AccessAccept
    (client,) = (await door.node.radius_clients.directory()).clients
    assert not client.settings.allow_unsigned


# --- A challenge for the passcode


async def test_an_empty_password_can_begin_with_a_challenge(door):
    """(K3) For clients that have no passcode at first. Each user gets it (A6)."""
    await update(door, prompts_for_passcode=True)
    sent = request(door.secret, "no-such-user")
    first = decoded(door.secret, sent, await door.send(sent))
    assert first.code == AccessChallenge
    state = await state_of(door, "")
    assert not door.node.primary_db.execute(
        "SELECT 1 FROM audit_events WHERE action = 'Authenticate'"
    ).fetchall()
    # Any State of a prompt will do, on any node, and one of them is no permission.
    for password, expected in ((WRONG, AccessReject), ("", AccessReject)):
        assert await answered(door, with_state(door, state, password)) == expected
    async with open_door(door.node) as other:
        other.secret = door.secret
        door.node.clock.pass_s(30)
        passcode = PIN + door.node.tokencode()
        sent = with_state(door, state, passcode)
        assert await answered(other, sent) == AccessAccept
        assert await answered(door, sent) == AccessAccept  # A copy of it.
        again = with_state(door, state, passcode)
        assert await answered(other, again) == AccessReject


async def test_copies_of_an_empty_password_get_the_same_challenge(door):
    """(D3) Other requests get another State: a proxy may tell sessions apart by it."""
    await update(door, prompts_for_passcode=True)
    sent = request(door.secret)
    async with open_door(door.node) as other:
        states = [
            decoded(door.secret, sent, await each.send(sent))[packets.STATE]
            for each in (door, other)
        ]
    assert states[0] == states[1]
    assert [await state_of(door, "")] != states[0]


async def test_a_user_can_choose_a_pin_after_a_prompt(pinless):
    await update(pinless, prompts_for_passcode=True)
    state = await state_of(pinless, "")
    state = await state_of(pinless, pinless.node.tokencode(), state)
    for _ in range(2):
        state = await state_of(pinless, "82649173", state)
    pinless.node.clock.pass_s(30)
    sent = with_state(pinless, state, pinless.node.tokencode())
    assert await answered(pinless, sent) == AccessAccept


async def test_an_unsigned_empty_password_gets_no_prompt(door):
    """(D2) Otherwise a prompt would tell the octets of a recorded password."""
    await update(door, prompts_for_passcode=True, allow_unsigned=True)
    assert await answered(door, request(door.secret, signed=False)) == AccessReject


async def test_a_node_without_a_quorum_prompts_for_nothing(door, monkeypatch):
    """(D4) It could not judge the passcode: the client must ask the next node."""
    await update(door, prompts_for_passcode=True)
    monkeypatch.setattr(door.node.replicator, "down", NoQuorumError("none"))
    assert await door.silent(request(door.secret))


async def test_prompts_have_the_rate_of_passcodes(tmp_path):
    """(L7)."""
    async with (
        one_node(tmp_path, replace(UNLIMITED, user=1)) as node,
        open_door(node) as door,
    ):
        await door.register(prompts_for_passcode=True)
        codes = [await answered(door, request(door.secret)) for _ in range(11)]
        assert codes == [AccessChallenge] * 10 + [AccessReject]
        assert door.counted("rate_limited") == 1


@pytest.mark.parametrize("name", ["no-such-user", "x" * 200], ids=["short", "long"])
async def test_readable_and_unreadable_passwords_take_the_same_way(
    door, monkeypatch, name
):
    """(D2) Not even silence, cost or the log tells the octets of a recorded packet."""
    await update(door, allow_unsigned=True, repeats_with_new_authenticator=True)
    sent = request(door.secret, name, "4711123456", signed=False, attributes=[NAS_PORT])
    at = sent.index(b"\x02\x12", 20) + 2  # The octets of User-Password.
    changes = (0x01, 0x80)  # A digit, and no UTF-8.
    entries = door.node.replicator.entries

    async def ways(number: int, wait_s: float) -> list[tuple[int | None, int]]:
        taken = []
        for each in changes:
            changed = bytearray(sent)
            changed[1], changed[at + 3] = number, changed[at + 3] ^ each
            before, reply = len(entries), await door.send(bytes(changed), wait_s=wait_s)
            taken.append((reply[0] if reply else None, len(entries) - before))
        return taken

    readable, unreadable = await ways(1, TIMEOUT_S)
    assert readable == unreadable
    assert readable[0] == AccessReject
    monkeypatch.setattr(door.node.replicator, "down", NoQuorumError("none"))
    readable, unreadable = await ways(2, SILENCE_S)
    assert readable == unreadable


async def test_readable_and_unreadable_passwords_have_the_same_rate(tmp_path):
    """(D2, L7) The bucket of a name tells nothing about a packet's octets."""
    async with (
        one_node(tmp_path, replace(UNLIMITED, user=1)) as node,
        open_door(node) as door,
    ):
        await door.register()
        await update(door, allow_unsigned=True)
        sent = request(door.secret, "xyz", "4711123456", signed=False)
        told = []
        for number, change in enumerate([0] * 11 + [0x01, 0x80]):
            changed = bytearray(sent)
            changed[1], changed[-13] = number, changed[-13] ^ change
            reply = await door.send(bytes(changed))
            message = decoded(door.secret, bytes(changed), reply).get(
                packets.REPLY_MESSAGE
            )
            told.append(message)
        assert told[-1] == told[-2] == [dialog.TOO_FAST.encode()]


async def test_forged_unsigned_requests_have_a_rate_of_their_own(door):
    """(D2, L7) They cost a hash and an entry each, and keep signed ones out of nothing."""
    await update(door, allow_unsigned=True)
    for _ in range(rates.UNSIGNED_PER_S * int(rates.BURST_S)):
        door.node.authentication.count_unsigned(AgentCaller(identity="radius:vpn"))
    assert await door.silent(request(door.secret, password=WRONG, signed=False))
    assert door.counted("rate_limited") == 1
    sent = request(door.secret, password=WRONG)
    assert await answered(door, sent) == AccessReject


# --- Copies


async def test_copies_of_a_packet_keep_no_user_out(tmp_path):
    """(D3, L7) Anyone who has seen a sign-in can send it again."""
    async with (
        one_node(tmp_path, replace(UNLIMITED, user=1)) as node,
        open_door(node) as door,
    ):
        await node.add_user()
        await door.register()
        issued = await node.issue()
        right = request(door.secret, password=PIN + issued.codes[0].code)
        wrong = request(door.secret, password=WRONG)
        assert await answered(door, wrong) == AccessReject
        entries = len(node.replicator.entries)
        node.clock.pass_s(6)  # The node has forgotten its answer.
        for _ in range(12):
            assert await answered(door, wrong) == AccessReject
            node.clock.pass_s(0.01)
        assert len(node.replicator.entries) == entries
        for _ in range(12):
            assert await answered(door, right) == AccessAccept
        again = request(door.secret, password=PIN + issued.codes[1].code)
        assert await answered(door, again) == AccessAccept


async def test_a_session_ends_while_nothing_is_committed(door, monkeypatch):
    """(D3) The time of the state stands still on a quiet cluster."""

    async def read_barrier(*, timeout_s: float) -> BarrierPassed:
        door.node.replicator.catch_up()
        return BarrierPassed(index=1, at_ms=door.node.clock.now_ms())

    await update(door, repeats_with_new_authenticator=True)
    issued = await door.node.issue()
    passcode = PIN + issued.codes[0].code
    monkeypatch.setattr(door.node.replicator, "read_barrier", read_barrier)
    socket = await connected(door.port)
    try:
        for wait_s, expected in (
            (0, AccessAccept),
            (29, AccessAccept),
            (2, AccessReject),
        ):
            door.node.clock.pass_s(wait_s)
            sent = request(door.secret, password=passcode, attributes=[NAS_PORT])
            reply = await door.send(sent, socket=socket)
            assert decoded(door.secret, sent, reply).code == expected, wait_s
    finally:
        socket.transport.close()


async def test_a_node_that_is_behind_accepts_no_replaced_secret(door):
    """(D1) Apply knows which secrets work, and a leaked one may be in use there."""
    issued = await door.node.issue()
    door.node.primary_db.execute(
        "UPDATE radius_secrets SET ends_at_ms = ?", (door.node.clock.now_ms(),)
    )
    sent = request(door.secret, password=PIN + issued.codes[0].code)
    assert await answered(door, sent) == AccessReject
    assert door.node.reasons() == ["agent_unknown"]


@pytest.mark.parametrize("is_second_step", [False, True])
async def test_a_node_that_is_behind_tells_the_newest_attributes(door, is_second_step):
    """(D1) A gateway chooses the user's role by them."""
    await give_attributes(door, filter_id="administrators", session_timeout_s=9)
    if is_second_step:
        state = await challenge(door)
        door.node.clock.pass_s(30)
        sent = with_state(door, state, door.node.tokencode())
    else:
        issued = await door.node.issue()
        sent = request(door.secret, password=PIN + issued.codes[0].code)
    door.node.replicator.lags = True
    await give_attributes(door, filter_id="guests", session_timeout_s=0)
    for _ in range(2):  # A copy is answered alike, also by another node.
        async with open_door(door.node) as other:
            reply = await other.send(sent)
        answer = decoded(door.secret, sent, reply)
        assert answer.code == AccessAccept
        assert answer[packets.FILTER_ID] == [b"guests"]
        assert packets.SESSION_TIMEOUT not in answer


async def test_a_replayed_packet_is_at_most_one_more_request(door):
    """(D3) Also at a client that may repeat requests: charged twice in ten minutes."""
    await update(door, repeats_with_new_authenticator=True)
    sent = request(door.secret, password=WRONG, attributes=[NAS_PORT])
    socket = await connected(door.port)
    try:
        for _ in range(18):
            reply = await door.send(sent, socket=socket)
            assert decoded(door.secret, sent, reply).code == AccessReject
            door.node.clock.pass_s(REPEATED_MS / 1000 + 1)
    finally:
        socket.transport.close()
    assert failures(door) == 2


async def test_a_copy_after_a_key_rotation_is_the_same_request(door, leading):
    """(D3) The first copy was decided under the key before."""
    issued = await door.node.issue()
    sent = request(door.secret, password=PIN + issued.codes[0].code)
    assert await answered(door, sent) == AccessAccept
    await rotate(door)
    async with open_door(door.node) as other:
        other.secret = door.secret
        assert await answered(other, sent) == AccessAccept


async def test_a_copy_of_a_second_step_after_a_key_rotation_gets_its_answer(
    door, leading
):
    """(D3, K3) On another node. Another packet with that State is refused."""
    state = await challenge(door)
    door.node.clock.pass_s(30)
    sent = with_state(door, state, door.node.tokencode())
    assert await answered(door, sent) == AccessAccept
    await rotate(door)
    async with open_door(door.node) as other:
        other.secret = door.secret
        assert await answered(other, sent) == AccessAccept
        again = with_state(door, state, door.node.tokencode())
        assert await answered(other, again) == AccessReject


async def test_a_refused_second_step_is_refused_again_after_a_key_rotation(
    door, leading
):
    """(D3, K3)."""
    state = await challenge(door)
    sent = with_state(door, state, "000000")
    assert await answered(door, sent) == AccessReject
    charged = failures(door)
    await rotate(door)
    async with open_door(door.node) as other:
        other.secret = door.secret
        assert await answered(other, sent) == AccessReject
    assert failures(door) == charged


async def test_a_session_goes_on_while_the_key_before_is_in_use(door, leading):
    """(D3) pam_radius asks the next node, and another key is active meanwhile."""
    await update(door, repeats_with_new_authenticator=True)
    issued = await door.node.issue()
    passcode = PIN + issued.codes[0].code
    socket = await connected(door.port)
    try:
        for expected in (AccessAccept, AccessAccept):
            sent = request(door.secret, password=passcode, attributes=[NAS_PORT])
            reply = await door.send(sent, socket=socket)
            assert decoded(door.secret, sent, reply).code == expected
            await rotate(door)
    finally:
        socket.transport.close()


@pytest.fixture
def leading(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the node lead, which a rotation needs."""
    monkeypatch.setattr(TwoReplicas, "primary", NODE)


async def rotate(door: Door) -> None:
    """Activate another key of the ring, and let the ring follow the state."""
    progress = await door.node.rotation.rotate(
        door.node.admin("ClusterService/RotateKeys"), at_once=True, keep_old_key=False
    )
    async for each in progress:
        if each.phase is not Phase.HANDING_OUT:
            break
    await progress.aclose()
    async with door.node.state.transaction() as transaction:
        door.node.key_holder.follow(await seals.keys(transaction))


# --- Next steps


async def test_a_state_does_not_tell_the_length_of_a_pin(pinless):
    """(K2) It is as long for each PIN."""
    state = await state_of(pinless, pinless.node.tokencode())
    sizes = {len(await state_of(pinless, pin, state)) for pin in ("826491", "82649173")}
    assert len(sizes) == 1


async def test_a_pin_is_not_asked_for_after_the_challenge_has_ended(pinless):
    """(K3) The user would choose a PIN and be refused at the end."""
    door = pinless
    state = await state_of(door, door.node.tokencode())
    chosen = await state_of(door, "82649173", state)
    door.node.clock.pass_s(121)
    for each in (state, chosen):
        sent = with_state(door, each, "82649173")
        assert await answered(door, sent) == AccessReject
    assert failures(door) == 0


async def test_a_pin_is_not_asked_for_after_the_challenge_was_answered(pinless):
    door = pinless
    first = await state_of(door, door.node.tokencode())
    state = await state_of(door, "82649173", first)
    state = await state_of(door, "82649173", state)
    door.node.clock.pass_s(30)
    sent = with_state(door, state, door.node.tokencode())
    assert await answered(door, sent) == AccessAccept
    assert await answered(door, with_state(door, first, "82649173")) == AccessReject


async def test_the_audit_log_names_where_each_step_came_from(door):
    """(U1) The address of the packet, and what the NAS says of itself."""
    claims = [
        (packets.NAS_IDENTIFIER, b"gate"),
        (packets.CALLING_STATION_ID, b"198.51.100.9"),
    ]
    sent = request(door.secret, password=WRONG, attributes=claims)
    assert await answered(door, sent) == AccessReject
    state = await challenge(door)
    sent = request(
        door.secret, password="123456", attributes=[(packets.STATE, state), *claims]
    )
    assert await answered(door, sent) == AccessReject
    rows = door.node.primary_db.execute(
        "SELECT action, detail FROM audit_events WHERE detail LIKE '%NAS gate%'"
    ).fetchall()
    assert [action for action, _ in rows] == ["Authenticate", "ContinueAuthentication"]
    for _, detail in rows:
        assert "client 198.51.100.9, resource RADIUS from 127.0.0.1, NAS gate" in detail


async def test_the_command_that_tests_a_client_reads_the_answers(door):
    """`sparecode agents test` sends what the door answers, and tells codes apart."""
    passcode = PIN + door.node.tokencode()

    async def ask(passcode: str) -> radius.RadiusReply | None:
        return await asyncio.to_thread(
            radius.ask,
            "127.0.0.1",
            door.port,
            secret=door.secret.encode(),
            username="alice",
            passcode=passcode,
        )

    for expected in (RadiusCode.ACCEPT, RadiusCode.REJECT):
        reply = await ask(passcode)
        assert reply is not None
        assert reply.code is expected
    door.node.clock.pass_s(30)
    await door.node.tokens.clear_pin(
        door.node.admin("TokenService/ClearPin"), serial=SERIAL
    )
    reply = await ask(door.node.tokencode())
    assert reply is not None
    assert reply.code is RadiusCode.CHALLENGE
    assert reply.message == prompts.ENTER_NEW_PIN
