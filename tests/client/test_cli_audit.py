# SPDX-License-Identifier: Apache-2.0
"""`sparecode audit`: what people and programs read."""

from datetime import UTC, datetime, timedelta

import pytest

from sparecode.v1 import audit_pb2
from tests.client import answers
from tests.client.conftest import Cli

LIST = "AuditService/ListAuditEvents"


def test_events_are_readable_at_80_columns(cli: Cli) -> None:
    cli.node.answer(LIST, answers.AUDIT)

    lines = cli("audit", "list").stdout.splitlines()

    assert lines == [
        "   1043  2026-12-01 12:00:00 UTC  Authenticate alice: refused (wrong_pin)",
        "         by agent:spiffe://example.com/vpn on n3; token 000123456789, factor",
        "         emergency, client 192.0.2.1, resource the mail of everybody in the",
        "         office",
        "   1042  2026-12-01 11:58:30 UTC  UnlockUser alice: applied",
        "         by administrator:root on n2",
    ]
    assert max(map(len, lines)) <= 80


def test_events_as_json(cli: Cli) -> None:
    cli.node.answer(LIST, answers.AUDIT)

    answer = cli.json("audit", "list")

    assert answer["complete"] is True
    assert answer["events"][0] == {
        "sequence": 1043,
        "time": "2026-12-01T12:00:00Z",
        "actor": "agent:spiffe://example.com/vpn",
        "node_id": "n3",
        "action": "Authenticate",
        "target": "alice",
        "outcome": "refused",
        "reason": "wrong_pin",
        "detail": "token 000123456789, factor emergency, client 192.0.2.1, "
        "resource the mail of everybody in the office",
        "previous_hash": (b"p" * 32).hex(),
        "hash": (b"h" * 32).hex(),
    }


def test_every_filter_is_sent(cli: Cli) -> None:
    """A duration counts back from now, a moment is one."""
    cli.node.answer(LIST, answers.AUDIT)
    before = datetime.now(UTC)

    cli(
        *("audit", "list", "--since", "1d", "--until", "2026-12-02T00:00Z"),
        *("--actor", "a", "--action", "b", "--target", "c"),
        *("--outcome", "d", "--reason", "e", "--from", "7", "--limit", "2"),
        "--stale-ok",
    )

    (request,) = cli.node.requests(LIST)
    wanted = request.filter
    since = wanted.start_time.ToDatetime(tzinfo=UTC)
    assert abs(since - (before - timedelta(days=1))) < timedelta(minutes=5)
    assert wanted.end_time.ToJsonString() == "2026-12-02T00:00:00Z"
    assert (wanted.actor, wanted.action, wanted.target) == ("a", "b", "c")
    assert (wanted.outcome, wanted.reason) == ("d", "e")
    assert (request.from_sequence, request.page_size, request.stale_ok) == (7, 2, True)


def test_list_says_when_there_is_more_or_nothing(cli: Cli) -> None:
    more = audit_pb2.ListAuditEventsResponse(
        events=answers.AUDIT.events[:1], next_page_token="t"
    )
    cli.node.answer(LIST, more, audit_pb2.ListAuditEventsResponse())

    assert "more than 1 event: see --limit" in cli("audit", "list", "--limit=1").stderr
    assert "no such events" in cli("audit", "list").stderr


def test_an_event_cannot_command_the_terminal(cli: Cli) -> None:
    """Whoever chooses a name does not choose the auditor's screen, nor its lines."""
    evil = "x\x1b[2J\n      1  2026-12-01 12:00:00 UTC  Forged root: applied"
    event = audit_pb2.AuditEvent(sequence=9, action="A", target=evil, detail=evil)
    cli.node.answer(LIST, audit_pb2.ListAuditEventsResponse(events=[event]))

    shown = cli("audit", "list").stdout

    assert "\x1b" not in shown
    assert not any(line.lstrip().startswith("1  ") for line in shown.splitlines())


@pytest.mark.parametrize("argument", ["--from=0", "--since=yesterday"])
def test_wrong_usage(cli: Cli, argument: str) -> None:
    assert cli("audit", "list", argument).exit_code == 2
