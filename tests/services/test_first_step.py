# SPDX-License-Identifier: Apache-2.0
"""An agent asks whether a passcode is right (A, T, Q)."""

import uuid
from dataclasses import replace
from typing import Any

import pytest

from sparecode_node.domain.agents import Protects
from sparecode_node.domain.ids import AgentIdentity
from sparecode_node.domain.outcomes import Reason
from sparecode_node.queries.transaction import ReadTransaction
from sparecode_node.replication.errors import NoQuorumError, OutcomeUnknownError
from sparecode_node.services.errors import InvalidFieldError, NotPermittedError, Refused
from sparecode_node.services.secrets.kdf import Lane
from tests.services.one_node import PIN, SERIAL, OneNode

pytestmark = pytest.mark.asyncio

CLOUD = AgentIdentity("spiffe://example/cloud")


async def test_token_passcode_is_accepted_once(node: OneNode) -> None:
    """(K1, T1) The primary matches the tokencode; apply spends it."""
    await node.add_user()
    passcode = PIN + node.tokencode()
    assert await node.accepts(passcode)
    assert not await node.accepts(passcode)
    assert node.reasons() == ["", Reason.TOKENCODE_SPENT]


@pytest.mark.parametrize(
    ("step", "accepted"), [(-2, False), (-1, True), (0, True), (1, True), (2, False)]
)
async def test_tokencode_is_accepted_one_step_around_now(
    node: OneNode, step: int, accepted: bool
) -> None:
    """(K1)."""
    await node.add_user()
    assert await node.accepts(PIN + node.tokencode(step=step)) is accepted


async def test_drift_is_learned(node: OneNode) -> None:
    """(K1) The drift of a slow token's clock is followed, one step at a time."""
    await node.add_user()
    for step in (-1, -2, -3):
        node.clock.pass_s(3600)
        assert await node.accepts(PIN + node.tokencode(step=step))


async def test_emergency_code_is_accepted_once(node: OneNode) -> None:
    """(A1) The PIN, then the code; case, spaces and hyphens do not matter."""
    await node.add_user()
    issued = await node.issue()
    first, second, third = (code.code for code in issued.codes)
    assert await node.accepts(f"{PIN} {first.lower()}")
    assert not await node.accepts(PIN + first)
    assert await node.accepts(PIN + second.replace("-", ""))
    assert not await node.accepts(PIN + third + "X")
    node.clock.pass_s(2)
    assert await node.accepts(PIN + third)


async def test_code_alone_is_the_passcode_of_a_token_without_pin(
    node: OneNode,
) -> None:
    """(A1)."""
    await node.add_user(pin="")
    first, second, _ = (code.code for code in (await node.issue()).codes)
    assert await node.accepts(first)
    assert not await node.accepts("1234" + second)
    node.clock.pass_s(2)
    assert await node.accepts(second)
    assert await node.accepts(node.tokencode())


async def test_right_code_with_wrong_pin_is_charged_and_not_spent(
    node: OneNode,
) -> None:
    """(A2)."""
    await node.add_user()
    code = (await node.issue()).codes[0].code
    assert not await node.accepts("1111" + code)
    user = await node.users.get(node.admin("UserService/GetUser"), "alice")
    assert user.value.emergency_failures == 1
    assert user.value.locked
    node.clock.pass_s(2)
    assert await node.accepts(PIN + code)


async def test_right_pin_with_a_used_code_is_no_guess(node: OneNode) -> None:
    """(A5) A form submitted twice locks no one out."""
    await node.add_user()
    code = (await node.issue()).codes[0].code
    assert await node.accepts(PIN + code)
    for _ in range(6):
        assert not await node.accepts(PIN + code)
    user = await node.users.get(node.admin("UserService/GetUser"), "alice")
    assert user.value.emergency_failures == 0
    assert node.reasons()[1:] == [Reason.CODE_NOT_LIVE] * 6


async def test_code_of_a_replaced_set_is_no_guess(node: OneNode) -> None:
    """(A5, I8)."""
    await node.add_user()
    old = (await node.issue()).codes[0].code
    new = (await node.issue()).codes[0].code
    assert not await node.accepts(PIN + old)
    assert await node.accepts(PIN + new)
    assert node.reasons()[0] == Reason.CODE_NOT_LIVE


