# SPDX-License-Identifier: Apache-2.0
"""The RADIUS door: what gets which answer, and what gets none (D1-D4)."""

import asyncio
import struct
from dataclasses import replace

import pytest
from pyrad.packet import (
    AccessAccept,
    AccessChallenge,
    AccessReject,
    AccountingRequest,
    StatusServer,
)

from sparecode_node.domain.agents import Protects
from sparecode_node.domain.ids import AgentIdentity
from sparecode_node.radius import dialog, packets
from sparecode_node.replication.errors import (
    NoQuorumError,
    OutcomeUnknownError,
    OverloadedError,
)
from sparecode_node.services.authentication import prompts
from sparecode_node.services.context import AgentCaller
from sparecode_node.services.errors import Refused
from sparecode_node.statemachine.results import Decision
from tests.radius.door import (
    answered,
    connected,
    decoded,
    give_attributes,
    open_door,
    request,
    update,
)
from tests.services.one_node import PIN, SERIAL

pytestmark = pytest.mark.asyncio

AUTHENTICATOR = bytes(range(16))


async def test_a_right_passcode_is_accepted_and_a_wrong_one_rejected(door):
    """(D1, A6)."""
    issued = await door.node.issue()
    right = request(door.secret, password=PIN + issued.codes[0].code)
    assert await answered(door, right) == AccessAccept
    again = request(door.secret, password=PIN + issued.codes[0].code)
    assert await answered(door, again) == AccessReject
    assert await answered(door, request(door.secret, password="wrong")) == AccessReject
    unknown = request(door.secret, "mallory", PIN + issued.codes[1].code)
    assert await answered(door, unknown) == AccessReject
    assert door.counted("accepted") == 1
    assert door.counted("rejected") == 3


async def test_the_audit_log_names_door_nas_and_calling_station(door):
    sent = request(
        door.secret,
        password="wrong",
        attributes=[
            (packets.NAS_IDENTIFIER, b"gate"),
            (packets.NAS_IP_ADDRESS, bytes([192, 0, 2, 7])),
            (packets.CALLING_STATION_ID, b"198.51.100.9"),
        ],
    )
    assert await answered(door, sent) == AccessReject
    actor, detail = door.node.primary_db.execute(
        "SELECT actor, detail FROM audit_events WHERE action = 'Authenticate'"
    ).fetchone()
    assert actor == "agent:radius:vpn"
    assert "client 198.51.100.9" in detail
    assert "RADIUS from 127.0.0.1, NAS gate 192.0.2.7" in detail


async def test_a_retransmission_is_the_same_request(door):
    """(D3, Q2) The code is spent once; the second packet gets the first one's answer."""
    issued = await door.node.issue()
    sent = request(door.secret, password=PIN + issued.codes[0].code)
    assert await answered(door, sent) == AccessAccept
    assert await answered(door, sent) == AccessAccept
    proxied = sent[:2] + struct.pack("!H", len(sent)) + sent[4:]
    assert await answered(door, proxied) == AccessAccept
    # An Access-Accept is decided again each time, so a disabled user is out at once.
    await door.node.users.update(
        door.node.admin("UserService/UpdateUser"), username="alice", enabled=False
    )
    assert await answered(door, sent) == AccessReject


async def test_another_node_gives_a_retransmission_the_same_answer(door):
    """(D3, Q1) The id of the request follows from the packet alone."""
    issued = await door.node.issue()
    sent = request(door.secret, password=PIN + issued.codes[0].code)
    async with open_door(door.node) as other:
        other.secret = door.secret
        assert await answered(door, sent) == AccessAccept
        assert await answered(other, sent) == AccessAccept
        fresh = request(door.secret, password=PIN + issued.codes[0].code)
        assert await answered(other, fresh) == AccessReject


async def test_a_client_may_repeat_a_request_under_a_new_identifier(door):
    """
    (D3) pam_radius does so for its next server: for 30 s it is the same request.

    Only if the settings say so, a session can be told, and nothing else differs.
    """
    issued = await door.node.issue()
    passcode = PIN + issued.codes[0].code
    port = [(packets.NAS_PORT, bytes(4))]
    socket = await connected(door.port)

    async def answer(identifier: int, attributes=port, password=passcode) -> int:
        sent = request(
            door.secret,
            password=password,
            identifier=identifier,
            attributes=attributes,
        )
        return decoded(door.secret, sent, await door.send(sent, socket=socket)).code

    try:
        await update(door, repeats_with_new_authenticator=True)
        assert await answer(1) == AccessAccept
        assert await answer(2) == AccessAccept
        assert len(door.node.reasons()) == 1  # The repeated answer is audited as one.
        assert await answer(3, attributes=[]) == AccessReject
        assert await answer(4, attributes=[(packets.NAS_PORT, b"1234")]) == AccessReject
        door.node.clock.pass_s(29)
        assert await answer(5) == AccessAccept
        door.node.clock.pass_s(2)
        assert await answer(6) == AccessReject
        door.node.clock.pass_s(31)
        assert await answer(7) == AccessReject
        await update(door, repeats_with_new_authenticator=False)
        other = PIN + issued.codes[1].code
        assert await answer(8, password=other) == AccessAccept
        assert await answer(9, password=other) == AccessReject
    finally:
        socket.transport.close()


