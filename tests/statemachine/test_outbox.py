# SPDX-License-Identifier: Apache-2.0
"""Any commands on channels and notices: apply never raises, and the outbox adds up (N1, N2)."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparecode_node.domain.audit import AuditEvent
from sparecode_node.domain.ids import KeyId, NameKey
from sparecode_node.domain.notices import ChannelKind, EventClass, rank_of
from sparecode_node.domain.outcomes import Reason, Rejected
from sparecode_node.statemachine import outbox
from sparecode_node.statemachine.commands.notices import (
    AcknowledgeNotices,
    FailNotices,
    RemoveChannel,
    SaveChannel,
    SendNoticesAgain,
)
from sparecode_node.statemachine.tables import notices as tables
from tests.statemachine.test_properties import assert_answered, assert_replays
from tests.statemachine.world import KEY, World

KEPT_MAX = 6
"""Of each channel in these tests, so that it is full soon."""

CHANNELS = st.sampled_from([NameKey(name) for name in ("hook", "siem", "log")])
NUMBERS = st.lists(
    st.one_of(
        st.integers(1, 30),
        st.sampled_from([-(2**63), -1, 0, 2**31, 2**63 - 1, 2**63, 2**64, 2**200]),
    ),
    max_size=4,
).map(tuple)
VERSIONS = st.one_of(st.none(), st.sampled_from([0, 1, 2**63, -1]))
"""None: the present one."""
CLASSES = st.lists(
    st.one_of(st.sampled_from([each.value for each in EventClass]), st.just("weather")),
    max_size=3,
).map(tuple)


def changes() -> Any:
    """Draw a command, but for its version."""
    return st.one_of(
        st.builds(
            SaveChannel,
            channel=CHANNELS,
            name=st.just("Name"),
            kind=st.sampled_from(ChannelKind),
            version=st.just(0),
            enabled=st.booleans(),
            address=st.just("https://siem.example/"),
            classes=st.one_of(
                st.just(tuple(each.value for each in EventClass)), CLASSES
            ),
            allow_private=st.booleans(),
            authority=st.just(""),
            sealed_secret=st.sampled_from([None, b"", b"sealed"]),
            key_id=st.sampled_from([KEY, KeyId(0), KeyId(2**63)]),
        ),
        st.builds(RemoveChannel, channel=CHANNELS),
        st.builds(
            AcknowledgeNotices, channel=CHANNELS, numbers=NUMBERS, version=st.just(0)
        ),
        st.builds(
            FailNotices,
            channel=CHANNELS,
            numbers=NUMBERS,
            cause=st.sampled_from(["", "answered 500", "x" * 10_000]),
            disable=st.booleans(),
            version=st.just(0),
        ),
        st.builds(SendNoticesAgain, channel=CHANNELS, numbers=NUMBERS),
    )


STEPS = st.lists(
    st.one_of(
        st.tuples(changes(), VERSIONS),
        st.tuples(changes(), st.none()),
        st.just("create-user"),
        st.just("create-user"),
    ),
    max_size=40,
)


def with_version(world: World, command: Any, version: int | None) -> Any:
    if not hasattr(command, "version"):
        return command
    known = tables.find(world.db, command.channel)
    present = known.version if known else 0
    return replace(command, version=present if version is None else version)


def assert_adds_up(world: World) -> None:
    """Check the counts and bounds of each channel, and that ids are used once."""
    newest, head = tables.newest_number(world.db), tables.newest_event(world.db)
    for row in world.db.execute(
        f"SELECT {tables.COLUMNS} FROM channels"  # noqa: S608
    ).fetchall():
        channel = tables.channel_in(row)
        assert bool(channel.classes) == (channel.kind is not ChannelKind.MAIL)
        kept, position = world.db.execute(
            "SELECT kept, position FROM channels WHERE channel = ?", (channel.channel,)
        ).fetchone()
        rows = world.db.execute(
            "SELECT number, notice_id, sequence, cause FROM notices "
            "WHERE channel = ? ORDER BY number",
            (channel.channel,),
        ).fetchall()
        assert kept == len(rows) <= KEPT_MAX
        assert 0 <= position <= head
        assert len({notice_id for _, notice_id, *_ in rows}) == len(rows)
        assert [each[2] for each in rows] == sorted(each[2] for each in rows)
        assert all(number <= newest for number, *_ in rows)
        assert all(len(cause) <= 400 for *_, cause in rows)
    (orphans,) = world.db.execute(
        "SELECT count(*) FROM notices WHERE channel NOT IN (SELECT channel FROM channels)"
    ).fetchone()
    assert orphans == 0
    assert_senders_add_up(world)


def assert_senders_add_up(world: World) -> None:
    """Check the counts of senders, by which a full channel drops."""
    counted = world.db.execute(
        "SELECT channel, security, sender, kept FROM notice_senders ORDER BY 1, 2, 3"
    ).fetchall()
    waiting = world.db.execute(
        "SELECT channel, rank <= 2, actor, count(*) FROM notices "
        "GROUP BY 1, 2, 3 ORDER BY 1, 2, 3"
    ).fetchall()
    assert counted == waiting
    for channel, security in world.db.execute("SELECT channel, security FROM channels"):
        assert security == sum(
            each[3] for each in waiting if each[0] == channel and each[1]
        )


@settings(max_examples=40, deadline=None)
@given(STEPS)
def test_any_commands_leave_an_outbox_that_adds_up(steps: Any) -> None:
    """(N1, N2) No number, kind, class or version breaks a node, or skips an event."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(outbox, "NOTICES_MAX", KEPT_MAX)
        world = World()
        for directive, arguments in (
            ("begin", {}),
            ("raise-feature-level", {"level": "2"}),
        ):
            world.handle(directive, arguments)
        for place, step in enumerate(steps):
            if step == "create-user":
                call = world.call("create-user", {"name": f"user{place}"})
            else:
                call = replace(
                    world.call("send-again", {"name": "any"}),
                    command=with_version(world, *step),
                )
            assert_answered(world.apply(call))
            assert_adds_up(world)
        assert_replays(world)