async def test_cloud_agent_is_refused_an_emergency_code(node: OneNode) -> None:
    """(A4) The code is not spent; tokencodes are judged as usual."""
    await node.register_agent(CLOUD, Protects.CLOUD)
    await node.add_user()
    code = (await node.issue()).codes[0].code
    assert not await node.accepts(PIN + code, identity=CLOUD)
    assert node.reasons() == [Reason.RESOURCE_NOT_COVERED]
    assert await node.accepts(PIN + code)
    assert await node.accepts(PIN + node.tokencode(), identity=CLOUD)


async def test_unregistered_agent_is_refused(node: OneNode) -> None:
    """(A4)."""
    await node.add_user()
    stranger = AgentIdentity("spiffe://example/other")
    assert not await node.accepts(PIN + node.tokencode(), identity=stranger)
    assert node.reasons() == [Reason.AGENT_UNKNOWN]


async def test_expired_set_is_refused(node: OneNode) -> None:
    """(I7, A4)."""
    await node.add_user()
    code = (await node.issue()).codes[0].code
    node.clock.pass_s(3600)
    assert not await node.accepts(PIN + code)
    assert node.reasons() == [Reason.SET_EXPIRED]


async def test_recovered_token_voids_the_codes(node: OneNode) -> None:
    """(R) ALLOW_AND_DISABLE."""
    await node.add_user()
    code = (await node.issue()).codes[0].code
    assert await node.accepts(PIN + node.tokencode())
    assert not await node.accepts(PIN + code)


PASSCODES = [
    "",
    "1",
    "1234567",
    "12345678",
    "123456789012",
    "A",
    "K7PM4XQ2",
    "4719K7PM4XQ2",
    "9999K7PM-4XQ2",
    "\u0663" * 10,
    "\u2460" * 8,
    "Straße ☂ und mehr",
]


COST = (2, 1, 1)
"""KDF evaluations, forwards to the primary, and commits of every attempt."""


def spent(node: OneNode) -> tuple[int, ...]:
    """Return the cost of all attempts so far."""
    replicator = node.replicator
    return node.kdf.evaluations(), replicator.forwarded, len(replicator.entries)


def since(node: OneNode, before: tuple[int, ...]) -> tuple[int, ...]:
    """Return the cost since *before*."""
    return tuple(now - then for now, then in zip(spent(node), before, strict=True))


@pytest.mark.parametrize("username", ["alice", "ALICE", "nobody", "", "4719123456"])
async def test_every_attempt_costs_the_same(node: OneNode, username: str) -> None:
    """(A6, T4) Two hashes, one forward, one commit, for any user and any passcode."""
    await node.add_user()
    for passcode in PASSCODES:
        before = spent(node)
        assert not await node.accepts(passcode, username=username)
        assert since(node, before) == COST


