# SPDX-License-Identifier: Apache-2.0
"""Live codes under a policy: counted correctly, quickly, and only when they matter."""

import json
import sqlite3
from collections import Counter

import pytest

from sparecode_node.domain.outcomes import Reason, Rejected
from sparecode_node.domain.policy import Policy
from sparecode_node.statemachine.results import Applied, Result
from sparecode_node.statemachine.tables.live_codes import LIVE_CODES
from tests.statemachine.world import World

PIN = "1234"
OTHER_FORM = {"code_alphabet": "0123456789ABCDEF"}
"""A change that live codes prevent."""

Owners = Counter[tuple[str, tuple[tuple[int, int], ...]]]
"""The number of tokens with this PIN rule and these counts of codes by length."""


def begun() -> World:
    world = World()
    world.begin()
    return world


def play(world: World, *steps: tuple[str, dict[str, str]]) -> None:
    """Run directives, none of which may be refused."""
    for directive, arguments in steps:
        text = world.handle(directive, arguments)
        assert not text.startswith("rejected"), text


def holder(world: World, serial: str, codes: int, **arguments: str) -> None:
    """Add a user with a token and a set of codes."""
    kind = {
        name: arguments.pop(name)
        for name in ("pin-rule", "expires")
        if name in arguments
    }
    play(
        world,
        ("create-user", {"name": f"u{serial}"}),
        ("enroll", {"serial": serial, **kind}),
        ("assign", {"serial": serial, "user": f"u{serial}"}),
    )
    if "pin-rule" not in kind:
        play(world, ("set-pin", {"serial": serial, "pin": PIN}))
    play(
        world,
        ("save", {"serial": serial, "set": serial, "count": str(codes), **arguments}),
    )


def update(world: World, **changes: str) -> Result:
    return world.apply(world.call("update-policy", changes))


def crowd() -> World:
    """Return tokens of all kinds."""
    world = begun()
    assert isinstance(
        update(world, code_length="6", factor_off_at_failures="5"), Applied
    )
    for serial in ("30", "20", "40"):
        holder(world, serial, 3)
    holder(world, "10", 4)
    holder(world, "50", 3, **{"pin-rule": "none"})
    holder(world, "60", 3, expires="5m")
    holder(world, "61", 3, ends="5m")
    for serial, keep in (("25", {"keep": "yes"}), ("80", {})):
        holder(world, serial, 3)
        again = {"serial": serial, "set": f"again {serial}", "count": "2"}
        play(world, ("save", again | keep))
    assert isinstance(update(world, code_length="7"), Applied)
    holder(world, "70", 2)
    play(world, ("save", {"serial": "80", "set": "third", "count": "1"}))
    play(
        world,
        ("save", {"serial": "20", "set": "of 20", "count": "2", "keep": "yes"}),
        ("authenticate", {"user": "u40", "pin": PIN, "code": "40/1"}),
        ("wait", {"6m": "yes"}),
        ("barrier", {}),
    )
    return world


def counted(world: World) -> list[tuple[str, str, int, str]]:
    return world.db.execute(LIVE_CODES, {"now": world.machine.now_ms}).fetchall()


def counted_singly(world: World) -> tuple[Owners, dict[str, str]]:
    """Count token by token; return the first serial of each group of equal tokens."""
    rows = world.db.execute(
        "SELECT serial, pin_rule, code_length FROM tokens "
        "JOIN code_sets USING (serial) JOIN codes USING (set_id) "
        "WHERE state = 'live' "
        "AND coalesce(ends_at_ms, :now + 1) > :now",
        {"now": world.machine.now_ms},
    ).fetchall()
    owners: Owners = Counter()
    first: dict[str, str] = {}
    for serial in sorted({serial for serial, _, _ in rows}):
        (rule,) = {rule for each, rule, _ in rows if each == serial}
        lengths = Counter(length for each, _, length in rows if each == serial)
        kind = (rule, tuple(sorted(lengths.items())))
        owners[kind] += 1
        first.setdefault(repr(kind), serial)
    return owners, first


def test_codes_are_counted_as_if_token_by_token() -> None:
    """(I6, T4) Used, void and ended codes do not count; lengths count apart."""
    world = crowd()
    rows = counted(world)
    owners: Owners = Counter()
    first = {}
    for lengths, rule, tokens, serial in rows:
        counts = sorted((int(length), n) for length, n in json.loads(lengths).items())
        owners[rule, tuple(counts)] += tokens
        first[repr((rule, tuple(counts)))] = serial
    assert (owners, first) == counted_singly(world)
    assert owners == {
        ("prepended", ((6, 4),)): 1,
        ("prepended", ((6, 3),)): 2,
        ("prepended", ((6, 2),)): 1,
        ("prepended", ((6, 3), (7, 2))): 1,
        ("prepended", ((7, 2),)): 1,
        ("prepended", ((6, 5),)): 1,
        ("prepended", ((7, 1),)): 1,
        ("none", ((6, 3),)): 1,
    }