@pytest.mark.parametrize("kind", ["webhook", "syslog"])
@pytest.mark.parametrize("number", [-1, 0, 10_000, 2**63 - 1, 2**63])
def test_what_has_not_happened_is_not_acknowledged(kind: str, number: int) -> None:
    """(N2) Otherwise a stream would leave out all events up to this number."""
    world = World()
    world.handle("begin", {})
    world.handle("raise-feature-level", {"level": "2"})
    world.handle(
        "save-channel", {"name": "siem", "kind": kind, "tells": "tokens", "secret": "x"}
    )
    world.handle("create-user", {"name": "alice"})
    before = world.db.execute("SELECT position, kept FROM channels").fetchall()
    for directive in ("acknowledge", "fail-notices", "send-again"):
        refused = world.apply(
            world.call(
                directive, {"name": "siem", "numbers": str(number), "cause": "x"}
            )
        )
        assert isinstance(refused, Rejected)
        assert refused.reason is Reason.NOTICE_UNKNOWN
        assert str(number) in refused.detail
    after = world.db.execute("SELECT position, kept FROM channels").fetchall()
    assert after == before


def listening(**settings: str) -> World:
    """Return a world with a channel that tells every class."""
    world = World()
    world.handle("begin", {})
    world.handle("raise-feature-level", {"level": "2"})
    every = "+".join(each.value for each in EventClass)
    world.handle(
        "save-channel",
        {"name": "siem", "kind": "webhook", "tells": every, "secret": "x", **settings},
    )
    return world


def waiting(world: World) -> list[tuple[str, str]]:
    return world.db.execute(
        "SELECT actor, action FROM notices ORDER BY number"
    ).fetchall()


