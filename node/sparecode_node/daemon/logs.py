# SPDX-License-Identifier: Apache-2.0
"""
The log: one line for each event, as text for people or as JSON for programs.

Every line has the fields of `SCHEMA`, then those of its event. All values are text.
`docs/logs.md` describes them. Lines logged during a call contain its request id.
"""

import datetime as dt
import json
import logging
import threading
from dataclasses import dataclass

from sparecode_node.config import LogConfig, LogFormat
from sparecode_node.services.ended_calls import REQUEST_ID

SCHEMA = ("time", "level", "logger", "message", "node")
"""The fields of every JSON line."""

_STANDARD = frozenset(
    {*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"}
)


_CONSOLE = "sparecode_node.console.app"
_HTTP = "sparecode_node.http.app"
_PEERS = "sparecode_node.replication.links.peer_service"
_CALLS = "sparecode_node.rpc.interceptors"
MANY = 20
LINES_PER_S = {
    "grpc": 1,
    "grpc._cython.cygrpc": 1,
    "uvicorn.error": 1,
    (_CONSOLE, "form refused"): 1,
    (_PEERS, "call_refused"): 1,
    (_PEERS, "frame_dropped"): 1,
    (_PEERS, "stranger_refused"): 1,
    (_CALLS, "call refused"): MANY,
    (_HTTP, "call refused"): MANY,
    (_CALLS, "call cancelled by its caller"): MANY,
}
"""
Lines that callers cause as often as they like: those of a logger, or those with one
message. A flood of them must not fill a disk.
"""

ODD_METADATA = "metadata of a call is not UTF-8"


@dataclass(slots=True)
class _Second:
    """The lines of one kind within a second."""

    began: float = 0.0
    lines: int = 0
    left_out: int = 0


class FloodFilter(logging.Filter):
    """
    Bounds the lines that callers cause. The next line tells how many were left out.

    It also removes the bytes of the caller from a line of gRPC about odd metadata: they
    may be a session.
    """

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()
        self._seconds = {kind: _Second() for kind in LINES_PER_S}

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether to write the line."""
        kind = record.name if record.name in LINES_PER_S else (record.name, record.msg)
        second = self._seconds.get(kind)
        if second is None:
            return True
        with self._lock:
            if not 0 <= record.created - second.began < 1:
                second.began, second.lines = record.created, 0
            second.lines += 1
            if second.lines > LINES_PER_S[kind]:
                second.left_out += 1
                return False
            left_out, second.left_out = second.left_out, 0
        if left_out:
            record.left_out = str(left_out)
        if str(record.msg).startswith("Invalid encoding"):
            record.msg, record.args, record.exc_info = ODD_METADATA, (), None
        return True


class _Formatter(logging.Formatter):
    """Base of the formatters: the time and the fields of a record."""

    def __init__(self, node: str = "") -> None:
        super().__init__()
        self.node = node

    def fields(self, record: logging.LogRecord) -> dict[str, str]:
        """Return the fields of the event, with the request id and the stack trace."""
        fields = {
            key: str(value)
            for key, value in vars(record).items()
            if key not in _STANDARD and value != ""
        }
        if request_id := REQUEST_ID.get():
            fields.setdefault("request_id", request_id)
        if record.exc_info:
            fields["trace"] = self.formatException(record.exc_info)
        return fields

    def time(self, record: logging.LogRecord) -> str:
        """Return the time in UTC, to the millisecond."""
        at = dt.datetime.fromtimestamp(record.created, dt.UTC)
        return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


class TextFormatter(_Formatter):
    """One line for people. Values with spaces or special characters are quoted."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, followed by the stack trace if there is one."""
        fields = self.fields(record)
        trace = fields.pop("trace", "")
        line = " ".join(
            (
                self.time(record),
                f"{record.levelname:<8}",
                _line(record.getMessage()),
                *(f"{key}={_quoted(value)}" for key, value in fields.items()),
            )
        )
        return f"{line}\n{trace}" if trace else line


class JsonFormatter(_Formatter):
    """One JSON object per line, for programs."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        schema = {
            "time": self.time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            "node": self.node,
        }
        # Fields of an event never replace those of the schema.
        return json.dumps({**schema, **self.fields(record), **schema})


def _line(text: str) -> str:
    """Escape line breaks, so that outside text cannot forge a line of the log."""
    return text if text.isprintable() else text.encode("unicode_escape").decode()


def _quoted(value: str) -> str:
    plain = value.isprintable() and not set(value) & set(" \"'=")
    return value if plain else json.dumps(value)


def set_up_logging(config: LogConfig, *, node: str = "") -> None:
    """Send the log to standard error, in the configured level and format."""
    handler = logging.StreamHandler()
    handler.setFormatter(
        JsonFormatter(node) if config.format is LogFormat.JSON else TextFormatter(node)
    )
    handler.addFilter(FloodFilter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(config.level.value.upper())
    # At level debug it logs every query with its values, which may be secrets.
    logging.getLogger("aiosqlite").setLevel(logging.INFO)