async def test_a_duplicate_in_progress_is_dropped(door):
    issued = await door.node.issue()
    sent = request(door.secret, password=PIN + issued.codes[0].code)
    socket = await connected(door.port)
    try:
        first = await door.send(sent, sent, sent, socket=socket)
        assert first is not None
        assert await socket.reply(0.2) is None
    finally:
        socket.transport.close()
    assert door.counted("duplicate") == 2
    assert door.counted("accepted") == 1


@pytest.mark.parametrize(
    "error",
    [NoQuorumError("none"), OutcomeUnknownError("lost"), OverloadedError("full")],
)
async def test_a_node_that_cannot_decide_is_silent(door, error):
    """(D4, A7) Never a rejection: the client then asks its next server."""
    issued = await door.node.issue()
    sent = request(door.secret, password=PIN + issued.codes[0].code)
    door.node.replicator.down = error
    assert await door.silent(sent)
    await asyncio.gather(*door.listener.exchange._tasks)
    door.node.replicator.down = None
    assert await answered(door, sent) == AccessAccept


async def test_status_server_answers_only_while_the_node_is_ready(door):
    """(D4)."""
    sent = request(door.secret, code=StatusServer)
    assert await answered(door, sent) == AccessAccept
    door.ready[0] = False
    assert await door.silent(sent)
    door.ready[0] = True
    unsigned = request(door.secret, code=StatusServer, signed=False)
    assert await door.silent(unsigned)


async def test_a_node_that_stops_is_silent(door):
    door.listener.leave()
    assert await door.silent(request(door.secret, code=StatusServer))
    assert door.counted("unavailable") == 1


async def test_unsigned_and_wrongly_signed_requests_get_no_answer(door):
    """(D2)."""
    issued = await door.node.issue()
    passcode = PIN + issued.codes[0].code
    assert await door.silent(request(door.secret, password=passcode, signed=False))
    assert door.counted("no_message_authenticator") == 1
    assert await door.silent(request("another", password=passcode))
    assert door.counted("wrong_secret") == 1
    # They reach neither the duplicates nor the state: the code is still live.
    assert await answered(door, request(door.secret, password=passcode)) == AccessAccept


async def test_a_packet_changed_on_its_way_gets_no_answer(door):
    sent = bytearray(request(door.secret, password="wrong"))
    for at in (1, 8, 30, 45, len(sent) - 1):
        changed = bytearray(sent)
        changed[at] ^= 1
        assert await door.silent(bytes(changed)), at
    assert door.counted("wrong_secret") + door.counted("malformed") == 5


async def test_an_unknown_source_gets_no_answer(door):
    await door.node.agents.remove(
        door.node.admin("AgentService/RemoveAgent"), name="vpn"
    )
    await door.listener.refresh()
    assert await door.silent(request(door.secret, password="wrong"))
    assert door.counted("unknown_client", "") == 1
    assert door.counted("rejected") == 0


async def test_only_what_the_settings_permit_may_be_unsigned(door):
    issued = await door.node.issue()
    await update(door, allow_unsigned=True)
    proxied = [(packets.PROXY_STATE, b"1")]
    assert await door.silent(
        request(door.secret, password="wrong", signed=False, attributes=proxied)
    )
    assert door.counted("proxy_state") == 1
    eap = [(packets.EAP_MESSAGE, b"1")]
    assert await door.silent(
        request(door.secret, password="wrong", signed=False, attributes=eap)
    )
    passcode = PIN + issued.codes[0].code
    wrong = request("another", password=passcode, signed=False)
    assert await answered(door, wrong) == AccessReject
    assert door.counted("unreadable") == 1
    right = request(door.secret, password=passcode, signed=False)
    assert await answered(door, right) == AccessAccept
    await update(door, allow_unsigned_proxied=True)
    right = request(
        door.secret,
        password=PIN + issued.codes[1].code,
        signed=False,
        attributes=proxied,
    )
    assert await answered(door, right) == AccessAccept


