# SPDX-License-Identifier: Apache-2.0
"""
The log: one line for each event, as text for people or as JSON for programs.

Every line has the fields of `SCHEMA`, then those of its event. All values are text.
`docs/logs.md` describes them. Lines logged during a call contain its request id.
"""

import datetime as dt
import json
import logging

from sparecode_node.config import LogConfig, LogFormat
from sparecode_node.rpc.interceptors import REQUEST_ID

SCHEMA = ("time", "level", "logger", "message", "node")
"""The fields of every JSON line."""

_STANDARD = frozenset(
    {*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"}
)


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
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(config.level.value.upper())
    # At level debug it logs every query with its values, which may be secrets.
    logging.getLogger("aiosqlite").setLevel(logging.INFO)
