# SPDX-License-Identifier: Apache-2.0
"""`sparecode audit`: tables, JSON and files."""

import json
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from sparecode.v1 import audit_pb2
from sparecode_client.cli.commands.audit_files import show_key
from sparecode_node.services.cluster import checkpoints
from tests.client import answers
from tests.client.audit_files import (
    OTHER_RING,
    RING,
    log,
    signed,
    write,
    write_archive,
    write_checkpoint,
)
from tests.client.conftest import Cli
from tests.client.fakes import NO_QUORUM_FOR_LONG
from tests.client.test_lost_events import whole, without

LIST = "AuditService/ListAuditEvents"
EXPORT = "AuditService/ExportAuditEvents"
CHECKPOINT = "AuditService/GetCheckpoint"
VERIFY = "AuditService/VerifyChain"


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
        "authentication_id": "a-6",
    }


def test_every_filter_is_sent(cli: Cli) -> None:
    """A duration counts back from now; a time stands for itself."""
    cli.node.answer(LIST, answers.AUDIT)
    start = datetime.now(UTC)

    cli(
        *("audit", "list", "--since", "1d", "--until", "2026-12-02T00:00Z"),
        *("--actor", "a", "--action", "b", "--target", "c"),
        *("--outcome", "d", "--reason", "e", "--from", "7", "--limit", "2"),
        *("--authentication-id", "A-6", "--stale-ok"),
    )

    (request,) = cli.node.requests(LIST)
    event_filter = request.filter
    since = event_filter.start_time.ToDatetime(tzinfo=UTC)
    assert abs(since - (start - timedelta(days=1))) < timedelta(minutes=5)
    assert event_filter.end_time.ToJsonString() == "2026-12-02T00:00:00Z"
    assert (event_filter.actor, event_filter.action, event_filter.target) == (
        "a",
        "b",
        "c",
    )
    assert (event_filter.outcome, event_filter.reason) == ("d", "e")
    assert event_filter.authentication_id == "a-6"
    assert (request.from_sequence, request.page_size, request.stale_ok) == (7, 2, True)


def test_list_notes_more_or_no_events(cli: Cli) -> None:
    more = audit_pb2.ListAuditEventsResponse(
        events=answers.AUDIT.events[:1], next_page_token="t"
    )
    cli.node.answer(LIST, more, audit_pb2.ListAuditEventsResponse())

    assert "more than 1 event: see --limit" in cli("audit", "list", "--limit=1").stderr
    assert "No events match" in cli("audit", "list").stderr


def test_an_event_cannot_control_the_terminal(cli: Cli) -> None:
    """A name with control characters cannot change the auditor's screen or fake a line."""
    evil = "x\x1b[2J\n      1  2026-12-01 12:00:00 UTC  Forged root: applied"
    event = audit_pb2.AuditEvent(sequence=9, action="A", target=evil, detail=evil)
    cli.node.answer(LIST, audit_pb2.ListAuditEventsResponse(events=[event]))

    last_line = cli("audit", "list").stdout

    assert "\x1b" not in last_line
    assert not any(line.lstrip().startswith("1  ") for line in last_line.splitlines())


@pytest.mark.parametrize("argument", ["--from=0", "--since=yesterday"])
def test_wrong_argument_is_refused(cli: Cli, argument: str) -> None:
    assert cli("audit", "list", argument).exit_code == 2


# --- Exports


def pieces(*contents: bytes) -> list[audit_pb2.ExportAuditEventsResponse]:
    return [
        audit_pb2.ExportAuditEventsResponse(
            content=content, events=1, last_sequence=number, end_sequence=2
        )
        for number, content in enumerate(contents, start=1)
    ]


def test_export_writes_a_new_file_for_its_owner_alone(cli: Cli, tmp_path: Path) -> None:
    cli.node.answer(EXPORT, (pieces(b"one\n", b"two\n"), None))
    path = tmp_path / "audit.csv"

    result = cli(
        *("audit", "export", str(path), "--format", "csv", "--from", "3"),
        *("--target", "alice"),
    )

    assert result.stdout == f"2 events written to {path}.\n"
    assert path.read_bytes() == b"one\ntwo\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    (request,) = cli.node.requests(EXPORT)
    assert request.format == audit_pb2.AUDIT_EXPORT_FORMAT_CSV
    assert (request.after_sequence, request.filter.target) == (2, "alice")


