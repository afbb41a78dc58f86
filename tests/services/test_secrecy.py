# SPDX-License-Identifier: Apache-2.0
"""No secret is logged, shown by `repr`, or in clear in the log of commands."""

import logging
import uuid
from collections.abc import Iterator

import pytest

from sparecode_node.domain.ids import KeyId, UserId
from sparecode_node.domain.passcodes import Reading
from sparecode_node.replication.errors import KeyMissingError
from sparecode_node.replication.replicator import Proposal
from sparecode_node.services.ambient import SystemEntropy
from sparecode_node.services.context import SessionCaller
from sparecode_node.services.errors import InvalidFieldError, Refused
from sparecode_node.services.secrets.keyring import KeyRing
from sparecode_node.services.secrets.sealing import Sealing
from sparecode_node.services.state.stamping import PrimaryStamper
from sparecode_node.statemachine.commands import Call
from sparecode_node.statemachine.commands.authentication import Authenticate
from tests.services.one_node import SERIAL, VPN, OneNode, call_of
from tests.services.two_replicas import NOW_MS

pytestmark = pytest.mark.asyncio

PIN = "90817263"
SEED = b"canary-seed-canary!!"
PASSWORD = "canary password, long"


@pytest.fixture(autouse=True)
def everything_logged(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    with caplog.at_level(logging.DEBUG):
        yield


async def test_secrets_stay_out_of_the_log_and_of_the_commands(
    node: OneNode, caplog: pytest.LogCaptureFixture
) -> None:
    """(T3) PIN, codes, seed, tokencode, passwords, bearer: as text or as bytes."""
    await node.add_user(pin=PIN, seed=SEED, digits=8)
    issued = await node.issue()
    generated = await node.emergency.generate(
        node.admin("EmergencyAccessService/GenerateTokencodes"), serial=SERIAL
    )
    code = issued.codes[0].code
    tokencode = node.tokencode(seed=SEED, digits=8)
    shown = [repr(issued), repr(generated), repr(node.ring)]
    assert await node.accepts(PIN + code)
    assert not await node.accepts("77665544" + issued.codes[1].code)
    assert not await node.accepts(PIN + tokencode, username="5544332211")
    assert await node.accepts(PIN + tokencode)
    with pytest.raises(Refused) as refused:
        await node.login(password=PASSWORD)
    with pytest.raises(InvalidFieldError) as invalid:
        await node.tokens.set_pin(
            node.admin("TokenService/SetPin"), serial=SERIAL, pin=PIN + "5"
        )
    shown += [str(refused.value), str(invalid.value)]
    shown.append(repr(SessionCaller(bearer=node.bearer)))
    secrets = [PIN, tokencode, "77665544", "5544332211", PASSWORD, node.bearer]
    secrets += [SEED.decode(), SEED.hex()]
    for each in (*issued.codes, *generated.codes):
        secrets += [each.code, each.code.replace("-", "")]
    database = "\n".join(node.primary_db.iterdump())
    text = "\n".join([caplog.text, *shown, database])
    for secret in secrets:
        assert secret not in text
        for entry in node.replicator.entries:
            assert secret.encode() not in entry


async def test_values_with_secrets_do_not_show_them(node: OneNode) -> None:
    signed_in = await node.sessions.login(
        node.admin("SessionService/Login"),
        administrator="root",
        password="correct horse battery",
    )
    assert signed_in.bearer not in repr(signed_in)
    proposal = Proposal(call=call_of(node, attempt(node)), tokencodes=("123456",))
    assert "123456" not in repr(proposal)


def attempt(node: OneNode, *lengths: int) -> Authenticate:
    """Return an attempt of the first user with readings of these lengths."""
    row = node.primary_db.execute("SELECT user_id FROM users").fetchone()
    return Authenticate(
        authentication_id=str(uuid.uuid4()),
        agent=VPN,
        name_tag=b"",
        user_id=UserId(row[0] if row else ""),
        auth_version=1,
        policy_version=1,
        key_id=KeyId(1),
        lettered=False,
        readings=tuple(
            Reading(
                length=length,
                emergency=False,
                bare=True,
                pins=(),
                codes=(),
                tokencodes=(),
            )
            for length in lengths
        ),
        client_address="",
        resource="",
    )


async def test_stamper_fills_in_matches(node: OneNode) -> None:
    """(T1) One time for the batch; a match only for a reading of the right length."""
    await node.add_user()
    digits = node.tokencode(step=1)
    proposals = [
        Proposal(
            call=call_of(node, attempt(node, 6, 8)), tokencodes=(digits, "11" + digits)
        ),
        Proposal(call=call_of(node, attempt(node, 6)), tokencodes=("000000",)),
        Proposal(call=call_of(node, attempt(node, 6)), tokencodes=()),
    ]
    stamped = node.replicator._stamper.stamp(proposals)
    matches = [
        [
            [match.moment for match in reading.tokencodes]
            for reading in call.command.readings
        ]
        for call in stamped
    ]
    assert {call.at_ms for call in stamped} == {NOW_MS}
    assert matches == [[[NOW_MS // 30_000 + 1], []], [[]], [[]]]


@pytest.mark.parametrize(
    "tokencodes", [("",), ("x" * 6,), ("\u0661" * 6,), ("1" * 6,) * 50]
)
async def test_stamper_never_raises_for_bad_input(
    node: OneNode, tokencodes: tuple[str, ...]
) -> None:
    """(T1) The batch holds other callers' proposals."""
    await node.add_user()
    proposal = Proposal(call=call_of(node, attempt(node, 6)), tokencodes=tokencodes)
    (call,) = node.replicator._stamper.stamp([proposal])
    assert call.at_ms == NOW_MS
    assert call.command.readings[0].tokencodes == ()


async def test_seed_that_does_not_open_matches_nothing(
    node: OneNode, caplog: pytest.LogCaptureFixture
) -> None:
    """A moved or damaged seed: the attempt is refused, and the operator is told."""
    await node.add_user()
    digits = node.tokencode()
    ring = KeyRing.draw(SystemEntropy())
    stamper = PrimaryStamper(seeds=node.seeds, sealing=Sealing(ring), clock=node.clock)
    proposal = Proposal(call=call_of(node, attempt(node, 6)), tokencodes=(digits,))
    (call,) = stamper.stamp([proposal])
    assert isinstance(call, Call)
    assert isinstance(call.command, Authenticate)
    assert call.command.readings[0].tokencodes == ()
    assert "does not open" in caplog.text
    assert "could not be matched" not in caplog.text
    assert digits not in caplog.text


async def test_primary_that_lacks_a_key_judges_no_tokencode(
    node: OneNode, caplog: pytest.LogCaptureFixture
) -> None:
    """(T3, L1) No one is charged; the batch proceeds; a later attempt works."""
    await node.add_user(pin=PIN)
    digits = node.tokencode()
    keys = node.ring._keys
    node.ring._keys, node.ring._subkeys = {KeyId(2): keys[KeyId(1)]}, {}
    proposals = [
        Proposal(call=call_of(node, attempt(node, 6)), tokencodes=(digits,)),
        Proposal(call=call_of(node, attempt(node, 6))),
    ]
    missing, other = node.replicator._stamper.stamp(proposals)
    assert isinstance(missing, KeyMissingError)
    assert isinstance(other, Call)
    assert "no key 1" in caplog.text
    entries = len(node.replicator.entries)
    with pytest.raises(KeyMissingError):
        node.replicator.commit(proposals[:1])
    assert len(node.replicator.entries) == entries
    node.ring._keys, node.ring._subkeys = keys, {}
    assert await node.accepts(PIN + digits)
    assert digits not in caplog.text


async def test_stamper_outlives_a_state_that_cannot_be_read(
    node: OneNode, caplog: pytest.LogCaptureFixture
) -> None:
    await node.add_user()
    digits = node.tokencode()
    proposal = Proposal(call=call_of(node, attempt(node, 6)), tokencodes=(digits,))
    node.seeds.close()
    (call,) = node.replicator._stamper.stamp([proposal])
    assert call.at_ms == NOW_MS
    assert "could not be matched" in caplog.text
    assert digits not in caplog.text
