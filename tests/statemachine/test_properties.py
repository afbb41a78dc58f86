# SPDX-License-Identifier: Apache-2.0
"""
Properties of any history: apply never raises, and a replay gives the same state.

These are the specification of determinism. One property draws histories that could
happen: codes are issued, used and voided. The other draws commands field by field, as
no node would send them.
"""

import dataclasses
import enum
import types
import typing
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from sparecode_node.domain.audit import GENESIS_HASH, chain_hash
from sparecode_node.statemachine.commands import Call, Command
from sparecode_node.statemachine.feature_level import NEWEST
from sparecode_node.statemachine.handlers.epochs import NOT_OPEN
from sparecode_node.statemachine.results import Applied, Result, from_json, to_json
from tests.statemachine.test_machine import chain
from tests.statemachine.world import START_MS, World

LIVES = settings(max_examples=12, deadline=None)

USERS = st.sampled_from(["alice", "bob"])
SERIALS = st.sampled_from(["1001", "1002", "1003", "1004"])
SETS = st.sampled_from("ABCDEF")
SPANS = st.sampled_from(["1ms", "1s", "5s", "30s", "15m", "1h", "1d"])
PINS = st.sampled_from(["1234", "4321"])
VERSIONS = st.sampled_from([{}, {}, {}, {"auth-version": "1"}, {"policy-version": "2"}])
REQUESTS = st.one_of(
    st.just({}),
    st.fixed_dictionaries(
        {
            "request": st.sampled_from(["x", "y"]),
            "tag": st.sampled_from(["7", "7", "8"]),
        }
    ),
)
VIA = st.sampled_from(["n1", "n2", "n3"])


def step(directive: str, *more: Any, **arguments: Any) -> Any:
    """Draw a directive with its arguments; some with versions or ids of their own."""
    merged = st.tuples(st.fixed_dictionaries(arguments), *more, REQUESTS).map(
        lambda parts: {key: value for part in parts for key, value in part.items()}
    )
    return st.tuples(st.just(directive), merged)


FLAGS = st.sampled_from([{}, {"keep": "yes"}, {"weaken": "yes"}])
LIFETIMES = st.sampled_from(
    [{}, {"lifetime": "1h"}, {"lifetime": "2d"}, {"ends": "0s"}]
)
RECOVERIES = st.sampled_from(["deny", "allow_and_disable", "allow_after_expiry"])
DRAFTS = st.sampled_from([{}, {}, {"draft": "d1", "draft-ends": "1d"}])

EMERGENCY = step(
    "authenticate",
    VERSIONS,
    st.sampled_from([{}, {"pin": "1234"}, {"pin": "4321"}]),
    user=USERS,
    code=st.builds("{}/{}".format, SETS, st.integers(1, 4)),
    via=VIA,
)
TOKEN = step(
    "authenticate",
    VERSIONS,
    st.sampled_from([{}, {"pin": "1234"}, {"pin": "4321"}]),
    user=st.sampled_from(["alice", "bob", "nobody"]),
    step=st.integers(-1, 1).map(str),
    counter=st.integers(0, 9).map(str),
)
SAVE = step(
    "save",
    VERSIONS,
    FLAGS,
    LIFETIMES,
    DRAFTS,
    serial=SERIALS,
    set=SETS,
    count=st.sampled_from(["1", "3", "30", "51"]),
    recovery=RECOVERIES,
)
FIXED = step(
    "issue-fixed",
    VERSIONS,
    LIFETIMES,
    serial=SERIALS,
    set=st.sampled_from("EF"),
    recovery=RECOVERIES,
)
EPOCH = step("begin-epoch", cluster=st.sampled_from(["c2", "c3"]))
ANYTHING = st.one_of(
    EPOCH,
    step("open-cluster"),
    step("sign-in"),
    EMERGENCY,
    EMERGENCY,
    TOKEN,
    SAVE,
    SAVE,
    FIXED,
    step("disable", st.sampled_from([{}, {"reinstate": "yes"}]), serial=SERIALS),
    step("reinstate", serial=SERIALS),
    step("set-pin", serial=SERIALS, pin=PINS),
    step("clear-pin", serial=SERIALS),
    step("unassign", serial=SERIALS),
    step("enable-token", serial=SERIALS),
    step("disable-token", serial=SERIALS),
    step(
        "update-token",
        st.sampled_from([{"never": "yes"}, {"expires": "1h"}, {"expires": "2d"}]),
        serial=SERIALS,
    ),
    step("delete-token", serial=SERIALS),
    step(
        "resynchronize",
        serial=SERIALS,
        step=st.integers(-60, 61).map(str),
        counter=st.integers(0, 20).map(str),
    ),
    step(
        "replace",
        VERSIONS,
        st.sampled_from([{}, {"keep-pin": "yes"}]),
        serial=SERIALS,
        by=SERIALS,
    ),
    step("assign", serial=SERIALS, user=USERS),
    step("update-user", name=USERS, enabled=st.sampled_from(["yes", "yes", "no"])),
    step("unlock-user", name=USERS),
    step("delete-user", name=USERS),
    step("create-user", name=USERS),
    step("sign-in", password=st.sampled_from(["right", "right", "wrong"])),
    step("sign-out", st.sampled_from([{}, {"everywhere": "yes"}])),
    step(
        "create-admin",
        st.sampled_from([{}, {"user": "alice"}]),
        name=st.sampled_from(["dora", "root"]),
    ),
    step(
        "update-admin",
        st.sampled_from([{"user": "alice"}, {"no-user": "yes"}, {"role": "auditor"}]),
        st.sampled_from([{}, {"enabled": "no"}, {"enabled": "yes"}]),
        name=st.sampled_from(["dora", "root"]),
    ),
    step("remove-admin", name=st.sampled_from(["dora", "root"])),
    step("change-password", name=st.just("dora"), new=st.just("right")),
    step(
        "update-policy",
        st.sampled_from([{"lock_ms": "1m"}, {"code_length": "9"}, {"version": "1"}]),
        codes_per_set_max=st.sampled_from(["20", "50", "101"]),
    ),
    step("register-agent", name=st.sampled_from(["vpn", "ssh"])),
    st.tuples(st.just("wait"), SPANS.map(lambda span: {span: "yes"})),
    st.tuples(st.just("barrier"), st.just({})),
)
BEGINNING = (
    ("begin", {}),
    ("create-user", {"name": "alice"}),
    ("create-user", {"name": "bob"}),
    ("enroll", {"serial": "1001"}),
    ("enroll", {"serial": "1002", "pin-rule": "none", "algorithm": "hotp"}),
    ("enroll", {"serial": "1003", "expires": "1d"}),
    ("assign", {"serial": "1001", "user": "alice"}),
    ("assign", {"serial": "1002", "user": "alice"}),
    ("assign", {"serial": "1003", "user": "bob"}),
    ("set-pin", {"serial": "1001", "pin": "1234"}),
    ("set-pin", {"serial": "1003", "pin": "1234"}),
    ("save", {"serial": "1001", "set": "A"}),
)


