# SPDX-License-Identifier: Apache-2.0
"""Any commands on channels and notices: apply never raises, and the outbox adds up (N1, N2)."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparecode_node.domain.ids import KeyId, NameKey
from sparecode_node.domain.notices import ChannelKind, EventClass
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