async def test_unknown_name_costs_the_same_queries(
    node: OneNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """(A6) Otherwise the time would tell which users exist."""
    await node.add_user()
    calls: list[str] = []
    query = ReadTransaction.all

    async def counted(self: ReadTransaction, sql: str, **values: Any) -> Any:
        calls.append(sql)
        return await query(self, sql, **values)

    monkeypatch.setattr(ReadTransaction, "all", counted)
    assert not await node.accepts("1" * 10)
    known = calls.copy()
    calls.clear()
    assert not await node.accepts("1" * 10, username="nobody")
    assert calls == known
    assert known


async def test_refusals_of_a_known_user_cost_the_same_too(node: OneNode) -> None:
    """(A6, L5) Wrong PIN, used code, spent tokencode, locked, disabled."""
    await node.add_user()
    code, live = (each.code for each in (await node.issue()).codes[:2])
    passcodes = [PIN + code, PIN + code, "1111" + live, PIN + code, "1" * 10]
    costs = []

    async def cost(passcode: str) -> None:
        before = spent(node)
        await node.accepts(passcode)
        costs.append(since(node, before))

    for passcode in passcodes:
        await cost(passcode)
    await node.users.update(
        node.admin("UserService/UpdateUser"), username="alice", enabled=False
    )
    await cost(PIN + node.tokencode())
    assert costs == [COST] * 6
    assert node.reasons() == [
        "",
        Reason.CODE_NOT_LIVE,
        Reason.WRONG_PIN,
        Reason.LOCKED,
        Reason.WRONG_PASSCODE,
        Reason.USER_DISABLED,
    ]
    assert node.kdf.evaluations(Lane.ISSUING) == 5  # Root, a PIN and three codes.


async def test_unknown_name_is_audited_as_its_tag_only(node: OneNode) -> None:
    """(A6) People type PINs and passcodes into the name field."""
    assert not await node.accepts("x", username="4719123456")
    (target,) = node.primary_db.execute(
        "SELECT target FROM audit_events WHERE action = 'Authenticate'"
    ).fetchone()
    assert "4719123456" not in target


async def test_retry_gets_the_answer_of_the_first_try(node: OneNode) -> None:
    """(A7, Q1) On any node: the code is spent once, and the agent learns it."""
    await node.add_user()
    code = (await node.issue()).codes[0].code
    request_id = str(uuid.uuid4())
    assert await node.accepts(PIN + code, request_id=request_id)
    assert await node.accepts(PIN + code, request_id=request_id.upper())
    assert not await node.accepts(PIN + code)


async def test_request_id_with_other_content_is_refused(node: OneNode) -> None:
    """(Q1)."""
    await node.add_user()
    request_id = str(uuid.uuid4())
    passcode = PIN + node.tokencode()
    assert not await node.accepts("1111111111", request_id=request_id)
    with pytest.raises(Refused) as raised:
        await node.accepts(passcode, request_id=request_id)
    assert raised.value.rejected.reason is Reason.REQUEST_ID_REUSED
    node.clock.pass_s(2)
    assert await node.accepts(passcode)


async def test_node_that_is_behind_computes_again(node: OneNode) -> None:
    """
    (T2) It did not know the user.

    No one is charged, and the passcode is accepted.
    """
    node.replicator.lags = True
    await node.add_user()
    before = node.kdf.evaluations()
    assert await node.accepts(PIN + node.tokencode())
    assert node.kdf.evaluations() - before == 4
    assert node.reasons() == [""]


async def test_pin_that_was_set_elsewhere_is_known_at_once(node: OneNode) -> None:
    """(T2) The old PIN is wrong and the new one right, also on a lagging node."""
    await node.add_user()
    node.replicator.lags = True
    await node.tokens.set_pin(
        node.admin("TokenService/SetPin"), serial=SERIAL, pin="8052"
    )
    assert await node.accepts("8052" + node.tokencode())


async def test_no_answer_is_never_an_acceptance(node: OneNode) -> None:
    """(A7)."""
    await node.add_user()
    passcode = PIN + node.tokencode()
    for error in (NoQuorumError(), OutcomeUnknownError()):
        node.replicator.down = error
        with pytest.raises(type(error)):
            await node.accepts(passcode)
    node.replicator.down = None
    assert await node.accepts(passcode)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("username", "x" * 129),
        ("passcode", "1" * 65),
        ("client_address", "x" * 257),
        ("client_address", "192.0.2.1\nforged line"),
        ("resource", "x" * 257),
    ],
)
async def test_field_beyond_its_bound_is_named(
    node: OneNode, field: str, value: str
) -> None:
    fields = {"username": "a", "passcode": "1", "client_address": "", "resource": ""}
    before = node.kdf.evaluations()
    with pytest.raises(InvalidFieldError) as raised:
        await node.authentication.authenticate(node.agent(), **{**fields, field: value})
    assert raised.value.field == field
    assert value not in str(raised.value)
    assert node.kdf.evaluations() == before


@pytest.mark.parametrize(
    "request_id", ["", "x", "1" * 32, f"{{{uuid.UUID(int=7, version=4)}}}"]
)
async def test_request_id_must_be_a_uuid(node: OneNode, request_id: str) -> None:
    """(Q1)."""
    context = replace(node.agent(), request_id=request_id)
    with pytest.raises(InvalidFieldError) as raised:
        await node.authentication.authenticate(
            context, username="alice", passcode="1", client_address="", resource=""
        )
    assert raised.value.field == "request_id"


async def test_administrator_is_no_agent(node: OneNode) -> None:
    with pytest.raises(NotPermittedError):
        await node.authentication.authenticate(
            node.admin("AuthenticationService/Authenticate"),
            username="alice",
            passcode="1",
            client_address="",
            resource="",
        )
