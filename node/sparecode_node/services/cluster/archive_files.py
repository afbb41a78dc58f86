# SPDX-License-Identifier: Apache-2.0
"""
The files of the audit archive: for each sealed segment its events, and a checkpoint (U2).

The folder has an id, too: nodes that share a folder have one copy, not two.

The events are those of `sparecode audit export`, and the checkpoint is a file of
`sparecode audit checkpoint`, so verification needs no node and no other program. The
name has the hash of the last event: the histories of a cluster and of its restored copy
may be in one folder.
"""

import base64
import contextlib
import json
import logging
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparecode_node.domain.audit import AuditEvent
from sparecode_node.domain.ids import KeyId
from sparecode_node.durable_files import sync_directory
from sparecode_node.fault_points import Point, reach
from sparecode_node.queries.audit import AuditRecord
from sparecode_node.services.ambient import Entropy
from sparecode_node.services.cluster.checkpoints import Checkpoint
from sparecode_node.services.files import audit_export
from sparecode_node.services.files.audit_export import ExportFormat
from sparecode_node.services.files.guarded_files import create, open_regular
from sparecode_node.statemachine.segment_chain import SegmentError, event_in, linked
from sparecode_node.statemachine.tables.segments import Segment

log = logging.getLogger(__name__)

EVENTS, CHECKPOINT = ".jsonl", ".checkpoint.json"
FOLDER_ID = "archive-id"
_FOLDER_ID_BYTES = 33
_FOLDER_ID_FORM = re.compile(rb"[0-9a-f]{32}\n")
_HASHES = frozenset({"previous_hash", "hash"})
_HASH_DIGITS = 16
_EVENT_BYTES_MAX = 4 * 1024 * 1024
"""No line of an event is longer."""
_CHECKPOINT_BYTES_MAX = 4096


@dataclass(frozen=True, slots=True)
class ArchivedFiles:
    """Where the two files of a segment are, or will be."""

    folder: Path
    name: str

    @classmethod
    def of(cls, folder: Path, segment: Segment) -> "ArchivedFiles":
        """Return the files of a segment."""
        digits = segment.hash_after.hex()[:_HASH_DIGITS]
        return cls(folder, f"{segment.number:08}-{digits}")

    @property
    def events(self) -> Path:
        """The events, one line each."""
        return self.folder / f"{self.name}{EVENTS}"

    @property
    def checkpoint(self) -> Path:
        """The signed checkpoint of the last event."""
        return self.folder / f"{self.name}{CHECKPOINT}"


def present(folder: Path) -> frozenset[str]:
    """
    Return the names of the segments whose files are both there.

    A file gets its final name only when it is complete and synced. A link or a folder
    of that name is no file. Raises `OSError`.
    """
    with os.scandir(folder) as entries:
        names = {each.name for each in entries if each.is_file(follow_symlinks=False)}
    return frozenset(
        name.removesuffix(CHECKPOINT)
        for name in names
        if name.endswith(CHECKPOINT)
        and f"{name.removesuffix(CHECKPOINT)}{EVENTS}" in names
    )


def folder_id(folder: Path, node_id: str, entropy: Entropy) -> str:
    """
    Return the id of the folder. The first node that comes there makes it, durably.

    Read it at each look: a file system without links cannot keep a second node from
    replacing the id that another one makes at the same moment. Raises `OSError`, and
    `SegmentError` if the file is damaged: a new id would count as another copy.
    """
    path = folder / FOLDER_ID
    if not os.path.lexists(path):
        _write(path, [f"{entropy.token_bytes(16).hex()}\n".encode()], node_id, _name)
    with open(path, "rb", opener=open_regular) as file:
        content = file.read(_FOLDER_ID_BYTES + 1)
    if _FOLDER_ID_FORM.fullmatch(content) is None:
        raise SegmentError(
            f"{path} is damaged: delete it, and a node writes another one"
        )
    return content.decode().strip()


def write(
    files: ArchivedFiles,
    segment: Segment,
    events: Iterable[AuditEvent],
    checkpoint: Checkpoint,
    *,
    node_id: str,
    is_signed: Callable[[Checkpoint], bool],
) -> None:
    """
    Write the files of a segment, durably, each completely or not at all.

    The checkpoint is last: a segment whose checkpoint is there is complete. A file that
    is there and right stays, such as the events after a crash between the two; anything
    else of that name is put aside. Raises `SegmentError` if these are not its events,
    and `OSError`.
    """
    if not _is_there(files.events, lambda: _prove_events(files.events, segment)):
        _write(files.events, _lines(segment, events), node_id)
    if not _is_there(
        files.checkpoint,
        lambda: _prove_checkpoint(files.checkpoint, segment, is_signed),
    ):
        _write(files.checkpoint, [_text(checkpoint)], node_id)


def prove(
    files: ArchivedFiles, segment: Segment, is_signed: Callable[[Checkpoint], bool]
) -> None:
    """
    Read the files of a segment. Raises `SegmentError`, and `OSError`.

    The state says which events are right. *is_signed* says it of the checkpoint, which
    verifiers need when the state is gone.
    """
    _prove_events(files.events, segment)
    _prove_checkpoint(files.checkpoint, segment, is_signed)


