# SPDX-License-Identifier: Apache-2.0
"""The charts of the dashboard: drawn by the server, and in words as a table."""

import re

import pytest

from sparecode_node.console.kit.charts import HEIGHT, draw
from sparecode_node.domain.administrators import Role
from sparecode_node.domain.policy import DAY_MS
from sparecode_node.services.emergency.emergency_access import Lifetime
from tests.console.desk import Desk
from tests.services.one_node import PIN

RECTANGLE = re.compile(r'<rect class="(up|down)"')


def test_bars_are_on_one_scale_on_both_sides_of_a_line() -> None:
    chart = draw([6, 0, 3], [0, 3, 0])
    assert chart.line == pytest.approx(HEIGHT * 6 / 9, abs=0.01)
    assert [(each.kind, round(each.height)) for each in chart.bars] == [
        ("up", 67),
        ("up", 33),
        ("down", 33),
    ]
    assert [each.x for each in chart.bars] == [1, 21, 11]
    assert all(0 <= each.y <= HEIGHT for each in chart.bars)


def test_one_among_thousands_is_seen() -> None:
    (_, small) = draw([100_000], [1]).bars
    assert small.kind == "down"
    assert small.height >= 1


def test_nothing_is_no_chart() -> None:
    assert draw([0, 0], [0, 0]).is_empty


@pytest.mark.asyncio
async def test_the_dashboard_shows_sign_ins_and_codes_as_charts_and_tables(
    desk: Desk,
) -> None:
    node = desk.node
    browser = await desk.administrator()
    page = await browser.open("/")
    assert "No user has signed in yet" in page.text
    assert not RECTANGLE.search(page.response.text)
    issued = await node.issue(
        count=3, lifetime=Lifetime(duration_ms=3 * DAY_MS + 60_000)
    )
    assert await node.accepts(PIN + issued.codes[0].code)
    assert not await node.accepts(PIN + "000000")
    page = await browser.open("/")
    assert "1 accepted 1 refused" in page.text
    assert "3 issued 1 used" in page.text
    assert "1 users in 7 days" not in page.text
    assert "1 user in 7 days" in page.text
    assert "4 days alice" in page.text
    kinds = RECTANGLE.findall(page.response.text)
    assert (kinds.count("up"), kinds.count("down")) == (3, 2)
    assert page.text.count("Hour from") == 2


@pytest.mark.asyncio
async def test_roles_that_read_users_see_the_charts(desk: Desk) -> None:
    browser = await desk.administrator()
    for role in Role:
        for db in (desk.node.primary_db, desk.node.local_db):
            db.execute("UPDATE administrators SET role = ?", (role.value,))
        page = await browser.open("/")
        assert page.status == 200
        assert ("Sign-ins, last 24 hours" in page.text) == (role is not Role.OPERATOR)
