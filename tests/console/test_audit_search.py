# SPDX-License-Identifier: Apache-2.0
"""The audit log's page after years: it shows what it has, and a link searches further."""

import re

import pytest

from sparecode_node.console.kit.words import explain
from sparecode_node.console.pages import audit as page_of_log
from sparecode_node.queries import audit
from sparecode_node.queries.segments import MissingSegmentError
from tests.console.desk import Desk
from tests.console.paper import Page

pytestmark = pytest.mark.asyncio

BOUND = 4


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "SEARCHED_MAX", BOUND)
    monkeypatch.setattr(page_of_log, "CALLS", 2)
    monkeypatch.setattr(page_of_log, "PAGE_SIZE", 3)


def shown(page: Page) -> list[int]:
    return [int(each) for each in re.findall(r"#([0-9]+)", page.text)]


def sequences(desk: Desk, action: str = "") -> list[int]:
    rows = desk.node.local_db.execute(
        "SELECT sequence FROM audit_events WHERE ? IN ('', action) "
        "ORDER BY sequence DESC",
        (action,),
    )
    return [sequence for (sequence,) in rows]


async def test_a_rare_event_is_found_by_searching_further(desk: Desk) -> None:
    """Without a script, and nothing is left out or comes twice."""
    browser = await desk.administrator()
    first = sequences(desk)[0]
    page = await browser.open("/audit?action=InitializeCluster")
    assert "No events match so far." in page.text
    assert f"#{first}" not in page.text
    visits, found = 1, shown(page)
    while "Search further" in page.text:
        assert re.search(
            r"Searched back to \d{4}-\d\d-\d\d \d\d:\d\d:\d\d \(UTC\)\.", page.text
        )
        page = await browser.open(page.links["Search further"])
        found += shown(page)
        visits += 1
    assert found == sequences(desk, "InitializeCluster")
    assert visits == -(-first // (2 * BOUND))


async def test_a_full_page_has_the_usual_links(desk: Desk) -> None:
    browser = await desk.administrator()
    page = await browser.open("/audit")
    assert shown(page) == sequences(desk)[:3]
    assert "Next page" in page.text
    assert "Search further" not in page.text


async def test_a_page_has_what_all_of_its_calls_have_found(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page_of_log, "PAGE_SIZE", 20)
    browser = await desk.administrator()
    page = await browser.open("/audit")
    assert shown(page) == sequences(desk)[: 2 * BOUND]
    assert "Search further" in page.text


async def test_a_search_that_ends_says_that_nothing_matches(desk: Desk) -> None:
    browser = await desk.administrator()
    page = await browser.open("/audit?action=Never&end=2000-01-01")
    assert "No events match." in page.text
    assert "Searched back" not in page.text


async def test_what_was_found_stays_when_a_later_call_fails(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It must not look as if there were no further events."""
    browser = await desk.administrator()
    rare = sequences(desk)[1]
    read = audit.page
    calls = 0

    async def failing(*values, **options):
        nonlocal calls
        calls += 1
        if calls == 2:
            raise MissingSegmentError(1, 2)
        return await read(*values, **options)

    monkeypatch.setattr(audit, "page", failing)
    monkeypatch.setattr(page_of_log, "PAGE_SIZE", 9)
    page = await browser.open("/audit")
    assert rare in shown(page)
    assert explain(MissingSegmentError(1, 2), {}).words in page.text
    assert "Search further" in page.text
    calls = 1
    page = await browser.open("/audit?action=Never")
    assert "No events match" not in page.text


@pytest.mark.parametrize(
    ("tag", "words"), [("de", "Weiter suchen"), ("ar", "متابعة البحث")]
)
async def test_the_link_is_in_the_language_of_the_page(
    desk: Desk, tag: str, words: str
) -> None:
    browser = await desk.administrator()
    browser.client.headers["accept-language"] = tag
    page = await browser.open("/audit?action=InitializeCluster")
    assert words in page.text
