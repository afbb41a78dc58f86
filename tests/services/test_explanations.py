# SPDX-License-Identifier: Apache-2.0
"""Why a user was refused, and what stands in the way now."""

from dataclasses import replace
from typing import Any

import pytest

from sparecode_node.domain.administrators import Role
from sparecode_node.domain.emergency_access import RecoveryPolicy
from sparecode_node.domain.lockout import Factor
from sparecode_node.domain.outcomes import Reason
from sparecode_node.domain.policy import DAY_MS
from sparecode_node.queries import attempts
from sparecode_node.queries.audit import AuditFilter
from sparecode_node.services.errors import NotPermittedError, Refused
from sparecode_node.services.people.administrators import Link
from sparecode_node.services.people.explanations import (
    METHOD,
    ExplainedAttempt,
    UserExplanation,
)
from tests.services.one_node import PASSWORD, PIN, SERIAL, VPN, OneNode

pytestmark = pytest.mark.asyncio

WRONG = PIN + "AAAA-BBBB"


async def explained(node: OneNode, username: str = "alice") -> UserExplanation:
    """Return the explanation of a user for the signed-in administrator."""
    read = await node.explanations.explain(node.admin(METHOD), username)
    explanation: UserExplanation = read.value
    return explanation


async def fail(node: OneNode, passcode: str = WRONG, times: int = 5) -> None:
    """Type wrong passcodes, each after the wait."""
    for _ in range(times):
        node.clock.pass_s(6)
        assert not await node.accepts(passcode)


async def furnished(node: OneNode) -> OneNode:
    """Add Alice."""
    await node.add_user()
    return node


async def as_role(node: OneNode, role: Role) -> None:
    """Sign in as an administrator of this role."""
    await node.administrators.create(
        node.admin("AdministratorService/CreateAdministrator"),
        name="helen",
        role=role,
        link=Link(""),
        password=PASSWORD,
    )
    await node.login(name="helen")
    await node.administrators.change_password(
        node.admin("AdministratorService/ChangePassword"),
        name="",
        old_password=PASSWORD,
        new_password="chosen by herself!",
    )
    await node.login(name="helen", password="chosen by herself!")


def reasons(explanation: UserExplanation) -> list[str]:
    return [each.reason for each in explanation.blockers]


async def test_nothing_stands_in_the_way_of_a_user_in_order(node: OneNode) -> None:
    await furnished(node)
    assert await node.accepts(PIN + node.tokencode())
    explanation = await explained(node, "ALICE")
    assert (explanation.username, explanation.blockers) == ("alice", ())
    (attempt,) = explanation.attempts
    assert (attempt.words, attempt.next_step) == ("Accepted.", "")


async def test_a_lock_is_named_with_its_end_and_its_cause(node: OneNode) -> None:
    """(L3) Only the factor that is locked."""
    await furnished(node)
    codes = [each.code for each in (await node.issue()).codes]
    await fail(node)
    explanation = await explained(node)
    (locked,) = explanation.blockers
    assert locked.factor == Factor.EMERGENCY
    assert locked.stops_codes
    assert "Emergency codes are locked until 20" in locked.words
    assert "UTC after 5 wrong passcodes" in locked.words
    assert locked.next_step == "Unlock the user."
    assert not await node.accepts(PIN + codes[0])
    newest = (await explained(node)).attempts[0]
    assert newest.reason == Reason.LOCKED
    assert "not looked at" in newest.words
    assert newest.next_step == "Unlock the user."
    node.clock.pass_s(1000)
    assert await node.accepts(PIN + codes[0])
    await node.login()  # A super administrator's session ends sooner.
    after = await explained(node)
    assert Reason.LOCKED not in reasons(after)
    assert after.attempts[1].next_step.startswith("This is over")


async def test_locked_tokencodes_are_told_from_emergency_codes(node: OneNode) -> None:
    """(U3) The command line says so, too; not while the codes are refused as well."""
    await furnished(node)
    for _ in range(5):
        node.clock.pass_s(20)
        assert not await node.accepts(PIN + "000000")
    (locked,) = (await explained(node)).blockers
    assert locked.factor == Factor.TOKEN
    assert locked.words.endswith(
        "Emergency codes, if the user has any, are not locked."
    )
    await fail(node)
    assert not any(
        "are not locked" in each.words for each in (await explained(node)).blockers
    )


