# SPDX-License-Identifier: Apache-2.0
"""The whole log of an archive and an export, and what is wrong with an archive."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.client.audit_files import log, write, write_archive
from tests.faults import archived_log
from tests.faults.archived_log import ArchiveError, join

EVENTS = 5
SEALED = 3


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an archive of three segments of five events."""
    monkeypatch.setattr(archived_log, "SEGMENT_EVENTS", EVENTS)
    return write_archive(tmp_path / "archive", SEALED)


def whole_of(archive: Path, *, first: int, sealed: int = SEALED) -> bytes:
    """Return the whole log, of which a node still has the events from *first* on."""
    folder = archive.parent
    export = write(folder / "export.jsonl", log(18)[first - 1 :])
    join(archive, export, folder / "whole.jsonl", sealed=sealed)
    return (folder / "whole.jsonl").read_bytes()


@pytest.mark.parametrize("first", [1, 4, 11, 16])
def test_removed_events_come_from_the_archive(archive: Path, first: int) -> None:
    """(U4) Each event once, whatever the node still has."""
    lines = whole_of(archive, first=first).splitlines()
    assert [archived_log.sequence_of(line) for line in lines] == [*range(1, 19)]


def _damage(archive: Path) -> None:
    file = min(archive.glob("*.jsonl"))
    file.write_bytes(file.read_bytes().replace(b"user3", b"user4"))


def _forge(archive: Path) -> None:
    file = sorted(archive.glob("*.checkpoint.json"))[1]
    file.write_text(file.read_text().replace('"at_ms": ', '"at_ms": 1'))


def _lose(archive: Path) -> None:
    for file in archive.glob("00000002-*"):
        file.unlink()


def _double(archive: Path) -> None:
    file = sorted(archive.glob("*.jsonl"))[1]
    (archive / f"00000002-{'0' * 16}.jsonl").write_bytes(file.read_bytes())


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (_damage, "event 3 was"),
        (_forge, "the signature is wrong"),
        (_lose, r"segments \[2\] of 3 are not in the archive"),
        (_double, "segment 2 is there twice"),
    ],
)
def test_an_archive_that_does_not_prove_the_log_is_named(
    archive: Path, harm: Callable[[Path], None], words: str
) -> None:
    """(U2) Nothing is lost, and nothing is there twice."""
    harm(archive)
    with pytest.raises(ArchiveError, match=words):
        whole_of(archive, first=11)


def test_an_archive_of_fewer_segments_than_the_log_is_named(archive: Path) -> None:
    with pytest.raises(ArchiveError, match=r"segments \[4\] of 4"):
        whole_of(archive, first=11, sealed=4)


def test_an_export_that_differs_from_the_archive_is_named(archive: Path) -> None:
    """(U2) Where both have an event, they must agree."""
    export = archive.parent / "export.jsonl"
    write(export, log(18)[5:])
    export.write_bytes(export.read_bytes().replace(b"user7", b"user8"))
    with pytest.raises(ArchiveError, match="event 7 differs in the archive"):
        join(archive, export, archive.parent / "whole.jsonl", sealed=SEALED)