def test_export_to_the_standard_output_and_as_json(cli: Cli, tmp_path: Path) -> None:
    cli.node.answer(EXPORT, (pieces(b"one\n"), None))
    assert cli("audit", "export", "-").stdout == "one\n"
    path = tmp_path / "audit.jsonl"
    assert cli.json("audit", "export", str(path)) == {
        "file": str(path),
        "events": 1,
        "last_sequence": 1,
        "removed": None,
    }


def test_export_overwrites_nothing(cli: Cli, tmp_path: Path) -> None:
    """Repeating a command does not overwrite earlier evidence."""
    path = tmp_path / "audit.jsonl"
    path.write_text("evidence")
    for command in ("export", "checkpoint"):
        cli.node.answer(CHECKPOINT, answers.checkpoint_response(signed(log(), 4)))
        result = cli("audit", command, str(path))
        assert result.exit_code == 2
        assert "exists already" in result.stderr
    assert path.read_text() == "evidence"


def test_export_that_breaks_off_leaves_no_file(cli: Cli, tmp_path: Path) -> None:
    """A partial export cannot be mistaken for a complete one."""
    cli.node.answer(EXPORT, (pieces(b"one\n"), NO_QUORUM_FOR_LONG), NO_QUORUM_FOR_LONG)
    path = tmp_path / "audit.jsonl"
    result = cli("audit", "export", str(path))
    assert result.exit_code == 3
    assert not path.exists()


# --- Checkpoints and the chain


def test_checkpoint_is_written_and_verifies(cli: Cli, tmp_path: Path) -> None:
    """(U2)."""
    cli.node.answer(CHECKPOINT, answers.checkpoint_response(signed(log(), 8)))
    path = tmp_path / "c.json"

    result = cli("audit", "checkpoint", str(path))

    assert result.stdout.splitlines() == [
        f"Checkpoint of 8 events, 2023-11-14 22:15:00 UTC, written to {path}.",
        f"Signed with key 1: {show_key(signed(log(), 8))}",
    ]
    assert show_key(signed(log(), 8)) in checkpoints.public_keys(RING)
    export = write(tmp_path / "audit.jsonl", log())
    verified = cli("audit", "verify", str(export), "--checkpoint", str(path))
    assert verified.exit_code == 0
    assert "Proved: events 1 to 8" in verified.stdout
    on_stdout = cli("audit", "checkpoint").stdout
    assert on_stdout == path.read_text()
    assert cli.json("audit", "checkpoint", str(tmp_path / "d.json"))["sequence"] == 8


def test_check_shows_the_verdict_of_the_node(cli: Cli) -> None:
    intact = audit_pb2.VerifyChainResponse(
        verified_sequence=8, head=b"h" * 32, position=answers.POSITION
    )
    damaged = audit_pb2.VerifyChainResponse(
        verified_sequence=4,
        head=b"h" * 32,
        broken_sequence=5,
        problem="it is missing",
        position=answers.POSITION,
    )
    cli.node.answer(VERIFY, intact, damaged)
    result = cli("audit", "check")
    assert result.exit_code == 0
    assert "Node n2: the hashes of 8 events are right." in result.stdout
    result = cli("audit", "check", "--output", "json")
    assert result.exit_code == 1
    assert "event 5 is BROKEN: it is missing" in result.stderr
    assert json.loads(result.stdout)["broken_sequence"] == 5


# --- Verification, without a node


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    keys = tmp_path / "keys.pem"
    keys.write_text(checkpoints.public_keys(RING))
    others = tmp_path / "others.pem"
    others.write_text(checkpoints.public_keys(OTHER_RING))
    return {
        "log": str(write(tmp_path / "audit.jsonl", log())),
        "cut": str(write(tmp_path / "cut.jsonl", log()[:5])),
        "checkpoint": str(write_checkpoint(tmp_path / "c", signed(log(), 8))),
        "forged": str(write_checkpoint(tmp_path / "f", signed(log(), 8, OTHER_RING))),
        "keys": str(keys),
        "others": str(others),
    }