def changed(files: ArchivedFiles) -> tuple[int, ...] | None:
    """
    Return numbers that differ once a file was changed; None: they cannot be read.

    Two changes within a tick of the kernel have the same time: so the sizes count, too.
    """
    try:
        seen = [each.lstat() for each in (files.events, files.checkpoint)]
        return tuple(n for each in seen for n in (each.st_ctime_ns, each.st_size))
    except OSError:
        return None


def put_aside(files: ArchivedFiles) -> None:
    """Rename damaged files, so that they are written again. Raises `OSError`."""
    _put_aside(files.checkpoint)
    _put_aside(files.events)


def _is_there(path: Path, prove: Callable[[], None]) -> bool:
    """Return whether a file is there and right; put aside what is wrong."""
    if not os.path.lexists(path):
        return False
    try:
        prove()
    except (SegmentError, OSError) as error:
        _put_aside(path)
        log.warning(
            "archive_file_put_aside", extra={"file": str(path), "cause": str(error)}
        )
        return False
    return True


def _put_aside(path: Path) -> None:
    number = 1
    while os.path.lexists(aside := path.with_name(f"{path.name}.damaged-{number}")):
        number += 1
    with contextlib.suppress(FileNotFoundError):
        path.rename(aside)


def _prove_events(path: Path, segment: Segment) -> None:
    read: list[bytes] = []

    def events() -> Iterator[AuditEvent]:
        for line in _read_lines(path):
            read[:] = [line]
            yield event_in(line, beside=_HASHES)

    for line in _lines(segment, events()):
        if [line] != read:
            raise SegmentError("a line is not as it was written")


def _prove_checkpoint(
    path: Path, segment: Segment, is_signed: Callable[[Checkpoint], bool]
) -> None:
    with open(path, "rb", opener=open_regular) as file:
        content = file.read(_CHECKPOINT_BYTES_MAX)
    try:
        checkpoint = _checkpoint_in(json.loads(content))
        if _text(checkpoint) != content:
            raise SegmentError("the checkpoint is not as it was written")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise SegmentError("the checkpoint is damaged") from error
    end = (segment.last_sequence, segment.hash_after)
    if (checkpoint.sequence, checkpoint.head) != end:
        raise SegmentError("the checkpoint is of other events")
    if not is_signed(checkpoint):
        raise SegmentError("the checkpoint has not the cluster's signature")


def _lines(segment: Segment, events: Iterable[AuditEvent]) -> Iterator[bytes]:
    previous = segment.hash_before
    for event, value in linked(segment, events):
        record = AuditRecord(event=event, previous_hash=previous, hash=value)
        yield audit_export.lines(ExportFormat.JSON_LINES, [record])
        previous = value


def _write(
    path: Path,
    pieces: Iterable[bytes],
    node_id: str,
    name: Callable[[Path, Path], object] = lambda part, path: part.replace(path),
) -> None:
    """Write a file, sync it, and then give it its name: a power cut leaves all or none."""
    # Nodes may share the folder, so each has a name of its own.
    part = path.with_name(f".{path.name}.{node_id}.part")
    part.unlink(
        missing_ok=True
    )  # A crash has left it, or another user has laid it there.
    try:
        with open(part, "xb", opener=create) as file:
            file.writelines(pieces)
            file.flush()
            reach(Point.ARCHIVE_SYNC)
            os.fsync(file.fileno())
        reach(Point.ARCHIVE_RENAME)
        name(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def _name(part: Path, path: Path) -> None:
    """Give a file its name, unless another node was first."""
    try:
        path.hardlink_to(part)
    except FileExistsError:
        pass
    except OSError:  # A file system without links, or one that takes no file at all.
        part.replace(path)
        return
    part.unlink(missing_ok=True)


def _read_lines(path: Path) -> Iterator[bytes]:
    with open(path, "rb", opener=open_regular) as file:
        while line := file.readline(_EVENT_BYTES_MAX):
            yield line


def _checkpoint_in(content: Mapping[str, Any]) -> Checkpoint:
    return Checkpoint(
        cluster_id=content["cluster_id"],
        sequence=content["sequence"],
        head=bytes.fromhex(content["head"]),
        at_ms=content["at_ms"],
        key_id=KeyId(content["key_id"]),
        public_key=base64.b64decode(content["public_key"], validate=True),
        signature=base64.b64decode(content["signature"], validate=True),
    )


def _text(checkpoint: Checkpoint) -> bytes:
    """Return a checkpoint as `sparecode audit checkpoint` writes it."""
    content = {
        "cluster_id": checkpoint.cluster_id,
        "sequence": checkpoint.sequence,
        "head": checkpoint.head.hex(),
        "at_ms": checkpoint.at_ms,
        "key_id": checkpoint.key_id,
        "public_key": base64.b64encode(checkpoint.public_key).decode(),
        "signature": base64.b64encode(checkpoint.signature).decode(),
    }
    return json.dumps(content, indent=2).encode() + b"\n"