def assert_sound(world: World) -> None:
    """Check what holds in every state."""
    db = world.db
    assert not db.execute("PRAGMA foreign_key_check").fetchall()
    for column, table, most in (
        ("failures", "lockouts", 100),
        ("count(*)", "tokens WHERE user_id IS NOT NULL GROUP BY user_id", 3),
        ("count(*)", "codes JOIN code_sets USING (set_id) GROUP BY serial", 50 * 9),
        ("count(*)", "codes WHERE state = 'live' GROUP BY set_id", 50),
    ):
        for (value,) in db.execute(f"SELECT {column} FROM {table}"):  # noqa: S608
            assert value <= most
    # One can always create administrators; none with a session is gone or disabled.
    begun = db.execute("SELECT 1 FROM policy").fetchone()
    assert begun == (
        db.execute(
            "SELECT 1 FROM administrators WHERE role = 'super_admin' AND enabled"
        ).fetchone()
    )
    assert not db.execute(
        "SELECT 1 FROM sessions LEFT JOIN administrators ON name = administrator "
        "WHERE enabled IS NOT 1"
    ).fetchone()
    # A used code records its use; no other does.
    for state, used_at_ms in db.execute("SELECT state, used_at_ms FROM codes"):
        assert (state == "used") == (used_at_ms is not None)
    previous = GENESIS_HASH
    for event, hashed in chain(db):
        previous = chain_hash(previous, event)
        assert hashed == previous


def assert_replays(world: World) -> None:
    """Check that the log makes the same state again, entry by entry."""
    other = world.replayed()
    assert other.machine.digest() == world.machine.digest()
    assert other.machine._audit.head == world.machine._audit.head


@LIVES
@given(st.lists(ANYTHING, max_size=25))
def test_any_history_gives_a_sound_state_and_replays(life: Any) -> None:
    """
    Random histories: apply never raises, and a replay gives the same digest (U1).

    Each accepted emergency code is a different one: there are as many used codes as
    acceptances in the audit log (A3).
    """
    world = World()
    for directive, arguments in (*BEGINNING, *life):
        if directive in {"begin", "wait"}:
            world.handle(directive, arguments)
        else:
            assert_answered(world.apply(world.call(directive, arguments)))
    assert_sound(world)
    assert_replays(world)
    (accepted,) = world.db.execute(
        "SELECT count(*) FROM audit_events WHERE action = 'Authenticate' "
        "AND outcome = 'accepted' AND detail LIKE '%factor emergency%'"
    ).fetchone()
    (used,) = world.db.execute(
        "SELECT count(*) FROM codes WHERE state = 'used'"
    ).fetchone()
    # A deleted token takes its codes with it, and a fixed one is not used up (I11).
    if any(directive in {"delete-token", "issue-fixed"} for directive, _ in life):
        assert used <= accepted
    else:
        assert used == accepted