def test_verify_needs_neither_node_nor_session(
    stranger: Cli, files: dict[str, str]
) -> None:
    """(U2) Without a session, and without a call."""
    stranger.node.stop()
    result = stranger(
        *("audit", "verify", files["log"], "--checkpoint", files["checkpoint"]),
        *("--public-key", files["keys"]),
    )
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "Proved: events 1 to 8 are complete and unchanged.",
        "2 later events: consistent, but not covered by a checkpoint.",
    ]
    assert not stranger.node.calls


def test_verify_without_a_key_shows_which_to_compare(
    stranger: Cli, files: dict[str, str]
) -> None:
    """(U2) A forger can sign with a key of their own."""
    result = stranger("audit", "verify", files["log"], "--checkpoint", files["forged"])
    assert result.exit_code == 0
    assert "This holds only if your cluster has this key" in result.stdout
    last_line = result.stdout.splitlines()[-1].strip()
    assert last_line in Path(files["others"]).read_text()
    assert max(map(len, result.stdout.splitlines())) <= 80


def test_verify_trusts_only_the_given_key(stranger: Cli, files: dict[str, str]) -> None:
    """(U2)."""
    result = stranger(
        *("audit", "verify", files["log"], "--checkpoint", files["forged"]),
        *("--public-key", files["keys"]),
    )
    assert result.exit_code == 1
    assert "not in --public-key" in result.stderr
    assert "Proved" not in result.stdout


def test_verify_refuses_a_changed_checkpoint(
    stranger: Cli, files: dict[str, str]
) -> None:
    """(U2) Not even one that would hide missing events."""
    path = Path(files["checkpoint"])
    content = json.loads(path.read_text())
    content.update(sequence=5, head=log()[4].hash.hex())
    path.write_text(json.dumps(content))
    result = stranger("audit", "verify", files["cut"], "--checkpoint", str(path))
    assert result.exit_code == 1
    assert "the signature is wrong" in result.stderr


def test_verify_names_the_problem(stranger: Cli, files: dict[str, str]) -> None:
    """(U2) In the message, in JSON, and by the exit code."""
    arguments = ("audit", "verify", files["cut"], "--checkpoint", files["checkpoint"])
    result = stranger(*arguments)
    assert result.exit_code == 1
    assert "No event is proved" in result.stdout
    assert "events 6 to 8 are missing at the end" in result.stderr
    answer = json.loads(stranger(*arguments, "--output", "json").stdout)
    assert answer["proved_up_to"] == 0
    assert answer["last"] == 5
    assert (answer["problem"]["kind"], answer["problem"]["sequence"]) == ("cut", 6)
    assert answer["public_key_given"] is False


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """Return an archive of two segments of five events."""
    folder = write_archive(tmp_path / "archive", 2)
    (folder / ".half.n1.part").write_text("{")
    return folder


def test_an_archive_is_verified_without_a_node(
    stranger: Cli, files: dict[str, str], archive: Path, tmp_path: Path
) -> None:
    """(U2) Alone, and together with an export after its last event."""
    stranger.node.stop()
    verified = ("audit", "verify", "--archive", str(archive))
    keys = ("--public-key", files["keys"])
    result = stranger(*verified, *keys)
    assert result.exit_code == 0
    assert result.stdout == "Proved: events 1 to 10 are complete and unchanged.\n"
    tail = str(write(tmp_path / "tail.jsonl", log(12)[10:]))
    result = stranger(*verified[:2], tail, *verified[2:], *keys)
    assert result.exit_code == 0
    assert "2 later events: consistent" in result.stdout
    later = str(write_checkpoint(tmp_path / "later", signed(log(12), 12)))
    result = stranger(*verified[:2], tail, *verified[2:], "--checkpoint", later)
    assert "Proved: events 1 to 12" in result.stdout
    assert "This holds only if your cluster has this key" in result.stdout
    assert not stranger.node.calls