async def test_an_attempt_tells_where_it_came_from(node: OneNode) -> None:
    """(U3) Time, agent, node, calling address, resource, token and verdict."""
    await furnished(node)
    await node.issue()
    assert not await node.accepts("0000" + node.tokencode())
    (attempt,) = (await explained(node)).attempts
    assert replace(attempt, words="", next_step="") == ExplainedAttempt(
        at_ms=node.clock.now,
        words="",
        next_step="",
        agent=VPN,
        node_id="n1",
        client_address="192.0.2.1",
        resource="mail",
        serial=SERIAL,
        outcome="refused",
        reason="wrong_pin",
        authentication_id=attempt.authentication_id,
    )
    assert "the PIN was wrong or missing" in attempt.words
    assert "Clear the PIN if it is forgotten." in attempt.next_step


@pytest.mark.parametrize("resource", ["", "mail, challenge me, client 1.2.3.4", "a; b"])
async def test_words_of_an_agent_do_not_confuse_the_parts(
    node: OneNode, resource: str
) -> None:
    await furnished(node)
    await node.authentication.authenticate(
        node.agent(),
        username="alice",
        passcode="0000" + node.tokencode(),
        client_address="2001:db8::1",
        resource=resource,
    )
    (attempt,) = (await explained(node)).attempts
    assert attempt.client_address == "2001:db8::1"
    assert attempt.resource == resource


async def test_next_steps_are_told_as_such(node: OneNode) -> None:
    """(K3) A challenge is no refusal; its answer is an attempt of its own."""
    await furnished(node)
    await node.tokens.clear_pin(node.admin("TokenService/ClearPin"), serial=SERIAL)
    answer = await node.authenticate(node.tokencode())
    assert "new PIN" in (await explained(node)).attempts[0].words
    assert reasons(await explained(node)) == [Reason.PIN_NOT_SET]
    node.clock.pass_s(30)
    await node.answer_challenge(answer.challenge, node.tokencode(), new_pin="8052")
    newest, first = (await explained(node)).attempts
    assert newest.words == "Accepted."
    assert newest.serial == first.serial == SERIAL


async def test_an_answer_to_a_challenge_names_where_it_came_from(node: OneNode) -> None:
    """(U1) From RADIUS clients, which name it in each packet."""
    await furnished(node)
    await node.tokens.clear_pin(node.admin("TokenService/ClearPin"), serial=SERIAL)
    challenge = (await node.authenticate(node.tokencode())).challenge
    for _ in range(2):
        context = replace(
            node.agent(),
            method="AuthenticationService/ContinueAuthentication",
            source="RADIUS from 192.0.2.7",
        )
        node.clock.pass_s(30)
        await node.continuation.continue_authentication(
            context,
            challenge=challenge,
            next_tokencode=node.tokencode(),
            new_pin="8052",
            client_address="198.51.100.9",
            resource="NAS gate",
        )
    again, accepted, _ = (await explained(node)).attempts
    assert again.reason == Reason.CHALLENGE_NOT_VALID
    for each in (again, accepted):
        assert each.client_address == "198.51.100.9"
        assert each.resource == "RADIUS from 192.0.2.7, NAS gate"