async def test_replies_carry_every_proxy_state_in_order(door):
    states = [(packets.PROXY_STATE, b"one"), (packets.PROXY_STATE, b"two")]
    sent = request(door.secret, password="wrong", attributes=states)
    reply = await door.send(sent)
    assert decoded(door.secret, sent, reply)[packets.PROXY_STATE] == [b"one", b"two"]


async def test_an_acceptance_has_the_attributes_of_the_client(door):
    issued = await door.node.issue()
    await give_attributes(
        door, filter_id="staff", class_attribute="vpn-users", session_timeout_s=3600
    )
    sent = request(door.secret, password=PIN + issued.codes[0].code)
    answer = decoded(door.secret, sent, await door.send(sent))
    assert answer[packets.FILTER_ID] == [b"staff"]
    assert answer[packets.CLASS] == [b"vpn-users"]
    assert answer[packets.SESSION_TIMEOUT] == [struct.pack("!I", 3600)]
    sent = request(door.secret, password="wrong")
    answer = decoded(door.secret, sent, await door.send(sent))
    assert set(answer) == {packets.MESSAGE_AUTHENTICATOR}


async def test_a_rotated_secret_overlaps_the_new_one(door):
    """(D1)."""
    old = door.secret
    new = await door.node.radius_clients.rotate_secret(
        door.node.admin("AgentService/RotateRadiusSecret"),
        name="VPN",
        overlap_ms=60_000,
    )
    assert new.secret != old
    await door.listener.refresh()
    assert await answered(door, request(old, password="wrong")) == AccessReject
    door.secret = new.secret
    assert await answered(door, request(new.secret, password="wrong")) == AccessReject
    door.node.clock.pass_s(61)
    await door.listener.refresh()
    assert await door.silent(request(old, password="wrong"))
    assert door.counted("wrong_secret") == 1
    assert await answered(door, request(new.secret, password="wrong")) == AccessReject


async def test_a_cloud_client_refuses_emergency_codes(door):
    """(D1, A4)."""
    issued = await door.node.issue()
    await door.node.agents.update(
        door.node.admin("AgentService/UpdateAgent"), name="vpn", protects=Protects.CLOUD
    )
    sent = request(door.secret, password=PIN + issued.codes[0].code)
    assert await answered(door, sent) == AccessReject
    assert door.node.reasons() == ["resource_not_covered"]


async def test_a_disabled_client_and_an_allow_list_are_decided_at_the_commit(door):
    issued = await door.node.issue()
    agents, admin = door.node.agents, door.node.admin
    await agents.update(
        admin("AgentService/UpdateAgent"), name="vpn", enabled=False, restricted=True
    )
    sent = request(door.secret, password=PIN + issued.codes[0].code)
    assert await answered(door, sent) == AccessReject
    await agents.update(admin("AgentService/UpdateAgent"), name="vpn", enabled=True)
    sent = request(door.secret, password=PIN + issued.codes[0].code)
    assert await answered(door, sent) == AccessReject
    await agents.update(
        admin("AgentService/UpdateAgent"), name="vpn", add_usernames=["alice"]
    )
    sent = request(door.secret, password=PIN + issued.codes[0].code)
    assert await answered(door, sent) == AccessAccept


async def test_a_certificate_cannot_stand_for_a_radius_client(door):
    """(D1)."""
    issued = await door.node.issue()
    certificate = replace(AgentCaller(identity="x").certificate, fingerprint="ab")
    context = replace(
        door.node.agent(),
        caller=AgentCaller(
            identity=AgentIdentity("radius:vpn"), certificate=certificate
        ),
    )
    answer = await door.node.authentication.authenticate(
        context,
        username="alice",
        passcode=PIN + issued.codes[0].code,
        client_address="",
        resource="",
    )
    assert answer.decision is Decision.REFUSED
    assert door.node.reasons() == ["agent_unknown"]


async def test_requests_without_pap_are_rejected_with_a_hint(door):
    chap = [(packets.CHAP_PASSWORD, bytes(17))]
    sent = request(door.secret, password=None, attributes=chap)
    answer = decoded(door.secret, sent, await door.send(sent))
    assert answer.code == AccessReject
    assert answer[packets.REPLY_MESSAGE] == [dialog.ONLY_PAP.encode()]


@pytest.mark.parametrize(
    "password", [b"\xff\xfe" + PIN.encode(), "é" * 64, "x" * 128, b"", "\0", " "]
)
async def test_passwords_of_any_form_are_rejected(door, password):
    assert await answered(door, request(door.secret, password=password)) == AccessReject