@LIVES
@given(st.lists(ANYTHING, max_size=25), st.sampled_from(["restore", "recover"]))
def test_nothing_of_the_old_epoch_is_left_in_a_new_one(life: Any, cause: str) -> None:
    """
    (E1, E2) After any history: no live code, session, request id or unspent step.

    And no agent is served: neither its codes nor its guesses are judged.
    """
    world = World()
    for directive, arguments in (*BEGINNING, *life):
        world.handle(directive, dict(arguments))
    begun = world.call("begin-epoch", {"cluster": "c9", "cause": cause})
    assert world.apply(begun) == Applied(index=world.index)
    db = world.db
    assert not db.execute(
        "SELECT 1 FROM codes JOIN code_sets USING (set_id) WHERE state = 'live' "
        "AND (ends_at_ms IS NULL OR ends_at_ms > ?)",
        (world.machine.now_ms,),
    ).fetchone()
    for table in ("sessions", "approvals", "consumed_drafts", "consumed_challenges"):
        assert not db.execute(f"SELECT 1 FROM {table}").fetchone()  # noqa: S608
    requests = db.execute("SELECT request_id FROM requests").fetchall()
    assert requests == [(begun.request.request_id,)]
    for algorithm, period_s, drift, spent, out_of_step in db.execute(
        "SELECT algorithm, period_s, drift, spent, out_of_step FROM tokens"
    ):
        if algorithm == "hotp":
            assert out_of_step
        else:
            now = world.machine.now_ms // (1_000 * period_s) + drift
            assert spent >= now + world.policy.totp_window_steps
    served = world.call("authenticate", {"user": "alice", "pin": "1234", "code": "A/1"})
    assert world.apply(served) == NOT_OPEN
    assert_replays(world)


def assert_answered(result: Result) -> None:
    """Check that the result can be remembered and sent."""
    assert from_json(to_json(result)) == result


# --- Commands that no node would send

INTEGERS = st.one_of(
    st.sampled_from([0, 1, 2, 6, 8, 30, START_MS]), st.integers(-(2**63), 2**63 - 1)
)
WORDS = st.one_of(
    st.sampled_from(
        ["", "alice", "bob", "u-alice", "1001", "1002", "A", "s1", "vpn", "root", "c1"]
    ),
    # The log is protobuf, which has no surrogates.
    st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=5),
)
BYTES = st.one_of(
    st.sampled_from([b"", b"right", b"tag alice", b"code A A/1"]), st.binary(max_size=4)
)


def anything_of(kind: Any) -> Any:
    """Draw a value of a field's type; of a dataclass field by field."""
    kind = getattr(kind, "__supertype__", kind)
    origin = typing.get_origin(kind)
    if origin in {typing.Union, types.UnionType}:
        return st.one_of(*(anything_of(each) for each in typing.get_args(kind)))
    if origin is tuple:
        return st.lists(anything_of(typing.get_args(kind)[0]), max_size=2).map(tuple)
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        return st.builds(kind, **{name: anything_of(hints[name]) for name in hints})
    if issubclass(kind, enum.Enum):
        return st.sampled_from(kind)
    return {
        int: INTEGERS,
        str: WORDS,
        bytes: BYTES,
        bool: st.booleans(),
        type(None): st.none(),
    }[kind]


def level_of(command: Any) -> int:
    """Return the feature level that a command begins or raises."""
    report = getattr(command, "level", None), getattr(command, "feature_level", None)
    return max(level or 0 for level in report)


MAD_CALLS = st.lists(
    st.one_of(*(anything_of(each) for each in typing.get_args(Command)))
    # An unknown level stops the node, as intended.
    .filter(lambda each: level_of(each) <= NEWEST)
    .flatmap(
        lambda command: st.builds(
            Call,
            command=st.just(command),
            request=anything_of(typing.get_type_hints(Call)["request"]),
            node_id=WORDS,
            session_id=st.sampled_from(["s1", "s1", "s1", ""]),
            at_ms=st.one_of(st.just(START_MS), INTEGERS),
        )
    ),
    max_size=6,
)


@LIVES
@given(st.booleans(), st.lists(MAD_CALLS, max_size=4))
def test_apply_never_raises(begun: bool, entries: Any) -> None:
    """Total: any command with any values has a result, and replays (U1)."""
    world = World()
    if begun:
        for directive, arguments in BEGINNING:
            world.handle(directive, dict(arguments))
    for calls in entries:
        results = world.apply_batch(calls)
        assert len(results) == len(calls)
        for result in results:
            assert_answered(result)
    assert_sound(world)
    assert_replays(world)