def test_equal_tokens_are_one_row() -> None:
    """So the work does not grow with the number of tokens (c)."""
    world = begun()
    for number in range(20):
        holder(world, f"{number:02}", 2)
    rows = counted(world)
    assert rows == [('{"8":2}', "prepended", 20, "00")]
    refused = update(world, **OTHER_FORM)
    assert isinstance(refused, Rejected)
    assert refused.reason is Reason.CODES_LIVE
    assert "40 live codes of 20 tokens" in refused.detail


def test_the_refusal_names_the_first_token_whose_codes_are_too_many() -> None:
    """In the order of serials, among equal tokens and among all."""
    world = begun()
    fewer = {"code_length": "6", "factor_off_at_failures": "5"}
    assert isinstance(update(world, **fewer), Applied)
    holder(world, "10", 2, **{"pin-rule": "none"})
    for serial in ("40", "30", "50"):
        holder(world, serial, 20, **{"pin-rule": "none"})
    holder(world, "20", 21)
    refused = update(world, factor_off_at_failures="80", codes_per_set_default="1")
    assert isinstance(refused, Rejected)
    assert refused.reason is Reason.GUESS_ODDS
    assert "token 30 already has these live codes" in refused.detail


def tables_read(world: World, **changes: str) -> tuple[set[str], Result]:
    """Return the tables that a change of policy reads, and its result."""
    read = set()

    def note(action: int, table: str | None, *_: object) -> int:
        if action == sqlite3.SQLITE_READ and table:
            read.add(table)
        return sqlite3.SQLITE_OK

    call = world.call("update-policy", changes)
    world.db.set_authorizer(note)  # SQLite prepares earlier statements again.
    try:
        result = world.apply(call)
    finally:
        world.db.set_authorizer(None)
    return read, result


@pytest.mark.parametrize(
    ("changes", "concerned"),
    [
        ({"lock_ms": "30m"}, False),
        ({"codes_per_set_default": "5"}, False),
        ({"code_length": "8"}, False),  # As it is.
        ({"code_length": "9"}, True),
        ({"further_code_lengths": "9"}, True),
        ({"factor_off_at_failures": "50"}, True),
        (OTHER_FORM, True),
    ],
)
def test_live_codes_are_counted_only_where_a_change_concerns_them(
    changes: dict[str, str], concerned: bool
) -> None:
    """(U1, c) Other changes need no count."""
    read, result = tables_read(begun(), **changes)
    assert ("codes" in read) is concerned
    assert isinstance(result, Applied)


@pytest.mark.parametrize(
    ("level", "guesses", "counted"),
    [("1", "50", True), ("2", "50", False), ("2", "61", True)],
)
def test_fewer_guesses_count_no_code(
    level: str, guesses: str, *, counted: bool
) -> None:
    """(I6, c) Tightening a policy holds no answer, however many codes there are."""
    world = begun()
    assert world.machine.feature_level == 1
    update(world, factor_off_at_failures="60")
    world.handle("raise-feature-level", {"level": level})
    holder(world, "1", 3)
    read, result = tables_read(world, factor_off_at_failures=guesses)
    assert isinstance(result, Applied)
    assert ("codes" in read) is counted


@pytest.mark.parametrize(
    "changes",
    [
        {"lock_ms": "30m"},
        {"codes_per_set_max": "60"},
        {"hotp_look_ahead": "20"},
        {"second_approver": "no"},
        {"pin_letters": "yes"},
        {"pin_letters": "no"},  # As it is.
    ],
)
def test_most_changes_read_no_token(changes: dict[str, str]) -> None:
    """(c) They take the same time in any estate."""
    world = begun()
    holder(world, "1", 3)
    holder(world, "2", 3, **{"pin-rule": "none"})
    read, result = tables_read(world, **changes)
    assert not read & {"tokens", "code_sets", "codes"}
    assert isinstance(result, Applied)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"version": "7", "code_length": "9"}, Reason.VERSION),
        ({"version": "7", "pin_letters": "no"}, Reason.VERSION),
        ({"code_length": "99"}, Reason.POLICY_VALUE),
        ({"factor_off_at_failures": "1000"}, Reason.POLICY_VALUE),
        ({"code_alphabet": "ABC"}, Reason.POLICY_VALUE),
    ],
)
def test_refused_changes_read_no_token(changes: dict[str, str], reason: Reason) -> None:
    """(c) A stale or mistyped change delays no other call."""
    world = begun()
    holder(world, "1", 3)
    read, refused = tables_read(world, **changes)
    assert not read & {"tokens", "code_sets", "codes"}
    assert isinstance(refused, Rejected)
    assert refused.reason is reason


def test_pins_with_letters_are_looked_for_when_those_are_turned_off() -> None:
    """(T4, U1) Every other change looks at no token."""
    world = begun()
    play(
        world,
        ("create-user", {"name": "anna"}),
        ("enroll", {"serial": "1"}),
        ("assign", {"serial": "1", "user": "anna"}),
    )
    read, _ = tables_read(world, lock_ms="30m")
    assert "tokens" not in read
    assert isinstance(update(world, pin_letters="yes"), Applied)
    play(world, ("set-pin", {"serial": "1", "pin": "abcd", "lettered": "yes"}))
    refused = update(world, pin_letters="no")
    assert isinstance(refused, Rejected)
    assert refused.reason is Reason.PINS_LETTERED
    play(world, ("set-pin", {"serial": "1", "pin": PIN}))
    assert isinstance(update(world, pin_letters="no"), Applied)