async def test_octets_that_are_not_utf_8_do_not_vanish_from_a_password(door):
    """The codec drops them, so that `12` and an octet and `34` would be read as `1234`."""
    issued = await door.node.issue()
    broken = (PIN + issued.codes[0].code).encode()[:-1] + b"\xff"
    last = issued.codes[0].code[-1].encode()
    assert await answered(door, request(door.secret, password=broken + last)) == (
        AccessReject
    )
    assert door.node.reasons() == []


async def test_a_password_of_more_than_128_octets_is_rejected(door):
    sent = request(
        door.secret, password=None, attributes=[(packets.USER_PASSWORD, bytes(144))]
    )
    assert await answered(door, sent) == AccessReject


async def test_other_codes_get_no_answer(door):
    assert await door.silent(request(door.secret, code=AccountingRequest))
    assert door.counted("other_code") == 1


async def test_requests_with_a_state_go_first_under_load(door, monkeypatch):
    """RFC 5080, section 2.2.3."""
    monkeypatch.setattr("sparecode_node.radius.exchange.IN_PROGRESS_MAX", 4)
    others = {asyncio.create_task(asyncio.sleep(60)) for _ in range(3)}
    door.listener.exchange._tasks |= others
    state = [(packets.STATE, b"anything")]
    try:
        assert await door.silent(request(door.secret, password="wrong"))
        assert door.counted("overloaded") == 1
        sent = request(door.secret, password="wrong", attributes=state)
        assert await answered(door, sent) == AccessReject
    finally:
        door.listener.exchange._tasks -= others
        for each in others:
            each.cancel()


async def test_two_clients_cannot_have_the_same_network(door):
    with pytest.raises(Refused, match="agent vpn already has the network"):
        await door.register("other")


async def test_the_most_specific_network_wins(door):
    await door.register("all", networks=["127.0.0.0/8", "::/0"])
    assert await door.silent(request(door.secret, password="wrong"))
    assert door.counted("wrong_secret", "vpn") == 1


async def test_a_next_tokencode_is_a_challenge(door):
    for _ in range(3):
        sent = request(door.secret, password="1" * 10)
        assert await answered(door, sent) == AccessReject
        door.node.clock.pass_s(10)
    sent = request(door.secret, password=PIN + door.node.tokencode())
    challenge = decoded(door.secret, sent, await door.send(sent))
    assert challenge.code == AccessChallenge
    (state,) = challenge[packets.STATE]
    door.node.clock.pass_s(30)
    sent = request(
        door.secret,
        password=door.node.tokencode(),
        attributes=[(packets.STATE, state)],
    )
    assert await answered(door, sent) == AccessAccept
    # It is answered once (K3).
    again = request(
        door.secret, password=door.node.tokencode(), attributes=[(packets.STATE, state)]
    )
    assert await answered(door, again) == AccessReject


async def test_a_new_pin_takes_three_answers(door):
    await door.node.tokens.clear_pin(
        door.node.admin("TokenService/ClearPin"), serial=SERIAL
    )

    async def send(password: str, state: bytes = b"") -> tuple[int, str, bytes]:
        attributes = [(packets.STATE, state)] if state else []
        sent = request(door.secret, password=password, attributes=attributes)
        reply = decoded(door.secret, sent, await door.send(sent))
        text = b"".join(reply.get(packets.REPLY_MESSAGE, [])).decode()
        return reply.code, text, b"".join(reply.get(packets.STATE, []))

    code, text, state = await send(door.node.tokencode())
    assert (code, text) == (AccessChallenge, prompts.ENTER_NEW_PIN)
    code, text, state = await send("1", state)
    assert code == AccessChallenge
    assert text == f"A PIN is 4 to 8 digits. {prompts.ENTER_NEW_PIN}"
    code, text, state = await send("82649173", state)
    assert (code, text) == (AccessChallenge, prompts.REPEAT_PIN)
    code, text, _ = await send("82649174", state)
    assert (code, text) == (AccessChallenge, prompts.PINS_DIFFER)
    code, text, state = await send("82649173", state)
    assert (code, text) == (AccessChallenge, prompts.PIN_THEN_NEXT)
    assert len(state) <= 253
    assert b"82649173" not in state
    code, text, state = await send("none", state)
    assert (code, text) == (AccessChallenge, prompts.PIN_THEN_NEXT)
    door.node.clock.pass_s(30)
    code, _, _ = await send(door.node.tokencode(), state)
    assert code == AccessAccept
    door.node.clock.pass_s(30)
    code, _, _ = await send("82649173" + door.node.tokencode())
    assert code == AccessAccept