def test_a_damaged_archive_is_named_with_its_file(
    stranger: Cli, files: dict[str, str], archive: Path
) -> None:
    """(U2) Changed, without a segment, without a checkpoint, or twice."""
    arguments = ("audit", "verify", "--archive", str(archive))
    first, second = sorted(archive.glob("*.jsonl"))
    content = second.read_bytes()
    second.write_bytes(content.replace(b'"outcome":"', b'"outcome":"x', 2))
    result = stranger(*arguments)
    assert result.exit_code == 1
    assert f"{second.name}, line 1: event 6 was" in result.stderr.replace("\n", "")
    second.write_bytes(content)
    moved = first.rename(first.with_suffix(".gone"))
    result = stranger(*arguments)
    assert "The archive begins with event 6" in result.stdout
    moved.rename(first)
    twice = archive / f"00000002-{'0' * 16}.jsonl"
    twice.write_bytes(content)
    result = stranger(*arguments)
    assert result.exit_code == 2
    assert "segment 2 is there twice" in result.stderr.replace("\n", " ")
    twice.unlink()
    result = stranger(*arguments, "--public-key", files["others"])
    assert result.exit_code == 1
    assert "not in --public-key" in result.stderr
    for each in archive.glob("*.checkpoint.json"):
        each.unlink()
    assert stranger(*arguments).exit_code == 2


def test_a_segment_that_a_node_is_writing_is_left_out(
    stranger: Cli, files: dict[str, str], archive: Path
) -> None:
    """(U2) Its checkpoint comes last. An earlier one without it is a problem."""
    arguments = ("audit", "verify", "--archive", str(archive))
    first, second = sorted(archive.glob("*.checkpoint.json"))
    moved = second.rename(second.with_suffix(".gone"))
    result = stranger(*arguments, "--public-key", files["keys"])
    assert result.exit_code == 0
    assert "Proved: events 1 to 5 are complete" in result.stdout
    assert "Segment 2 has no checkpoint yet, and was left out." in result.stdout
    answer = json.loads(stranger(*arguments, "--output", "json").stdout)
    assert answer["unfinished_segment"] == 2
    moved.rename(second)
    first.unlink()
    assert stranger(*arguments).exit_code == 2
    for each in archive.glob("00000002-*"):
        each.unlink()
    result = stranger(*arguments)
    assert result.exit_code == 2
    assert "the only segment has no checkpoint yet" in result.stderr.replace("\n", " ")


def test_verify_names_what_was_declared_lost(stranger: Cli, tmp_path: Path) -> None:
    """(U2) In words and in JSON; it is no problem."""
    records = whole()
    file = write(tmp_path / "gap.jsonl", without(records))
    checkpoint = write_checkpoint(tmp_path / "at10", signed(records, 10))
    arguments = ("audit", "verify", str(file), "--checkpoint", str(checkpoint))
    result = stranger(*arguments)
    assert result.exit_code == 0
    assert "Events 4 to 6 were declared lost: event 9 says" in result.stdout
    answer = json.loads(stranger(*arguments, "--output", "json").stdout)
    assert answer["lost"] == [{"first": 4, "last": 6, "declared_by": 9}]


def test_file_that_no_checkpoint_covers_proves_nothing(
    stranger: Cli, files: dict[str, str], tmp_path: Path
) -> None:
    """(U2)."""
    part = write(tmp_path / "part.jsonl", log(12)[9:])
    result = stranger("audit", "verify", str(part), "--checkpoint", files["checkpoint"])
    assert result.exit_code == 1
    assert "no checkpoint covers events of this file" in result.stderr


def test_verify_with_wrong_files_is_wrong_usage(
    stranger: Cli, files: dict[str, str], tmp_path: Path
) -> None:
    verify = ("audit", "verify", files["log"])
    assert stranger(*verify).exit_code == 2
    assert stranger(*verify, "--checkpoint", files["keys"]).exit_code == 2
    assert stranger(*verify, "--checkpoint", "/none").exit_code == 2
    checkpoint = ("--checkpoint", files["checkpoint"])
    assert stranger("audit", "verify", "/none", *checkpoint).exit_code == 2
    assert stranger(*verify, *checkpoint, "--public-key", "/none").exit_code == 2
