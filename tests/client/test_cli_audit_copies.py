# SPDX-License-Identifier: Apache-2.0
"""`sparecode audit write-archive`: an archive that an administrator writes (U2)."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from sparecode.v1 import audit_pb2, cluster_pb2
from sparecode_node.queries.audit import AuditRecord
from sparecode_node.services.files import audit_export
from sparecode_node.services.files.audit_export import ExportFormat
from tests.client import answers
from tests.client.audit_files import chained, event, log, signed, write_archive
from tests.client.conftest import Cli

STATUS = "ClusterService/GetStatus"
EXPORT = "AuditService/ExportAuditEvents"
CHECKPOINT = "AuditService/GetCheckpoint"
EVENTS = 5


class Cluster:
    """What a node answers of a log with segments of five events."""

    def __init__(self, cli: Cli, sealed: int, **status: Any) -> None:
        self.records = log(sealed * EVENTS)
        self.changed: Sequence[AuditRecord] = ()
        """What exports have instead."""
        cli.node.answer(
            STATUS,
            cluster_pb2.GetStatusResponse(
                node_id="n1", sealed_segments=sealed, **status
            ),
        )
        cli.node.answer(CHECKPOINT, self.checkpoint)
        cli.node.answer(EXPORT, self._export)

    def checkpoint(
        self, request: audit_pb2.GetCheckpointRequest
    ) -> audit_pb2.GetCheckpointResponse:
        end = signed(self.records, request.segment * EVENTS)
        return audit_pb2.GetCheckpointResponse(
            checkpoint=audit_pb2.Checkpoint(
                cluster_id=end.cluster_id,
                sequence=end.sequence,
                head=end.head,
                checkpoint_time=answers.at(end.time),
                key_id=end.key_id,
                public_key=end.public_key,
                signature=end.signature,
            )
        )

    def _export(self, request: audit_pb2.ExportAuditEventsRequest) -> object:
        first, last = request.after_sequence, request.up_to_sequence
        records = (self.changed or self.records)[first:last]
        answer = audit_pb2.ExportAuditEventsResponse(
            content=audit_export.lines(ExportFormat.JSON_LINES, records),
            events=len(records),
            last_sequence=last,
            end_sequence=last,
        )
        return [answer], None


def files(folder: Path) -> dict[str, bytes]:
    return {each.name: each.read_bytes() for each in folder.iterdir()}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "archive"
    folder.mkdir()
    return folder


def test_an_archive_is_as_a_node_writes_it(
    cli: Cli, folder: Path, tmp_path: Path
) -> None:
    """(U2) It is proved, and confirmed, like one."""
    Cluster(cli, 3)

    result = cli("audit", "write-archive", str(folder))

    assert result.exit_code == 0, result.stderr
    assert files(folder) == files(write_archive(tmp_path / "of a node", 3))
    assert result.stdout.splitlines()[:3] == [
        "Segment 1: events up to 5.",
        "Segment 2: events up to 10.",
        "Segment 3: events up to 15.",
    ]
    assert "3 segments written to" in result.stdout
    verified = cli("audit", "verify", "--archive", str(folder))
    assert "Proved: events 1 to 15 are complete" in verified.stdout


def test_what_is_there_is_not_written_again(cli: Cli, folder: Path) -> None:
    """And what was broken off between the two files is finished."""
    Cluster(cli, 3)
    cli("audit", "write-archive", str(folder))
    whole = files(folder)
    first, _, third = sorted(folder.glob("*.jsonl"))
    third.with_suffix(".checkpoint.json").unlink()
    first.unlink()
    first.with_suffix(".checkpoint.json").unlink()
    asked = len(cli.node.requests(EXPORT))

    again = cli("audit", "write-archive", str(folder), "--output", "json")
    nothing = cli("audit", "write-archive", str(folder))

    assert json.loads(again.stdout)["segments"] == [1, 3]
    assert files(folder) == whole
    assert len(cli.node.requests(EXPORT)) == asked + 1
    assert "has every segment" in nothing.stdout


def test_removed_and_lost_segments_are_left_out(cli: Cli, folder: Path) -> None:
    Cluster(
        cli,
        5,
        lost_segments="4",
        audit_retention=cluster_pb2.AuditRetention(removed_segments="1 to 2"),
    )

    result = cli("audit", "write-archive", str(folder))

    assert [each.name[:8] for each in sorted(folder.glob("*.jsonl"))] == [
        "00000003",
        "00000005",
    ]
    assert "Left out, because they were declared lost: 4." in result.stdout


def test_other_events_are_refused_and_nothing_stays(cli: Cli, folder: Path) -> None:
    """(U2) Whether a node sends others, fewer, or signs wrongly."""
    cluster = Cluster(cli, 2)
    write = ("audit", "write-archive", str(folder))
    changed = list(cluster.records)
    changed[2] = changed[3]

    cluster.changed = changed
    other = cli(*write)
    cluster.changed = cluster.records[:4]
    fewer = cli(*write)
    cluster.changed = cluster.records[:1] + cluster.records[2:]
    later = cli(*write)

    assert [each.exit_code for each in (other, fewer, later)] == [1, 1, 1]
    assert "not events 1 to 5 that the cluster has signed" in " ".join(
        other.stderr.split()
    )
    assert files(folder) == {}


def test_acheckpoint_with_a_wrong_signature_is_refused(cli: Cli, folder: Path) -> None:
    right = Cluster(cli, 1).checkpoint

    def forged(request: Any) -> Any:
        answer = right(request)
        answer.checkpoint.signature = bytes(64)
        return answer

    cli.node.answer(CHECKPOINT, forged)

    result = cli("audit", "write-archive", str(folder))

    assert result.exit_code == 1
    assert "signed wrongly" in result.stderr
    assert files(folder) == {}


def test_the_archive_of_another_log_stays_as_it_is(cli: Cli, folder: Path) -> None:
    """After a restore, a cluster goes on with other events under the same numbers."""
    Cluster(cli, 2)
    cli("audit", "write-archive", str(folder))
    whole = files(folder)
    restored = Cluster(cli, 3)
    restored.records = chained([event(number, target="bob") for number in range(1, 16)])

    result = cli("audit", "write-archive", str(folder))

    assert result.exit_code == 1
    assert "name another folder" in " ".join(result.stderr.split())
    assert files(folder) == whole


def test_a_folder_that_is_missing_is_not_made(cli: Cli, tmp_path: Path) -> None:
    """It may be a missing mount."""
    Cluster(cli, 1)
    result = cli("audit", "write-archive", str(tmp_path / "missing"))
    assert result.exit_code == 2
    assert not (tmp_path / "missing").exists()
