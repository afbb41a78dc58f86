# SPDX-License-Identifier: Apache-2.0
"""An agent continues after a passcode that was right so far (K1-K3, T)."""

import uuid

import pytest

from sparecode_node.domain.ids import AgentIdentity
from sparecode_node.domain.outcomes import Reason
from sparecode_node.replication.errors import KeyMissingError
from sparecode_node.replication.replicator import Proposal
from sparecode_node.services.authentication.decisions import AgentAnswer
from sparecode_node.services.errors import InvalidFieldError, NotPermittedError, Refused
from sparecode_node.services.state.stamping import PrimaryStamper
from sparecode_node.statemachine.commands.tokens import ClearPin
from sparecode_node.statemachine.results import Decision
from tests.services.one_node import PIN, SERIAL, VPN, OneNode, call_of, seed_of

pytestmark = pytest.mark.asyncio

SSH = AgentIdentity("spiffe://example/ssh")
NEW_PIN = "2814"


async def without_pin(node: OneNode, *, digits: int = 6) -> AgentAnswer:
    """Clear the PIN, and return the answer to the tokencode alone."""
    await node.add_user(digits=digits)
    await node.tokens.clear_pin(node.admin("TokenService/ClearPin"), serial=SERIAL)
    return await node.authenticate(node.tokencode(digits=digits))


async def after_three_wrong(node: OneNode) -> AgentAnswer:
    """Return the answer to a right passcode after three wrong ones."""
    await node.add_user()
    for _ in range(3):
        assert not await node.accepts("1" * 10)
        node.clock.pass_s(10)
    return await node.authenticate(PIN + node.tokencode())


async def test_a_user_without_a_pin_chooses_one(node: OneNode) -> None:
    """(K2) It is the PIN from then on; the first tokencode is spent (K3)."""
    response = await without_pin(node)
    assert response.decision is Decision.NEW_PIN_REQUIRED
    answer = await node.answer_challenge(
        response.challenge, node.tokencode(step=1), new_pin=NEW_PIN
    )
    assert answer.decision is Decision.ACCEPTED
    assert answer.challenge == b""
    assert answer.authentication_id != response.authentication_id
    node.clock.pass_s(60)
    assert not await node.accepts(PIN + node.tokencode())
    node.clock.pass_s(60)
    assert await node.accepts(NEW_PIN + node.tokencode())


async def test_codes_of_a_cleared_pin_open_nothing(node: OneNode) -> None:
    """(A2) An emergency code never leads to a new PIN, and is not spent."""
    await node.add_user()
    code = (await node.issue()).codes[0].code
    await node.tokens.clear_pin(node.admin("TokenService/ClearPin"), serial=SERIAL)
    answer = await node.authenticate(code)
    assert (answer.decision, answer.challenge) == (Decision.REFUSED, b"")
    assert node.reasons() == [Reason.PIN_NOT_SET]


async def test_after_three_wrong_ones_the_next_tokencode_is_needed(
    node: OneNode,
) -> None:
    """(K1) After that, one tokencode is enough again (L6)."""
    response = await after_three_wrong(node)
    assert response.decision is Decision.NEXT_TOKENCODE_REQUIRED
    answer = await node.answer_challenge(response.challenge, node.tokencode(step=1))
    assert answer.decision is Decision.ACCEPTED
    node.clock.pass_s(60)
    assert await node.accepts(PIN + node.tokencode())


async def test_a_clock_that_is_far_off_is_learned_by_two_tokencodes(
    node: OneNode,
) -> None:
    """(K1) Refused and charged three times; then two tokencodes in a row prove it."""
    await node.add_user()
    for _ in range(3):
        assert not await node.accepts(PIN + node.tokencode(step=40))
        node.clock.pass_s(30)
    response = await node.authenticate(PIN + node.tokencode(step=40))
    assert response.decision is Decision.NEXT_TOKENCODE_REQUIRED
    wrong = await node.answer_challenge(response.challenge, node.tokencode(step=80))
    assert wrong.decision is Decision.REFUSED
    node.clock.pass_s(30)
    response = await node.authenticate(PIN + node.tokencode(step=40))
    node.clock.pass_s(30)
    answer = await node.answer_challenge(response.challenge, node.tokencode(step=40))
    assert answer.decision is Decision.ACCEPTED
    node.clock.pass_s(30)
    assert await node.accepts(PIN + node.tokencode(step=40))