def test_live_codes_keep_their_form_and_their_length() -> None:
    world = begun()
    holder(world, "1", 3)
    assert isinstance(update(world, lock_ms="30m"), Applied)
    assert isinstance(update(world, **OTHER_FORM), Rejected)
    assert isinstance(update(world, code_length="9"), Applied)
    assert world.policy.code_lengths == (9, 8)
    assert isinstance(update(world, further_code_lengths=""), Rejected)
    assert world.policy.lock_ms == 30 * 60_000 != Policy().lock_ms


def test_codes_that_may_come_back_with_their_token_count() -> None:
    """(I6, T4) An expired token may get another end under any later policy."""
    world = begun()
    fewer = {"code_length": "6", "factor_off_at_failures": "5"}
    assert isinstance(update(world, **fewer), Applied)
    holder(world, "1", 20, **{"pin-rule": "none", "expires": "5m"})
    play(world, ("wait", {"6m": "yes"}), ("barrier", {}))
    refused = update(world, factor_off_at_failures="80", codes_per_set_default="1")
    assert isinstance(refused, Rejected)
    assert refused.reason is Reason.GUESS_ODDS
    assert isinstance(update(world, code_length="9"), Applied)
    assert world.policy.code_lengths == (9, 6)
    play(world, ("update-token", {"serial": "1", "never": "yes"}))
    refused = update(world, further_code_lengths="")
    assert isinstance(refused, Rejected)
    assert refused.reason is Reason.CODES_LIVE


EXPIRES = ("update-token", {"serial": "1", "expires": "90m"})


def one_set_behind_another(codes: int, *steps: tuple[str, dict[str, str]]) -> World:
    """Return a lost token whose newest set has ended, and a kept one not by itself."""
    world = begun()
    assert isinstance(update(world, factor_off_at_failures="5"), Applied)
    holder(world, "1", codes, lifetime="40h", recovery="allow_after_expiry")
    again = {"serial": "1", "set": "newest", "count": "2", "lifetime": "1h"}
    play(
        world,
        ("save", {**again, "recovery": "allow_after_expiry", "keep": "yes"}),
        *steps,
        ("wait", {"2h": "yes"}),
        ("barrier", {}),
    )
    return world


def authenticate_by_token(world: World) -> str:
    return world.handle("authenticate", {"user": "u1", "pin": PIN, "step": "0"})


def test_codes_turned_off_after_their_token_expired_let_no_lost_token_in() -> None:
    """(R2) The newest set has ended, and a kept one would live on with another end."""
    world = one_set_behind_another(2, EXPIRES)
    world.handle("disable", {"serial": "1"})
    play(world, ("update-token", {"serial": "1", "never": "yes"}))
    world.handle("disable", {"serial": "1"})
    assert "refused recovered_token_refused" in authenticate_by_token(world)


def test_codes_ended_by_guesses_after_their_token_expired_let_no_lost_token_in() -> (
    None
):
    """(R2) Too many failures void the codes of an expired token, too."""
    world = one_set_behind_another(2, EXPIRES)
    guess = {"user": "u1", "pin": PIN, "code": "WRONG"}
    for _ in range(5):
        text = world.handle("authenticate", guess)
        play(world, ("wait", {"1h": "yes"}))
    assert "CODES_VOIDED 1 noted (too many failures: 2 codes)" in text
    play(world, ("update-token", {"serial": "1", "never": "yes"}))
    assert "refused recovered_token_refused" in authenticate_by_token(world)


def test_kept_codes_that_are_used_up_let_no_lost_token_in() -> None:
    """(R2) The newest set has ended, and the kept one will."""
    world = one_set_behind_another(1)
    play(world, ("authenticate", {"user": "u1", "pin": PIN, "code": "1/1"}))
    assert "refused recovered_token_refused" in authenticate_by_token(world)


def test_codes_of_an_expired_token_can_be_taken_out_of_the_way() -> None:
    """(T4) The refusal says whose they are, and what it says to do can be done."""
    world = begun()
    for serial in ("2", "1"):
        holder(world, serial, 3, expires="5m")
    holder(world, "3", 3)
    play(world, ("wait", {"6m": "yes"}), ("barrier", {}))
    refused = update(world, **OTHER_FORM)
    assert isinstance(refused, Rejected)
    assert (
        "the old one is used by 9 live codes of 3 tokens (the first is 1; expired tokens "
        "count)" in refused.detail
    )
    for serial in ("1", "2"):
        text = world.handle("disable", {"serial": serial})
        assert text.startswith("applied")
        assert "3 codes" in text
    play(world, ("disable", {"serial": "3"}))
    assert isinstance(update(world, **OTHER_FORM), Applied)
    play(world, ("update-token", {"serial": "1", "never": "yes"}))
    assert not counted_singly(world)[0]
