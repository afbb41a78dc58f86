# SPDX-License-Identifier: Apache-2.0
"""Sign-ins, refusals and codes per hour: each event is counted once, a bounded number at once."""

import pytest

from sparecode_node.domain.policy import HOUR_MS
from sparecode_node.queries.activity import HOURS, Counts
from sparecode_node.services.access.authorization import SHOW_ACTIVITY
from sparecode_node.services.cluster.activity import Activity, Day
from tests.services.one_node import PIN, OneNode

pytestmark = pytest.mark.asyncio


async def day(node: OneNode, activity: Activity | None = None) -> Day:
    shown = activity or node.services.activity
    return (await shown.day(node.admin(SHOW_ACTIVITY))).value


def bounded(node: OneNode, rows: int) -> Activity:
    return Activity(reader=node.services.activity._reader, rows=rows)


def total(shown: Day) -> Counts:
    return sum((counts for _, counts in shown.hours), Counts())


async def test_sign_ins_refusals_and_codes_are_counted_by_the_hour(
    node: OneNode,
) -> None:
    await node.add_user()
    assert await node.accepts(PIN + node.tokencode())
    node.clock.pass_s(60)
    assert not await node.accepts("4444" + node.tokencode())
    node.clock.pass_s(3600)
    await node.login()
    issued = await node.issue(count=3)
    assert await node.accepts(PIN + issued.codes[0].code)
    assert not await node.accepts(PIN + issued.codes[0].code)
    shown = await day(node)
    assert len(shown.hours) == HOURS
    assert [begin for begin, _ in shown.hours] == list(
        range(shown.hours[0][0], shown.hours[-1][0] + 1, HOUR_MS)
    )
    assert shown.complete
    assert [counts for _, counts in shown.hours[-2:]] == [
        Counts(accepted=1, refused=1),
        Counts(accepted=1, refused=1, issued=3, used=1),
    ]
    assert total(shown) == Counts(accepted=2, refused=2, issued=3, used=1)


async def test_a_later_call_counts_only_what_is_new(node: OneNode) -> None:
    await node.add_user()
    for _ in range(3):
        await day(node)
    assert await node.accepts(PIN + node.tokencode())
    assert total(await day(node)) == Counts(accepted=1)
    assert total(await day(node)) == Counts(accepted=1)
    node.clock.pass_s(HOURS * 3600)
    await node.login()
    assert total(await day(node)) == Counts()


async def test_one_call_counts_a_bounded_number_of_events(node: OneNode) -> None:
    """The newest first; later calls count older ones, until the day is complete."""
    await node.add_user()
    for _ in range(4):
        node.clock.pass_s(30)
        assert await node.accepts(PIN + node.tokencode())
    activity = bounded(node, 2)
    shown = await day(node, activity)
    assert (total(shown).accepted, shown.complete) == (2, False)
    assert shown.hours[0][0] < shown.from_ms <= node.clock.now
    assert total(await day(node, activity)).accepted == 4
    for _ in range(20):
        shown = await day(node, activity)
    assert (total(shown).accepted, shown.complete) == (4, True)


async def test_after_many_new_events_counting_starts_again_at_the_end(
    node: OneNode,
) -> None:
    await node.add_user()
    activity = bounded(node, 3)
    await day(node, activity)
    for _ in range(5):
        node.clock.pass_s(30)
        assert await node.accepts(PIN + node.tokencode())
    shown = await day(node, activity)
    assert (total(shown).accepted, shown.complete) == (3, False)


async def test_another_log_is_counted_from_its_own_events(node: OneNode) -> None:
    """A snapshot of another chain leaves nothing of the counts before."""
    await node.add_user()
    assert await node.accepts(PIN + node.tokencode())
    assert total(await day(node)).accepted == 1
    for db in (node.primary_db, node.local_db):
        db.execute("UPDATE audit_events SET hash = zeroblob(32), action = 'Other'")
        db.commit()
    assert total(await day(node)) == Counts()