async def test_a_wait_that_ends_between_search_and_decision_costs_nothing(
    node: OneNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """(K1, L5, T5) The search begins while the factor waits, and finds far tokencodes."""
    await node.add_user()
    for wait_s in (10, 10, 4):
        assert not await node.accepts("1" * 10)
        node.clock.pass_s(wait_s)
    match = PrimaryStamper.match

    def slow(stamper: PrimaryStamper, proposal: Proposal) -> Proposal | KeyMissingError:
        matched = match(stamper, proposal)
        node.clock.pass_s(2)
        return matched

    monkeypatch.setattr(PrimaryStamper, "match", slow)
    response = await node.authenticate(PIN + node.tokencode(step=40))
    assert response.decision is Decision.NEXT_TOKENCODE_REQUIRED
    user = await node.users.get(node.admin("UserService/GetUser"), "alice")
    assert user.value.token_failures == 3


async def test_beyond_the_wide_window_no_tokencode_is_accepted(node: OneNode) -> None:
    """(K1) Policy sets the width of the window."""
    answer = await after_three_wrong(node)
    assert answer.challenge
    node.clock.pass_s(3600)
    assert not await node.accepts(PIN + node.tokencode(step=61))
    assert node.reasons()[-1] == Reason.WRONG_PASSCODE


@pytest.mark.parametrize("late", [True, False])
async def test_a_challenge_lives_two_minutes(node: OneNode, late: bool) -> None:
    """(K3) After that it is neither judged nor charged."""
    response = await without_pin(node)
    node.clock.pass_s(120 if late else 119)
    answer = await node.answer_challenge(
        response.challenge, node.tokencode(), new_pin=NEW_PIN
    )
    assert answer.decision is (Decision.REFUSED if late else Decision.ACCEPTED)
    assert node.reasons()[-1] == (Reason.CHALLENGE_NOT_VALID if late else "")
    user = await node.users.get(node.admin("UserService/GetUser"), "alice")
    assert user.value.token_failures == 0


async def test_only_the_agent_that_got_the_challenge_may_answer(node: OneNode) -> None:
    """(K3)."""
    await node.register_agent(SSH)
    answer = await without_pin(node)
    tokencode = node.tokencode(step=1)
    other = await node.answer_challenge(
        answer.challenge, tokencode, new_pin=NEW_PIN, identity=SSH
    )
    assert other.decision is Decision.REFUSED
    own = await node.answer_challenge(
        answer.challenge, tokencode, new_pin=NEW_PIN, identity=VPN
    )
    assert own.decision is Decision.ACCEPTED


async def test_a_challenge_is_answered_once_and_a_retry_gets_the_same_answer(
    node: OneNode,
) -> None:
    """(K3, Q1) With the same request id. With another, the tokencode is not judged."""
    response = await after_three_wrong(node)
    request_id = str(uuid.uuid4())
    tokencode = node.tokencode(step=1)
    for _ in range(3):
        answer = await node.answer_challenge(
            response.challenge, tokencode, request_id=request_id
        )
        assert answer.decision is Decision.ACCEPTED
    for step in (1, 2):
        again = await node.answer_challenge(
            response.challenge, node.tokencode(step=step)
        )
        assert again.decision is Decision.REFUSED
    with pytest.raises(Refused) as raised:
        await node.answer_challenge(
            response.challenge, node.tokencode(step=2), request_id=request_id
        )
    assert raised.value.rejected.reason is Reason.REQUEST_ID_REUSED


async def test_a_retry_of_the_first_step_gets_the_same_challenge(
    node: OneNode,
) -> None:
    """(Q1, K3) To the byte, on any node: the agent may have lost the answer."""
    await node.add_user(pin="")
    await node.enroll("2")
    await node.tokens.assign(
        node.admin("TokenService/AssignToken"), serial="2", username="alice"
    )
    request_id = str(uuid.uuid4())
    await node.tokens.unassign(node.admin("TokenService/UnassignToken"), serial=SERIAL)
    passcode = node.tokencode(seed=seed_of("2"))
    first = await node.authenticate(passcode, request_id=request_id)
    assert first.decision is Decision.NEW_PIN_REQUIRED
    assert await node.authenticate(passcode, request_id=request_id) == first


async def test_another_users_challenge_is_of_no_use(node: OneNode) -> None:
    """(K3) The challenge names its user; no other user's tokencode or PIN fits."""
    response = await without_pin(node)
    seed = b"a seed of user bob 1"
    await node.add_user("bob", serial="2", pin="", seed=seed)
    answer = await node.answer_challenge(
        response.challenge, node.tokencode(step=1, seed=seed), new_pin=NEW_PIN
    )
    assert answer.decision is Decision.REFUSED
    assert node.reasons()[-1] == Reason.WRONG_PASSCODE
    failures = [
        (await node.users.get(node.admin("UserService/GetUser"), name)).value
        for name in ("alice", "bob")
    ]
    assert [user.token_failures for user in failures] == [1, 0]


async def test_a_change_in_between_ends_the_challenge(node: OneNode) -> None:
    """(K3, T2) A change on another node, unknown here: computed again, and refused."""
    response = await without_pin(node)
    await node.tokens.set_pin(
        node.admin("TokenService/SetPin"), serial=SERIAL, pin="5938"
    )
    node.replicator.lags = True
    node.replicator.before_apply = call_of(node, ClearPin(serial=SERIAL))
    answer = await node.answer_challenge(
        response.challenge, node.tokencode(step=1), new_pin=NEW_PIN
    )
    assert answer.decision is Decision.REFUSED
    assert node.reasons()[-1] == Reason.CHALLENGE_NOT_VALID


async def test_a_node_that_is_behind_computes_again(node: OneNode) -> None:
    """(T2) The new PIN is hashed for the user as the primary knows them."""
    node.replicator.lags = True
    response = await without_pin(node)
    answer = await node.answer_challenge(
        response.challenge, node.tokencode(step=1), new_pin=NEW_PIN
    )
    assert answer.decision is Decision.ACCEPTED
    node.clock.pass_s(60)
    assert await node.accepts(NEW_PIN + node.tokencode())


@pytest.mark.parametrize("sealed", [b"x", b"\x01" + bytes(60), bytes(4096)])
async def test_an_invalid_challenge_is_refused_without_a_reason(
    node: OneNode, sealed: bytes
) -> None:
    """(A6, U1) Forged, or of another cluster. The audit log has the reason."""
    answer = await node.answer_challenge(sealed, "123456")
    assert (answer.decision, answer.challenge) == (Decision.REFUSED, b"")
    assert node.reasons() == [Reason.CHALLENGE_NOT_VALID]


async def test_every_next_step_costs_the_same(node: OneNode) -> None:
    """(A6, T4) Two hashes and one commit: right, wrong, locked or forged."""
    answer = await after_three_wrong(node)
    costs = []

    async def cost(challenge: bytes, tokencode: str, new_pin: str = "") -> None:
        before, entries = node.kdf.evaluations(), len(node.replicator.entries)
        await node.answer_challenge(challenge, tokencode, new_pin=new_pin)
        costs.append(
            (node.kdf.evaluations() - before, len(node.replicator.entries) - entries)
        )

    await cost(b"made up", "123456")
    await cost(b"made up", "123456", NEW_PIN)
    await cost(answer.challenge, "000000")
    await cost(answer.challenge, node.tokencode(step=1))
    await node.tokens.clear_pin(node.admin("TokenService/ClearPin"), serial=SERIAL)
    node.clock.pass_s(60)
    answer = await node.authenticate(node.tokencode())
    await cost(answer.challenge, node.tokencode(step=1), NEW_PIN)
    assert costs == [(2, 1)] * 5
    assert node.reasons()[-4:] == [
        Reason.WRONG_PASSCODE,
        Reason.LOCKED,
        "",
        "",
    ]


@pytest.mark.parametrize("pin", ["123", "123456789", "12a4", "abcd"])
async def test_a_new_pin_must_satisfy_the_policy(node: OneNode, pin: str) -> None:
    """(K2) Otherwise the field is named, nothing is judged, and the user may retry."""
    response = await without_pin(node)
    tokencode = node.tokencode(step=1)
    with pytest.raises(InvalidFieldError) as raised:
        await node.answer_challenge(response.challenge, tokencode, new_pin=pin)
    assert raised.value.field == "new_pin"
    assert pin not in str(raised.value)
    answer = await node.answer_challenge(response.challenge, tokencode, new_pin=NEW_PIN)
    assert answer.decision is Decision.ACCEPTED


async def test_a_new_pin_must_satisfy_the_policy_at_commit(
    node: OneNode,
) -> None:
    """(K2, T2) Another node made it stricter: the refusal follows that policy."""
    answer = await without_pin(node)
    node.replicator.lags = True
    policy = await node.policies.get(node.admin("PolicyService/GetPolicy"))
    node.replicator.lags = True
    await node.policies.update(
        node.admin("PolicyService/UpdatePolicy"),
        version=policy.value.version,
        values={"pin_length_min": 6},
    )
    with pytest.raises(InvalidFieldError, match="6 to 8 digits"):
        await node.answer_challenge(
            answer.challenge, node.tokencode(step=1), new_pin=NEW_PIN
        )


async def test_fields_must_match_the_challenge(node: OneNode) -> None:
    """(K2) A field that is not requested is refused; a requested one is required."""
    response = await without_pin(node)
    with pytest.raises(InvalidFieldError, match="is required"):
        await node.answer_challenge(response.challenge, node.tokencode(step=1))
    answer = await node.answer_challenge(
        response.challenge, node.tokencode(step=1), new_pin=NEW_PIN
    )
    assert answer.decision is Decision.ACCEPTED
    for _ in range(3):
        node.clock.pass_s(60)
        assert not await node.accepts("1" * 10)
    node.clock.pass_s(60)
    response = await node.authenticate(NEW_PIN + node.tokencode())
    with pytest.raises(InvalidFieldError, match="must be empty"):
        await node.answer_challenge(
            response.challenge, node.tokencode(step=1), new_pin="1111"
        )


@pytest.mark.parametrize("tokencode", ["", "12345", "1234567", "x" * 6, "4719123456"])
async def test_a_malformed_tokencode_leaves_the_challenge_open(
    node: OneNode, tokencode: str
) -> None:
    before = node.kdf.evaluations()
    with pytest.raises(InvalidFieldError) as raised:
        await node.answer_challenge(b"c", tokencode)
    assert raised.value.field == "next_tokencode"
    assert node.kdf.evaluations() == before


async def test_an_administrator_may_not_answer_a_challenge(node: OneNode) -> None:
    with pytest.raises(NotPermittedError):
        await node.continuation.continue_authentication(
            node.admin("AuthenticationService/ContinueAuthentication"),
            challenge=b"c",
            next_tokencode="123456",
            new_pin="",
        )


async def test_secrets_of_the_next_step_stay_out_of_the_log(node: OneNode) -> None:
    """(T3) The new PIN and the tokencodes are in neither the entries nor the state."""
    pin = "90817263"
    response = await without_pin(node, digits=8)
    tokencode = node.tokencode(step=1, digits=8)
    answer = await node.answer_challenge(response.challenge, tokencode, new_pin=pin)
    assert answer.decision is Decision.ACCEPTED
    kept = b"".join(node.replicator.entries)
    kept += repr(list(node.primary_db.iterdump())).encode()
    for secret in (pin, tokencode):
        assert secret.encode() not in kept
        assert secret.encode().hex().encode() not in kept
    assert pin not in repr(response)
    assert repr(response.challenge) not in repr(response)
