# SPDX-License-Identifier: Apache-2.0
"""Users, tokens, agents, administrators and audit events as values."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparecode_node.domain.administrators import (
    Administrator,
    Permission,
    Role,
    may,
)
from sparecode_node.domain.audit import GENESIS_HASH, AuditEvent, chain_hash
from sparecode_node.domain.ids import AdministratorName, KeyId, Moment, UserId
from sparecode_node.domain.outcomes import Reason, Rejected
from sparecode_node.domain.pins import NewPin, PinRule
from sparecode_node.domain.tokens import Token
from sparecode_node.domain.users import fold
from tests.domain.examples import (
    ALICE,
    CLOUD,
    GATEWAY,
    HOTP,
    NOW_MS,
    PIN,
    STEP,
    app_token,
    make_token,
)

ADA = Administrator(
    name=AdministratorName("ada"),
    role=Role.SUPER_ADMIN,
    password_salt=b"salt",
    password_verifier=b"verifier",
    key_id=KeyId(1),
)
EVENT = AuditEvent(
    sequence=1,
    at_ms=NOW_MS,
    actor="administrator:ada",
    node="n1",
    action="CreateUser",
    target="alice",
    outcome="applied",
)


# --- Users


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Alice", "ALICE"),
        ("stra\u00dfe", "STRASSE"),
        ("\u00c5ngstr\u00f6m", "A\u030angstro\u0308m"),
        ("\uff21lice", "alice"),
        (" alice ", "alice"),
    ],
)
def test_equal_names_have_equal_keys(one: str, other: str) -> None:
    """A username is unique after NFKC casefold."""
    assert fold(one) == fold(other)


def test_different_names_have_different_keys() -> None:
    """Folding keeps accents: they distinguish names."""
    assert fold("resume") != fold("r\u00e9sum\u00e9")


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=20))
def test_folding_twice_is_folding_once(name: str) -> None:
    """The key of a key is the key: no caller needs to know if it was folded."""
    assert fold(fold(name)) == fold(name)


def test_a_change_raises_the_auth_version() -> None:
    """What was computed with an older version is stale (T2)."""
    assert ALICE.changed() == replace(ALICE, auth_version=ALICE.auth_version + 1)


# --- Tokens


def test_a_tokencode_is_spent_once() -> None:
    """A spent step is never accepted again, nor is an earlier one (K1)."""
    token = make_token().spend(STEP, NOW_MS)
    assert isinstance(token, Token)
    assert token.spent == STEP
    assert token.spend(STEP, NOW_MS) == Rejected(Reason.TOKENCODE_SPENT)
    assert token.spend(Moment(STEP - 1), NOW_MS) == Rejected(Reason.TOKENCODE_SPENT)


def test_a_totp_token_teaches_its_drift() -> None:
    """Learned drift (K1; RFC 6238, 6)."""
    fast = make_token().spend(Moment(STEP + 1), NOW_MS)
    assert isinstance(fast, Token)
    assert fast.drift == 1


def test_two_tokencodes_teach_where_a_token_is() -> None:
    """Both are spent with it, and neither may have been before (K1)."""
    ahead = Moment(STEP + 50)
    token = make_token().resynchronized((ahead,), NOW_MS)
    assert isinstance(token, Token)
    assert (token.spent, token.drift) == (ahead, 50)
    for moments, reason in (
        ((), Reason.TOKENCODES_NOT_CONSECUTIVE),
        ((ahead,), Reason.TOKENCODE_SPENT),
        ((Moment(ahead + 1),), Reason.TOKENCODE_SPENT),
    ):
        refused = token.resynchronized(moments, NOW_MS)
        assert isinstance(refused, Rejected)
        assert refused.reason is reason
    later = token.resynchronized((ahead, Moment(ahead + 2)), NOW_MS)
    assert isinstance(later, Token)
    assert later.spent == ahead + 2


def test_a_hotp_token_has_no_drift() -> None:
    """A counter is not a clock."""
    spent = make_token(parameters=HOTP).spend(Moment(5), NOW_MS)
    assert isinstance(spent, Token)
    assert (spent.spent, spent.drift) == (5, 0)


def test_assigning_forgets_the_pin_of_the_previous_user() -> None:
    """A PIN belongs to its user."""
    assigned = make_token(user_id=None, pin_verifier=PIN).assigned(UserId("u2"))
    assert isinstance(assigned, Token)
    assert assigned.user_id == "u2"
    assert not assigned.pin_set


def test_unassigning_forgets_the_pin_and_keeps_the_lost_mark() -> None:
    """The PIN goes with its user; an unassigned token is not found again (R2)."""
    unassigned = make_token(lost=True).unassigned()
    assert isinstance(unassigned, Token)
    assert unassigned.user_id is None
    assert not unassigned.pin_set
    assert unassigned.lost
    refused = unassigned.unassigned()
    assert isinstance(refused, Rejected)
    assert refused.reason is Reason.TOKEN_NOT_ASSIGNED


def test_a_pin_is_cleared_where_there_is_one() -> None:
    """Cleared by an administrator (K2)."""
    cleared = make_token().without_pin()
    assert isinstance(cleared, Token)
    assert not cleared.pin_set
    for token, reason in (
        (cleared, Reason.PIN_NOT_SET),
        (app_token(), Reason.PIN_NOT_USED),
    ):
        refused = token.without_pin()
        assert isinstance(refused, Rejected)
        assert refused.reason is reason


def test_an_assigned_token_is_not_assigned_again() -> None:
    """It has to be unassigned first."""
    refused = make_token().assigned(UserId("u2"))
    assert isinstance(refused, Rejected)
    assert refused.reason is Reason.TOKEN_ASSIGNED


def test_a_token_without_pin_rule_takes_no_pin() -> None:
    """PIN rule NONE: the code alone (A1)."""
    refused = app_token().with_pin(NewPin(verifier=PIN, key_id=KeyId(1)))
    assert isinstance(refused, Rejected)
    assert refused.reason is Reason.PIN_NOT_USED
    taken = make_token(pin_verifier=b"").with_pin(NewPin(verifier=PIN, key_id=KeyId(2)))
    assert isinstance(taken, Token)
    assert (taken.pin_verifier, taken.pin_key_id) == (PIN, 2)


def test_a_token_expires_at_its_end() -> None:
    """Refused from its end on (I7)."""
    token = make_token(expires_at_ms=NOW_MS)
    assert token.usable(NOW_MS - 1) is None
    refused = token.usable(NOW_MS)
    assert refused is not None
    assert refused.reason is Reason.TOKEN_EXPIRED


def test_a_reinstated_token_is_not_lost() -> None:
    """`ReinstateToken` clears the lost mark (R)."""
    assert not make_token(lost=True).reinstated().lost


@pytest.mark.parametrize("rule", PinRule)
def test_pin_rules_have_values_for_the_log(rule: PinRule) -> None:
    """Values are on disk, hence never changed."""
    assert rule.value in {"prepended", "pinpad", "none"}


# --- Agents


def test_emergency_codes_do_not_cover_the_cloud() -> None:
    """A CLOUD agent accepts no emergency code (A4)."""
    assert GATEWAY.covers_emergency_codes
    assert not CLOUD.covers_emergency_codes


# --- Administrators


READS = {
    Permission.READ_USERS,
    Permission.READ_AGENTS,
    Permission.READ_NOTICES,
    Permission.READ_CLUSTER,
    Permission.READ_AUDIT,
    Permission.READ_POLICY,
    Permission.READ_ADMINISTRATORS,
    Permission.READ_APPROVALS,
}


@pytest.mark.parametrize(
    ("role", "permissions"),
    [
        (Role.SUPER_ADMIN, set(Permission)),
        (
            Role.HELP_DESK,
            {
                Permission.READ_USERS,
                Permission.EXPLAIN_USERS,
                Permission.UNLOCK_USERS,
                Permission.CLEAR_PINS,
                Permission.ISSUE_EMERGENCY_ACCESS,
                Permission.READ_POLICY,
                Permission.READ_APPROVALS,
                Permission.REJECT,
                Permission.USE_OWN_ACCOUNT,
            },
        ),
        (
            Role.AUDITOR,
            READS | {Permission.EXPLAIN_USERS, Permission.USE_OWN_ACCOUNT},
        ),
        (
            Role.OPERATOR,
            {
                Permission.READ_CLUSTER,
                Permission.READ_NOTICES,
                Permission.SEND_NOTICES,
                Permission.CHANGE_CLUSTER,
                Permission.CREATE_BACKUPS,
                Permission.REJECT,
                Permission.USE_OWN_ACCOUNT,
            },
        ),
    ],
)
def test_roles_may_do_what_their_work_needs(
    role: Role, permissions: set[Permission]
) -> None:
    """One table holds the permissions of each role (P1)."""
    assert {each for each in Permission if may(role, each)} == permissions


def test_wrong_passwords_wait_and_never_lock() -> None:
    """No one can lock administrators out by typing wrong passwords (L7)."""
    administrator, waits = ADA, []
    for _ in range(12):
        administrator = administrator.failed(NOW_MS)
        waits.append(administrator.blocked_until_ms - NOW_MS)
    assert waits == sorted(waits)
    assert waits[0] == 1_000
    assert waits[-1] <= 60_000
    assert administrator.blocks(NOW_MS)
    assert not administrator.blocks(NOW_MS + 60_000)


def test_a_right_password_ends_the_waits() -> None:
    """Success sets the count to 0 (L6)."""
    assert ADA.failed(NOW_MS).failed(NOW_MS).succeeded() == ADA


# --- Audit


def test_an_event_is_bound_to_all_before_it() -> None:
    """The hash covers every field and the previous hash (U1)."""
    hashes = {
        chain_hash(previous, event)
        for previous in (GENESIS_HASH, b"\x01" * 32)
        for event in (
            EVENT,
            replace(EVENT, sequence=2),
            replace(EVENT, at_ms=NOW_MS + 1),
            replace(EVENT, actor="agent:vpn"),
            replace(EVENT, node="n2"),
            replace(EVENT, action="DeleteUser"),
            replace(EVENT, target="bob"),
            replace(EVENT, outcome="refused"),
            replace(EVENT, reason="user_exists"),
            replace(EVENT, detail="more"),
        )
    }
    assert len(hashes) == 20


def test_the_hash_of_an_event_never_changes_its_form() -> None:
    """Verifiers of exports compute the same; a changed form fails here (U1)."""
    assert chain_hash(GENESIS_HASH, EVENT).hex() == (
        "76b26e40eba80e491e2b7bfe9521c380c4bfce97c5b0d9f3ff180b184c475d89"
    )