def tell(world: World, number: int, actor: str, action: str) -> None:
    outbox.offer(
        world.db,
        AuditEvent(
            sequence=number,
            at_ms=number,
            actor=actor,
            node="n1",
            action=action,
            target="",
            outcome="applied",
        ),
        index=1_000_000,
        number=number,
    )


def test_an_operator_who_sends_nothing_again_pushes_no_notice_out() -> None:
    """The attack: 400 calls a second, each an event, and the queue was the operator's."""
    world = listening()
    for number in range(20):
        world.handle("create-user", {"name": f"user{number}"})
    before = waiting(world), tables.newest_event(world.db)
    for number in range(3000):
        refused = world.apply(world.call("send-again", {"name": "siem"}))
        assert isinstance(refused, Rejected), number
        assert refused.reason is Reason.NOTICE_UNKNOWN
        assert "nothing to send again" in refused.detail
        if number % 1000 == 0:
            world.handle("wait", {"2m": ""})
    assert (waiting(world), tables.newest_event(world.db)) == before


SENDERS = st.sampled_from(["administrator:root", "administrator:eve", "agent:vpn"])
ACTIONS = st.sampled_from(
    ["UpdateAgent", "CreateUser", "SET_ENDED", "Authenticate", "ReplaceSeals"]
)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(SENDERS, ACTIONS), max_size=60))
def test_a_full_channel_drops_of_the_sender_with_the_most(
    events: list[tuple[str, str]],
) -> None:
    """(N2) So an unrelated sender loses nothing; compared with a plain model of the rule."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(outbox, "NOTICES_MAX", KEPT_MAX)
        world = listening()
        tables.acknowledge(world.db, NameKey("siem"), range(1, 10))
        kept: list[tuple[str, str]] = []
        for number, event in enumerate(events, start=1):
            tell(world, number, *event)
            kept.append(event)
            if len(kept) > KEPT_MAX:
                secure = [each for each in kept if rank_of(each[1]) <= 2]
                others = [each for each in kept if rank_of(each[1]) > 2]
                pool = secure if 2 * len(secure) > len(kept) else others
                senders = [sender for sender, _ in pool]
                loser = min(senders, key=lambda each: (-senders.count(each), each))
                kept.remove(
                    max(
                        (each for each in pool if each[0] == loser),
                        key=lambda each: rank_of(each[1]),
                    )
                )
            assert waiting(world) == kept
        assert_senders_add_up(world)


@pytest.mark.parametrize("action", ["UpdateAgent", "Authenticate", "SET_ENDED"])
def test_a_flood_pushes_out_only_notices_of_its_sender(
    action: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """(N2) Of a class that is as important as those of the others, too."""
    monkeypatch.setattr(outbox, "NOTICES_MAX", 100)
    world = listening()
    tables.acknowledge(world.db, NameKey("siem"), range(1, 10))
    for number in range(1, 21):
        tell(world, number, f"administrator:{number % 2}", "UpdatePolicy")
        tell(world, number + 20, f"agent:{number % 2}", "Authenticate")
    others = waiting(world)
    for number in range(100, 2100):
        tell(world, number, "administrator:mallory", action)
    assert waiting(world)[:40] == others
    assert waiting(world)[40:] == [("administrator:mallory", action)] * 60


def test_sign_ins_of_many_senders_leave_security_notices_their_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """(N2) Each agent has fewer waiting than the administrator, who loses none all the same."""
    monkeypatch.setattr(outbox, "NOTICES_MAX", 100)
    world = listening()
    tables.acknowledge(world.db, NameKey("siem"), range(1, 10))
    for number in range(1, 51):
        tell(world, number, "administrator:root", "UpdatePolicy")
    for number in range(100, 2100):
        tell(world, number, f"agent:{number}", "Authenticate")
    assert [sender for sender, _ in waiting(world)[:50]] == ["administrator:root"] * 50
    assert len(waiting(world)) == 100
