# SPDX-License-Identifier: Apache-2.0
"""
An archive of the audit log proves what the cluster has signed, and no more (U2).

The attacker can write to the folder. The attacks: files that are swapped, cut, reordered
or left out, segments of another log, and files that keep the auditor's computer busy.
"""

import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sparecode_client.cli import app
from sparecode_node.services.cluster.checkpoints import public_keys
from tests.client.audit_files import (
    OTHER_RING,
    RING,
    event,
    log,
    signed,
    write,
    write_archive,
    write_checkpoint,
)
from tests.client.audit_files import chained as chain

MIB = 1024 * 1024


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """Return an archive of three segments of five events."""
    return write_archive(tmp_path / "archive", 3)


def verified(archive: Path, *further: str) -> tuple[int, str]:
    """Return the exit code of a verification with the cluster's key, and its words."""
    keys = archive.parent / "keys.pem"
    keys.write_text(public_keys(RING))
    arguments = ("--archive", str(archive), "--public-key", str(keys), *further)
    result = CliRunner(env={"COLUMNS": "1000"}).invoke(
        app, ["audit", "verify", *arguments]
    )
    assert not isinstance(result.exception, Exception), result.exception
    return result.exit_code, result.output


def segments(archive: Path) -> list[Path]:
    return sorted(archive.glob("*.jsonl"))


def checkpoints(archive: Path) -> list[Path]:
    return sorted(archive.glob("*.checkpoint.json"))


def swap(one: Path, other: Path) -> None:
    """Exchange the contents of two files."""
    content = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(content)


def swap_the_first(archive: Path) -> None:
    swap(*segments(archive)[:2])


def swap_the_last(archive: Path) -> None:
    swap(*segments(archive)[1:])


def cut_the_middle(archive: Path) -> None:
    lines = segments(archive)[1].read_bytes().splitlines(keepends=True)
    segments(archive)[1].write_bytes(b"".join(lines[:-1]))


def reorder(archive: Path) -> None:
    lines = segments(archive)[1].read_bytes().splitlines(keepends=True)
    lines[1], lines[2] = lines[2], lines[1]
    segments(archive)[1].write_bytes(b"".join(lines))


def leave_out(archive: Path) -> None:
    segments(archive)[1].unlink()
    checkpoints(archive)[1].unlink()


def rename_as_one_file(archive: Path) -> None:
    """Put the events of two segments into one, and leave the other out."""
    first, second, _ = segments(archive)
    second.write_bytes(first.read_bytes() + second.read_bytes())
    first.unlink()
    checkpoints(archive)[0].unlink()
    lines = second.read_bytes().splitlines(keepends=True)
    second.write_bytes(b"".join(lines[:2] + lines[3:]))


def rewrite(archive: Path) -> None:
    """Write another history, whose hashes are right."""
    records = chain([event(n, actor="administrator:eve") for n in range(1, 16)])
    for number, path in enumerate(segments(archive)):
        write(path, records[number * 5 : number * 5 + 5])


ATTACKS = (
    swap_the_first,
    swap_the_last,
    cut_the_middle,
    reorder,
    leave_out,
    rename_as_one_file,
    rewrite,
)


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_changed_archive_is_refused(
    archive: Path, attack: Callable[[Path], None]
) -> None:
    assert verified(archive)[0] == 0
    attack(archive)
    code, words = verified(archive)
    assert code == 1, words
    assert "Proved: events 1 to 15" not in words


def test_segments_of_another_cluster_are_not_proved(archive: Path) -> None:
    """Their log is whole, and signed with a key of their own."""
    records = log(15)
    for number, path in enumerate(checkpoints(archive), start=1):
        write_checkpoint(path, signed(records, 5 * number, OTHER_RING))
    code, words = verified(archive)
    assert (code, "not in --public-key" in words) == (1, True), words
    write_archive(archive, 3)
    swap(checkpoints(archive)[0], checkpoints(archive)[2])
    assert verified(archive)[0] == 0  # Each still proves the events up to its own.


def test_a_cut_end_is_seen_with_a_checkpoint_that_is_kept_elsewhere(
    archive: Path,
) -> None:
    """The folder alone cannot tell: no file in it says how many there were."""
    kept = checkpoints(archive)[2].rename(archive.parent / "kept.json")
    segments(archive)[2].unlink()
    code, words = verified(archive)
    assert (code, "Proved: events 1 to 10 are" in words) == (0, True)
    code, words = verified(archive, "--checkpoint", str(kept))
    assert (code, "events 11 to 15 are missing" in words) == (1, True), words


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def device(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("kind", [pipe, device, folder])
@pytest.mark.parametrize("files", [segments, checkpoints])
def test_what_is_no_file_keeps_no_auditor_waiting(
    archive: Path,
    kind: Callable[[Path], None],
    files: Callable[[Path], list[Path]],
) -> None:
    """A pipe without a writer never ends, and neither does a device."""
    kind(files(archive)[1])
    code, words = verified(archive)
    assert (code, "not a regular file" in words) == (2, True), words


@pytest.mark.parametrize("files", [segments, checkpoints])
@pytest.mark.parametrize("end", [b"", b"[" * 200_000], ids=["zeros", "brackets"])
def test_an_endless_line_takes_no_memory(
    archive: Path, files: Callable[[Path], list[Path]], end: bytes
) -> None:
    """A file of zero bytes takes no room on the attacker's disk."""
    path = files(archive)[1]
    path.write_bytes(end)
    os.truncate(path, len(end) + 128 * MIB * (not end))
    tracemalloc.start()
    try:
        code, words = verified(archive)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert code in (1, 2), words
    assert peak < 64 * MIB
