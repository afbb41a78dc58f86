# SPDX-License-Identifier: Apache-2.0
"""`sparecode cluster backup`: a complete file, or none."""

from pathlib import Path

import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from sparecode.v1 import cluster_pb2 as pb
from tests.client.conftest import Cli
from tests.client.fakes import Failure

BACKUP = "ClusterService/CreateBackup"
RECIPIENT = "age1" + "q" * 58


def piece(offset: int, content: bytes) -> pb.CreateBackupResponse:
    return pb.CreateBackupResponse(
        offset=offset,
        content=content,
        index=1042,
        digest="ab",
        take_time=Timestamp(seconds=1_800_000_000),
        recipients=[RECIPIENT],
    )


def test_a_backup_is_a_file_for_its_owner(cli: Cli, tmp_path: Path) -> None:
    cli.node.answer(BACKUP, ([piece(0, b"one"), piece(3, b"two")], None))
    path = tmp_path / "a.backup"
    result = cli("cluster", "backup", str(path))
    assert result.exit_code == 0, result.output
    assert path.read_bytes() == b"onetwo"
    assert path.stat().st_mode & 0o777 == 0o600
    assert "log entry 1042" in result.stdout
    assert RECIPIENT in result.stdout
    assert max(map(len, result.stdout.replace(str(path), "").splitlines())) <= 80


def test_a_backup_may_leave_out_older_audit_events(cli: Cli, tmp_path: Path) -> None:
    for number, options in enumerate(([], ["--without-sealed-events"])):
        cli.node.answer(BACKUP, ([piece(0, b"one")], None))
        path = str(tmp_path / f"{number}.backup")
        result = cli("cluster", "backup", path, *options)
        assert result.exit_code == 0, result.output
    requests = [each.without_sealed_events for each in cli.node.requests(BACKUP)]
    assert requests == [False, True]


def test_a_backup_that_breaks_off_leaves_no_file(cli: Cli, tmp_path: Path) -> None:
    """Pieces of two nodes do not fit together."""
    code = grpc.StatusCode.FAILED_PRECONDITION
    refusal = Failure(code, "NO_BACKUP_RECIPIENT", "sparecode-node backup keygen")
    cli.node.answer(BACKUP, ([piece(0, b"one")], refusal))
    result = cli("cluster", "backup", str(tmp_path / "a.backup"))
    assert result.exit_code == 1
    assert "backup keygen" in result.stderr
    assert not list(tmp_path.glob("*backup*"))


def test_a_backup_replaces_nothing(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "a.backup").write_bytes(b"old")
    result = cli("cluster", "backup", str(tmp_path / "a.backup"))
    assert result.exit_code == 2
    assert "exists already" in result.stderr
    assert (tmp_path / "a.backup").read_bytes() == b"old"
    assert not cli.node.requests(BACKUP)
