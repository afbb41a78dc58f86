# SPDX-License-Identifier: Apache-2.0
"""The audit log as a file: JSON Lines for programs, CSV for spreadsheets."""

import csv
import datetime as dt
import enum
import io
import json
from collections.abc import Iterable
from dataclasses import asdict

from sparecode_node.queries.audit import AuditRecord

COLUMNS = (
    "sequence",
    "time",
    "actor",
    "node",
    "action",
    "target",
    "outcome",
    "reason",
    "detail",
    "previous_hash",
    "hash",
)

FORMULA_BEGINNINGS = frozenset("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20")
"""First characters of a formula in spreadsheets; the last four are full-width forms."""


class ExportFormat(enum.StrEnum):
    """The format of an export."""

    JSON_LINES = "json_lines"
    CSV = "csv"


def header(form: ExportFormat) -> bytes:
    """Return the header, which precedes the first event."""
    return _rows([COLUMNS]) if form is ExportFormat.CSV else b""


def lines(form: ExportFormat, records: Iterable[AuditRecord]) -> bytes:
    """Return events, one line each."""
    if form is ExportFormat.CSV:
        return _rows(_cells(record) for record in records)
    return b"".join(_json_line(record) for record in records)


def _json_line(record: AuditRecord) -> bytes:
    content = {
        **asdict(record.event),
        "previous_hash": record.previous_hash.hex(),
        "hash": record.hash.hex(),
    }
    line = json.dumps(content, ensure_ascii=True, sort_keys=True, separators=(",", ":"))
    return line.encode("ascii") + b"\n"


def _rows(rows: Iterable[Iterable[str]]) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue().encode()


def _cells(record: AuditRecord) -> list[str]:
    event = record.event
    at = dt.datetime.fromtimestamp(event.at_ms / 1000, dt.UTC)
    return [
        str(event.sequence),
        at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        *(
            harmless(cell)
            for cell in (
                event.actor,
                event.node,
                event.action,
                event.target,
                event.outcome,
                event.reason,
                event.detail,
            )
        ),
        record.previous_hash.hex(),
        record.hash.hex(),
    ]


def harmless(cell: str) -> str:
    """Return a cell that no spreadsheet executes: names and words come from other people."""
    begins = cell.lstrip(" ")[:1]
    return f"'{cell}" if begins in FORMULA_BEGINNINGS else cell