async def test_each_obstacle_is_named_with_its_next_step(node: OneNode) -> None:
    """(U3, I1, A4) A disabled user, a disabled or expired token, a cleared PIN, a list."""
    await furnished(node)
    await node.agents.update(
        node.admin("AgentService/UpdateAgent"), name=VPN, restricted=True
    )
    await node.users.update(
        node.admin("UserService/UpdateUser"), username="alice", enabled=False
    )
    await node.tokens.clear_pin(node.admin("TokenService/ClearPin"), serial=SERIAL)
    await node.tokens.update(
        node.admin("TokenService/UpdateToken"),
        serial=SERIAL,
        expires_at_ms=node.clock.now - DAY_MS,
        never_expires=False,
    )
    explanation = await explained(node)
    assert reasons(explanation) == [
        Reason.USER_DISABLED,
        Reason.TOKEN_EXPIRED,
        Reason.PIN_NOT_SET,
        Reason.USER_NOT_ALLOWED,
    ]
    assert [each.next_step for each in explanation.blockers] == [
        "Enable the user.",
        "Replace the token.",
        "Set a PIN.",
        "Add the user, or one of their groups, to the agent's allow list.",
    ]
    listed = explanation.blockers[-1]
    assert listed.words.endswith(f": {VPN}.")
    assert not listed.stops_codes  # Other agents may admit the user.
    await node.tokens.disable(node.admin("TokenService/DisableToken"), serial=SERIAL)
    assert Reason.TOKEN_DISABLED in reasons(await explained(node))
    await node.tokens.unassign(node.admin("TokenService/UnassignToken"), serial=SERIAL)
    assert Reason.TOKEN_NOT_ASSIGNED in reasons(await explained(node))
    read = await node.explanations.explain_token(node.admin(METHOD), SERIAL)
    assert read.value.username == ""
    assert reasons(read.value) == [Reason.TOKEN_NOT_ASSIGNED]


async def test_a_lost_token_is_told_from_its_codes(node: OneNode) -> None:
    """(R) Under `DENY` the tokencodes are refused, and the codes are not."""
    await furnished(node)
    await node.issue(recovery=RecoveryPolicy.DENY)
    (lost,) = (await explained(node)).blockers
    assert lost.reason == Reason.RECOVERED_TOKEN_REFUSED
    assert not lost.stops_codes
    assert not await node.accepts(PIN + node.tokencode())
    (attempt,) = (await explained(node)).attempts
    assert "counts as lost" in attempt.words


async def test_the_help_desk_is_told_whom_to_ask(node: OneNode) -> None:
    """(U3, P1) It may unlock, but it may not enable; it reads no audit log."""
    await furnished(node)
    await fail(node)
    await node.users.update(
        node.admin("UserService/UpdateUser"), username="alice", enabled=False
    )
    await as_role(node, Role.HELP_DESK)
    explanation = await explained(node)
    steps = {each.reason: each.next_step for each in explanation.blockers}
    assert steps[Reason.LOCKED] == "Unlock the user."
    assert (
        steps[Reason.USER_DISABLED] == "Ask a super administrator to enable the user."
    )
    assert len(explanation.attempts) == 5
    with pytest.raises(NotPermittedError):
        await node.audit.list(
            node.admin("AuditService/ListAuditEvents"), criteria=AuditFilter()
        )


async def test_an_operator_learns_nothing_of_users(node: OneNode) -> None:
    """(P1) The permission is one of its own."""
    await furnished(node)
    await as_role(node, Role.OPERATOR)
    with pytest.raises(NotPermittedError):
        await explained(node)
    with pytest.raises(NotPermittedError):
        await node.explanations.explain_token(node.admin(METHOD), SERIAL)


async def test_unknown_names_are_refused(node: OneNode) -> None:
    await furnished(node)
    with pytest.raises(Refused, match="no user"):
        await explained(node, "bob")
    with pytest.raises(Refused, match="no token"):
        await node.explanations.explain_token(node.admin(METHOD), "1")


async def test_other_users_attempts_are_not_shown(node: OneNode) -> None:
    await furnished(node)
    await node.add_user("bob", serial="2")
    await fail(node, times=2)
    assert not (await explained(node, "bob")).attempts
    assert len((await explained(node)).attempts) == 2


async def test_attempts_are_found_by_an_index(node: OneNode) -> None:
    """A log of millions of events is not read for one user."""
    plans: list[str] = []

    class Explaining:
        async def all(self, sql: str, **values: Any) -> list[Any]:
            rows = node.local_db.execute("EXPLAIN QUERY PLAN " + sql, values)
            plans.extend(row[3] for row in rows)
            return []

        async def one(self, *_: object, **__: object) -> None:
            """Miss no segment."""

    transaction: Any = Explaining()
    await attempts.latest(transaction, "alice", rows=5)  # type: ignore[arg-type]
    assert any("audit_events_of_decisions" in each for each in plans)
    assert not any("SCAN" in each or "B-TREE" in each for each in plans)
