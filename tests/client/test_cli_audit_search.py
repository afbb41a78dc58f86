# SPDX-License-Identifier: Apache-2.0
"""`sparecode audit list` through years: many calls, progress, and an end before the end."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from sparecode.v1 import audit_pb2 as pb
from sparecode_client.cli.commands import audit_search
from sparecode_client.values.audit import AuditEvent, AuditPage
from sparecode_client.values.results import ReadPosition
from tests.client.conftest import Cli
from tests.client.fakes import NO_QUORUM_FOR_LONG

LIST = "AuditService/ListAuditEvents"
BEGIN = datetime(2025, 6, 1, tzinfo=UTC)


def page(*events: int, searched_to: int = 0, following: str = "t"):
    """Return a page; without *searched_to* it is the last one."""
    answer = pb.ListAuditEventsResponse(
        events=[pb.AuditEvent(sequence=number, action="A") for number in events]
    )
    if searched_to:
        answer.next_page_token = following
        answer.searched_to_sequence = searched_to
        answer.searched_to_time.FromDatetime(BEGIN + timedelta(seconds=searched_to))
    return answer


def shown(output: str) -> list[int]:
    return [int(line.split()[0]) for line in output.splitlines() if "  A" in line]


def test_a_search_goes_on_until_it_has_enough(cli: Cli) -> None:
    cli.node.answer(
        LIST,
        page(searched_to=900, following="a"),
        page(850, searched_to=800, following="b"),
        page(searched_to=700, following="c"),
        page(640, searched_to=640, following="d"),
    )

    result = cli("audit", "list", "--action", "A", "--limit", "2")

    assert shown(result.stdout) == [850, 640]
    assert result.stderr == "There are more than 2 events: see --limit.\n"
    requests = cli.node.requests(LIST)
    assert [each.page_token for each in requests] == ["", "a", "b", "c"]
    assert [each.page_size for each in requests] == [2, 2, 1, 1]


def test_a_search_goes_on_to_the_end_of_the_log(cli: Cli) -> None:
    cli.node.answer(LIST, page(searched_to=900), page(searched_to=800), page(3))
    result = cli("audit", "list")
    assert shown(result.stdout) == [3]
    assert result.stderr == ""
    cli.node.answer(LIST, page(searched_to=900), page())
    assert cli("audit", "list").stderr == "No events match.\n"


def test_a_full_page_that_may_be_the_last_one_promises_no_more(cli: Cli) -> None:
    """The node has looked at more events than it found."""
    cli.node.answer(LIST, page(850, searched_to=800))
    result = cli("audit", "list", "--limit", "1", columns=200)
    assert result.stderr == (
        "Searched back to event 800 (2025-06-01 00:13:20 UTC). "
        "For further events see --limit.\n"
    )


def test_a_long_search_tells_in_a_pipe_how_far_it_is(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once in a while: a log of years takes hundreds of calls."""
    monkeypatch.setattr(audit_search, "NOTED_CALLS", 2)
    pages = [page(searched_to=number) for number in (900, 800, 700, 600, 500)]
    cli.node.answer(LIST, *pages, page(1))
    notes = cli("audit", "list").stderr.splitlines()
    assert notes == [
        "Searched back to event 800 (2025-06-01 00:13:20 UTC).",
        "Searched back to event 600 (2025-06-01 00:10:00 UTC).",
    ]


def test_a_terminal_shows_how_far_the_search_is(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    cli.node.answer(LIST, page(searched_to=900), page(1))
    result = cli("audit", "list", "--from", "1", columns=120)
    assert "Searched up to event 900 (2025-06-01 00:15:00 UTC)" in result.stderr
    assert "Ctrl-C shows what was found" in result.stderr
    assert "Searched" not in result.stdout


Interrupted = Callable[[], None]


@pytest.fixture
def interrupted(monkeypatch: pytest.MonkeyPatch) -> Interrupted:
    """Return a function that lets Ctrl-C come while the second page is fetched."""

    def prepare() -> None:
        pages = iter(
            [
                AuditPage(
                    items=(EVENT,),
                    next_page_token="t",
                    position=ReadPosition(node_id="n1", applied_index=9, stale=False),
                    searched_to_sequence=800,
                    searched_to_time=BEGIN,
                )
            ]
        )

        def call(*_: object, **__: object) -> AuditPage:
            try:
                return next(pages)
            except StopIteration:
                raise KeyboardInterrupt from None

        monkeypatch.setattr("sparecode_client.blocking.Admin.list_audit_events", call)

    return prepare


EVENT = AuditEvent(
    sequence=850,
    time=BEGIN,
    actor="node:n1",
    node_id="n1",
    action="A",
    target="",
    outcome="noted",
    reason="",
    detail="",
    previous_hash="",
    hash="",
)


def test_ctrl_c_shows_what_was_found(cli: Cli, interrupted: Interrupted) -> None:
    """And how to go on, so the search of years need not begin again."""
    interrupted()
    result = cli("audit", "list", columns=200)
    assert result.exit_code == 130
    assert shown(result.stdout) == [850]
    assert result.stderr == (
        "Interrupted. Searched back to event 800 (2025-06-01 00:00:00 UTC). "
        "Go on with --until 2025-06-01T00:00:00.001000Z.\n"
    )
    interrupted()
    result = cli("audit", "list", "--from", "1", columns=200)
    assert result.stderr.endswith("Go on with --from 801.\n")


def test_a_program_gets_what_was_found_before_ctrl_c(
    cli: Cli, interrupted: Interrupted
) -> None:
    interrupted()
    result = cli("audit", "list", "--output", "json")
    assert result.exit_code == 130
    assert '"complete": false' in result.stdout
    assert '"searched_to_sequence": 800' in result.stdout
    assert '"searched_to_time": "2025-06-01T00:00:00Z"' in result.stdout
    assert '"sequence": 850' in result.stdout


def test_a_search_that_breaks_off_shows_what_it_found(cli: Cli) -> None:
    """And fails all the same: a script must not take it for the end of the log."""
    cli.node.answer(LIST, page(850, searched_to=800), NO_QUORUM_FOR_LONG)
    result = cli("audit", "list", columns=200)
    assert result.exit_code == 3
    assert shown(result.stdout) == [850]
    assert "The search broke off. Searched back to event 800" in result.stderr
    cli.node.answer(LIST, NO_QUORUM_FOR_LONG)
    result = cli("audit", "list")
    assert (result.exit_code, result.stdout) == (3, "")
    assert "Searched" not in result.stderr
