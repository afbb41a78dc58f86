# SPDX-License-Identifier: Apache-2.0
"""`sparecode audit archive`, `confirm-archive` and `withdraw-archive` (U2, U4)."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from google.protobuf import duration_pb2

from sparecode.v1 import cluster_pb2, types_pb2
from sparecode_client.values.segments import ranges_in
from tests.client import answers
from tests.client.audit_files import log, write_archive
from tests.client.conftest import Cli

STATUS = "ClusterService/GetStatus"
CONFIRM = "ClusterService/ConfirmArchive"
WITHDRAW = "ClusterService/WithdrawArchive"
MOMENT = datetime(2026, 11, 28, 9, 30, tzinfo=UTC)
DAY = timedelta(days=1)


def archived_by(
    archiver: str, segments: str, place: str, *, counts: bool = True
) -> cluster_pb2.AuditArchive:
    return cluster_pb2.AuditArchive(
        archiver=archiver,
        place=place,
        segments=segments,
        confirm_time=answers.at(MOMENT),
        counts=counts,
    )


WHOLE = cluster_pb2.GetStatusResponse(
    node_id="n1",
    sealed_segments=12,
    lost_segments="6",
    audit_retention=cluster_pb2.AuditRetention(
        archives=[
            archived_by("administrator:root", "5", "a disk in the vault"),
            archived_by("node:n1", "4 to 5, 7 to 9", "/srv/sparecode-archive"),
            archived_by("node:n2", "4, 7 to 10", "/mnt/archive"),
            archived_by("node:n3", "4 to 5, 7 to 11", "/srv/archive", counts=False),
        ],
        unarchived_segments="10 to 12",
        archives_wanted=2,
        removed_segments="1 to 3",
        removed=types_pb2.RemovedEvents(
            last_sequence=30_000,
            last_time=answers.at(MOMENT - 400 * DAY),
            remove_time=answers.at(MOMENT),
            archives="node:n1 (/srv/sparecode-archive)",
        ),
        retention=duration_pb2.Duration(seconds=400 * 86_400),
    ),
)


def test_each_segment_shows_its_archives_and_what_it_needs(cli: Cli) -> None:
    """(U4) In 80 columns; segments that are alike are one row."""
    cli.node.answer(STATUS, WHOLE)

    result = cli("audit", "archive")

    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert [" ".join(line.split()) for line in lines[:9]] == [
        "Segments Copies Archived by State",
        "1 to 3 - - removed from the nodes",
        "4 2 of 2 n1, n2, n3 (silent) archived",
        "5 2 of 2 administrator:root, n1, n3 (silent) archived",
        "6 0 of 2 - declared lost",
        "7 to 9 2 of 2 n1, n2, n3 (silent) archived",
        "10 1 of 2 n2, n3 (silent) needs 1 more copy",
        "11 0 of 2 n3 (silent) needs 2 more copies",
        "12 0 of 2 - needs 2 more copies",
    ]
    assert max(map(len, lines[:9])) <= 80
    words = " ".join(result.stdout.split())
    assert "node:n1: /srv/sparecode-archive, confirmed 2026-11-28 09:30:00 UTC" in words
    assert "/srv/archive, confirmed 2026-11-28 09:30:00 UTC; does not count" in words
    assert "Archived audit events are removed after 400 days." in words
    assert "Segments 1 to 3 of the audit log, events 1 to 30000, were removed" in words


def test_segments_and_their_copies_as_json(cli: Cli) -> None:
    """(U4) A program finds what is missing without words."""
    cli.node.answer(STATUS, WHOLE)

    answer = cli.json("audit", "archive")

    assert answer["archives_wanted"] == 2
    assert answer["segments"][0] == {
        "first": 1,
        "last": 3,
        "state": "removed",
        "copies": 0,
        "missing_copies": 0,
        "archivers": [],
        "silent_archivers": [],
    }
    (tenth,) = [each for each in answer["segments"] if each["first"] == 10]
    assert tenth == {
        "first": 10,
        "last": 10,
        "state": "waiting",
        "copies": 1,
        "missing_copies": 1,
        "archivers": ["node:n2"],
        "silent_archivers": ["node:n3"],
    }
    assert [each["counts"] for each in answer["archives"]] == [True, True, True, False]
    assert answer["removed"]["last_sequence"] == 30_000


def test_without_a_retention_one_archive_is_enough(cli: Cli) -> None:
    """(U2) The number of copies is a condition of removal, and nothing is removed."""
    cli.node.answer(
        STATUS,
        cluster_pb2.GetStatusResponse(
            node_id="n1",
            sealed_segments=4,
            lost_segments="1 to 2",
            found_segments="2",
            audit_retention=cluster_pb2.AuditRetention(
                archives=[archived_by("node:n1", "3", "/srv")], archives_wanted=2
            ),
        ),
    )

    lines = cli("audit", "archive").stdout.splitlines()

    assert [" ".join(line.split()) for line in lines[1:5]] == [
        "1 0 - declared lost",
        "2 0 - in no archive",
        "3 1 n1 archived",
        "4 0 - in no archive",
    ]


def test_no_segment_no_archive_and_an_older_node(cli: Cli) -> None:
    empty = cluster_pb2.GetStatusResponse(
        node_id="n1", audit_retention=cluster_pb2.AuditRetention(archives_wanted=2)
    )
    cli.node.answer(STATUS, empty, cluster_pb2.GetStatusResponse(node_id="n1"))

    words = " ".join(cli("audit", "archive").stdout.split())
    older = cli("audit", "archive")

    assert "No segment of the audit log is sealed yet." in words
    assert "No archive is known to the cluster." in words
    assert older.exit_code == 0
    assert "n1 is of a release that knows no archives" in older.stderr


def test_a_range_from_a_node_costs_no_memory(cli: Cli) -> None:
    """A node that lies about numbers does not fill the memory of the terminal."""
    cli.node.answer(
        STATUS,
        cluster_pb2.GetStatusResponse(
            sealed_segments=10**17,
            audit_retention=cluster_pb2.AuditRetention(
                archives=[archived_by("node:n1", f"1 to {10**17}", "/srv")],
                archives_wanted=1,
            ),
        ),
    )
    assert cli.json("audit", "archive")["segments"][0]["last"] == 10**17
    assert ranges_in("1 to 3, 7") == ((1, 3), (7, 7))
    assert ranges_in("") == ranges_in("none") == ()


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """Return a copy of three segments of five events."""
    return write_archive(tmp_path / "copy", 3)


def test_a_proved_copy_is_confirmed_with_its_hashes(cli: Cli, copy: Path) -> None:
    """(U2) The whole folder, or some of its segments."""
    cli.node.answer(CONFIRM, cluster_pb2.ConfirmArchiveResponse())
    confirm = ("audit", "confirm-archive", str(copy))
    placed = ("--place", "tape 12")

    assert cli(*confirm).exit_code == 2  # Without a place.
    result = cli(*confirm, *placed)
    assert cli(*confirm, "2", "3", *placed).exit_code == 0

    assert "Your copy of segments 1 to 3 (events 1 to 15) is confirmed" in " ".join(
        result.stdout.split()
    )
    whole, part = cli.node.requests(CONFIRM)
    assert (whole.first, whole.last, whole.place) == (1, 3, "tape 12")
    assert (whole.hash_before, whole.hash_after) == (bytes(32), log(15)[14].hash)
    assert (part.first, part.last) == (2, 3)
    assert (part.hash_before, part.hash_after) == (log(5)[4].hash, log(15)[14].hash)


def test_a_damaged_or_partial_copy_is_not_confirmed(cli: Cli, copy: Path) -> None:
    """(U2) The cluster is not asked, and the file is named."""
    cli.node.answer(CONFIRM, cluster_pb2.ConfirmArchiveResponse())
    confirm = ("audit", "confirm-archive", str(copy), "--place", "tape 12")
    first, second, third = sorted(copy.glob("*.jsonl"))
    content = second.read_bytes()

    second.write_bytes(content.replace(b"user7", b"user8"))
    damaged = cli(*confirm)
    second.write_bytes(content.splitlines(keepends=True)[0])
    cut = cli(*confirm)
    second.write_bytes(content)
    signature = first.with_suffix(".checkpoint.json")
    right = signature.read_text()
    signature.write_text(right.replace('"sequence": 5', '"sequence": 4'))
    forged = cli(*confirm)
    signature.write_text(right)
    second.rename(second.with_suffix(".gone"))
    gap = cli(*confirm)
    beyond = cli(*confirm[:3], "3", "4", *confirm[3:])
    many = cli(*confirm[:3], "1", "1001", *confirm[3:])

    assert (damaged.exit_code, cut.exit_code, forged.exit_code) == (1, 1, 1)
    assert f"{second.name}, line 2: event 7 was" in damaged.stderr.replace("\n", "")
    assert "the signature is wrong" in forged.stderr
    assert (gap.exit_code, beyond.exit_code, many.exit_code) == (2, 2, 2)
    assert "segment 2 is missing" in gap.stderr.replace("\n", " ")
    assert "segment 4 is missing" in beyond.stderr.replace("\n", " ")
    assert "at most 1000 segments at once" in many.stderr.replace("\n", " ")
    assert cli(*confirm[:3], "3", *confirm[3:]).exit_code == 0
    assert third.exists()
    assert len(cli.node.requests(CONFIRM)) == 1


def test_a_withdrawal_says_what_does_not_come_back(cli: Cli) -> None:
    """(U4) All copies of an administrator, one segment, or some; with a reason."""
    cli.node.answer(STATUS, WHOLE, WHOLE, cluster_pb2.GetStatusResponse())
    cli.node.answer(WITHDRAW, cluster_pb2.WithdrawArchiveResponse())
    withdraw = ("audit", "withdraw-archive", "root")
    because = ("--reason", "tape 12 burned")

    assert cli(*withdraw).exit_code == 2  # Without a reason.
    every = cli(*withdraw, *because)
    some = cli(*withdraw, "4", "5", *because)
    one = cli.json(*withdraw, "5", *because)

    words = " ".join(every.stdout.split())
    assert "All copies of root do not count any longer." in words
    assert "Segments 1 to 3 were removed from the nodes before" in words
    assert "do not come back" in words
    assert "The copy of root does not count any longer" in " ".join(some.stdout.split())
    assert (one["first"], one["last"], one["removed_segments"]) == (5, 5, "")
    requests = cli.node.requests(WITHDRAW)
    assert [(each.first, each.last) for each in requests] == [(0, 0), (4, 5), (5, 5)]
    assert {each.reason for each in requests} == {"tape 12 burned"}
    assert {each.administrator for each in requests} == {"root"}
