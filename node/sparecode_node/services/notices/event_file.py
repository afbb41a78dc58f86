# SPDX-License-Identifier: Apache-2.0
"""
Files of audit events: one line of JSON for each event, for agents of log collectors.

Every node writes all events to a file of its own, so each file is complete and no node
needs another one. The folder is in `node.toml`: a replicated setting must not name
paths on a machine. The file itself tells where to go on after a restart.
"""

import asyncio
import datetime as dt
import json
import logging
import logging.handlers
import os
import re
from collections.abc import Callable, Iterator, Sequence
from io import TextIOWrapper
from pathlib import Path

from sparecode_node.domain.audit import AuditEvent
from sparecode_node.domain.notices import class_of
from sparecode_node.fault_points import Point, reach
from sparecode_node.queries.notices import StoredNotice
from sparecode_node.services.files.guarded_files import open_own, open_regular
from sparecode_node.services.notices.ocsf import event_uid
from sparecode_node.services.notices.outcomes import Attempt, Exchange, Outcome

log = logging.getLogger(__name__)

FILE_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")
"""Names of files that channels write: nothing that leads out of the folder."""
FILE_BYTES_MAX = 64 * 1024 * 1024
FILES_KEPT = 16
"""Earlier files: `NAME.jsonl.1` is the newest of them."""
_BLOCK = 64 * 1024


class EventFile:
    """Writes the events of one channel on this node."""

    def __init__(self, name: str, folder: Path, cluster_id: str) -> None:
        """Raise `ValueError` for a name that could lead out of the folder."""
        if not FILE_NAME.fullmatch(name):
            raise ValueError("the name must be of a-z, 0-9 and -")
        self._path = folder / f"{name}.jsonl"
        self._cluster_id = cluster_id
        self._handler: _Handler | None = None

    async def resume(self) -> int | None:
        """
        Return the last event in the files; None: they have none of this cluster.

        Raises `OSError`.
        """
        return await asyncio.to_thread(self._resume)

    async def send_all(self, events: Sequence[AuditEvent]) -> Attempt:
        """Append events; a full disk is an `Attempt`, too."""
        lines = [_line(each, self._cluster_id) for each in events]
        try:
            await asyncio.to_thread(self._write, lines)
        except OSError as error:
            return Attempt(Outcome.UNREACHABLE, _cause(self._path, error))
        return Attempt(Outcome.DELIVERED, "")

    async def exchange(self, notice: StoredNotice, now_ms: int) -> Exchange:
        """Try to open the file. A test writes no line: it is no event."""
        del now_ms
        try:
            await asyncio.to_thread(self._touch)
        except OSError as error:
            attempt = Attempt(Outcome.UNREACHABLE, _cause(self._path, error))
        else:
            attempt = Attempt(Outcome.DELIVERED, "")
        return Exchange(
            sent=f"open {self._path} of {notice.event.node} for appending",
            received="",
            attempt=attempt,
        )

    async def close(self) -> None:
        """Close the file."""
        await asyncio.to_thread(self._close)

    def _write(self, lines: Sequence[str]) -> None:
        if self._handler is None:
            # A line that was cut by a full disk or a crash would spoil the next one.
            _cut_torn_line(self._path)
            self._handler = _Handler(
                self._path,
                maxBytes=FILE_BYTES_MAX,
                backupCount=FILES_KEPT,
                encoding="ascii",
            )
        try:
            reach(Point.EVENT_FILE_WRITE)
            for line in lines:
                self._handler.emit(logging.makeLogRecord({"msg": line}))
        except OSError:
            self._close()
            raise

    def _close(self) -> None:
        handler, self._handler = self._handler, None
        if handler is not None:
            try:
                handler.close()
            except OSError:
                logging.getLogger(__name__).debug("%s: not closed", self._path)

    def _touch(self) -> None:
        _open(self._path).close()

    def _resume(self) -> int | None:
        """
        Return the event of the last line that is whole.

        Lines after it are damaged. They stay, since agents may have read them, and their
        events are written again.
        """
        _cut_torn_line(self._path)
        damaged, last = 0, None
        for line in _lines_from_end(self._path):
            last = _named_event(line)
            if last is not None:
                break
            damaged += 1
        if damaged:
            log.warning(
                "event_file_damaged",
                extra={"file": str(self._path), "lines": damaged},
            )
        if last is None or last[0] != self._cluster_id:
            return None  # Of the time before a restore.
        return last[1]


def last_event(path: Path) -> tuple[str, int] | None:
    """
    Return the cluster and the number of the last event in a channel's files, read only.

    None: they have none. Also a user other than the node's may read them. Raises `OSError`.
    """
    lines = _lines_from_end(path, opener=open_regular)
    return next(filter(None, map(_named_event, lines)), None)


def _named_event(line: bytes) -> tuple[str, int] | None:
    """Return the cluster and the number of the event in a line; None: it is damaged."""
    try:
        event = json.loads(line)
        cluster, sequence = event["cluster"], event["sequence"]
        whole = event["id"] == event_uid(cluster, sequence) and type(sequence) is int
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return (cluster, sequence) if whole else None


class _Handler(logging.handlers.RotatingFileHandler):
    """Rotates by size; errors are raised, not printed."""

    def _open(self) -> TextIOWrapper:
        return _open(Path(self.baseFilename))

    def doRollover(self) -> None:  # noqa: N802
        """Sync the file first: the next one tells that all earlier events are here."""
        if self.stream is not None:
            os.fsync(self.stream.fileno())
        super().doRollover()

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Raise the error that is being handled."""
        del record
        raise  # noqa: PLE0704 - Its base calls it in an `except` clause.


def _open(path: Path) -> TextIOWrapper:
    """Open a file for appending; the caller closes it."""
    return open(
        path,
        "a",
        encoding="ascii",
        opener=open_own,
    )


def _cut_torn_line(path: Path) -> None:
    if not os.path.lexists(path):
        return
    with open(path, "r+b", opener=open_own) as file:
        end = file.seek(0, os.SEEK_END)
        while end:
            begin = max(end - _BLOCK, 0)
            file.seek(begin)
            newline = file.read(end - begin).rfind(b"\n")
            if newline >= 0:
                end = begin + newline + 1
                break
            end = begin
        file.truncate(end)


def _lines_from_end(
    path: Path, opener: Callable[[str, int], int] = open_own
) -> Iterator[bytes]:
    """Yield the lines of a file, newest first, and then those of the earlier files."""
    earlier = (path.with_name(f"{path.name}.{n}") for n in range(1, FILES_KEPT + 1))
    for each in (path, *earlier):
        if not os.path.lexists(each):
            continue
        with open(each, "rb", opener=opener) as file:
            end, size, rest = file.seek(0, os.SEEK_END), _BLOCK, b""
            while end:
                begin = max(end - size, 0)
                file.seek(begin)
                rest, *lines = (file.read(end - begin) + rest).split(b"\n")
                yield from filter(None, reversed(lines))
                end, size = begin, 2 * size  # Damage may be one line of many blocks.
            if rest:
                yield rest


def _line(event: AuditEvent, cluster_id: str) -> str:
    at = dt.datetime.fromtimestamp(event.at_ms / 1000, tz=dt.UTC)
    return json.dumps(
        {
            "id": event_uid(cluster_id, event.sequence),
            "cluster": cluster_id,
            "sequence": event.sequence,
            "time": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "class": class_of(event.action).value,
            "actor": event.actor,
            "node": event.node,
            "action": event.action,
            "target": event.target,
            "outcome": event.outcome,
            "reason": event.reason,
            "detail": event.detail,
        },
        separators=(",", ":"),
    )


def _cause(path: Path, error: OSError) -> str:
    return f"{path}: {error.strerror}"
