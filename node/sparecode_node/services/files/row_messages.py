# SPDX-License-Identifier: Apache-2.0
"""
The messages between a node and the process that reads a file, over pipes.

The request is a line of JSON and the content of the file. The answer is a line with the
number of rows and a line for each row, or one line that says what is wrong with the
file. An answer is only data: it cannot make the node run anything.
"""

import base64
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import astuple, dataclass, field
from typing import Any, Generic, TypeVar

from sparecode_node.domain.pins import PinRule
from sparecode_node.domain.tokencodes import Algorithm, HashName
from sparecode_node.services.errors import InvalidFieldError
from sparecode_node.services.files.token_files import (
    FileRow,
    FileToken,
    TokenFile,
    TokenFileFormat,
)
from sparecode_node.services.files.user_csv import UserFileRow, UserRow

EXIT_MEMORY = 3
EXIT_BROKEN = 4
"""The exit codes of a process that has read no file."""
SEED_BYTES_PASSED = 1024
"""A longer seed is cut: it is refused, however long it is."""

R = TypeVar("R")


class AnswerError(ValueError):
    """The process sent no valid answer. The message quotes nothing of it."""


@dataclass(frozen=True, slots=True)
class FileRequest(Generic[R]):
    """A request to read a file, and how its answer becomes rows."""

    data: bytes = field(repr=False)
    parse_row: Callable[[Sequence[Any]], R]


def token_request(file: TokenFile, now_ms: int) -> FileRequest[FileRow]:
    """Return the request to read a file of tokens."""
    header = {
        "format": file.format.value,
        "password": file.password,
        "key": file.key.hex(),
        "pin_rule": file.default_pin_rule and file.default_pin_rule.value,
        "now_ms": now_ms,
    }
    return FileRequest(_line(header) + file.content, _token_row)


def user_request(content: bytes) -> FileRequest[UserFileRow]:
    """Return the request to read a file of users."""
    return FileRequest(_line({}) + content, _user_row)


def parse_request(request: bytes) -> tuple[bytes, tuple[TokenFile, int] | None]:
    """Return the content of a request, and for tokens their file and the time."""
    line, _, content = request.partition(b"\n")
    header = json.loads(line)
    if not header:
        return content, None
    rule = header["pin_rule"]
    file = TokenFile(
        format=TokenFileFormat(header["format"]),
        content=content,
        password=header["password"],
        key=bytes.fromhex(header["key"]),
        default_pin_rule=None if rule is None else PinRule(rule),
    )
    return content, (file, header["now_ms"])


def answer_of(rows: Sequence[FileRow] | Sequence[UserFileRow]) -> Iterator[bytes]:
    """Yield the lines of an answer with rows."""
    yield _line({"rows": len(rows)})
    for row in rows:
        yield _line(_values(row))


def refusal_of(error: InvalidFieldError) -> bytes:
    """Return the answer for a file that cannot be read as a whole."""
    return _line({"field": error.field, "message": error.message})


def rows_in(answer: bytes, parse_row: Callable[[Sequence[Any]], R]) -> list[R]:
    """Return the rows of an answer. Raises `InvalidFieldError` and `AnswerError`."""
    try:
        first, *lines = answer.splitlines()
        header = json.loads(first)
        if "field" in header:
            raise InvalidFieldError(str(header["field"]), str(header["message"]))
        rows = [parse_row(json.loads(line)) for line in lines]
        complete = header["rows"] == len(rows)
    except (LookupError, RecursionError, TypeError, ValueError):
        raise AnswerError("the answer is malformed") from None
    if not complete:
        raise AnswerError("the answer is incomplete")
    return rows


def _line(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"


def _values(row: FileRow | UserFileRow) -> Iterable[object]:
    if isinstance(row, UserFileRow):
        return [row.row, row.problem, row.first, *astuple(row.user)]
    token = row.token
    if token is None:
        return [row.row, row.serial, row.problem]
    return [
        row.row,
        row.serial,
        row.problem,
        token.algorithm.value,
        token.hash_name.value,
        token.digits,
        token.period_s,
        token.counter,
        base64.b64encode(token.seed[:SEED_BYTES_PASSED]).decode(),
        token.pin_rule.value,
        token.expires_at_ms,
    ]


def _user_row(values: Sequence[Any]) -> UserFileRow:
    row, problem, first, *columns = values
    username, display_name, email, groups, language, manager_email = columns
    return UserFileRow(
        row=int(row),
        user=UserRow(
            username=str(username),
            display_name=str(display_name),
            email=str(email),
            groups=str(groups),
            language=str(language),
            manager_email=str(manager_email),
        ),
        problem=str(problem),
        first=int(first),
    )


def _token_row(values: Sequence[Any]) -> FileRow:
    row, serial, problem, *rest = values
    if not rest:
        return FileRow(row=int(row), serial=str(serial), problem=str(problem))
    algorithm, hash_name, digits, period_s, counter, seed, pin_rule, end = rest
    return FileRow(
        row=int(row),
        serial=str(serial),
        token=FileToken(
            # Not longer than a row shows: a longer one is refused anyway.
            serial=str(serial),
            algorithm=Algorithm(algorithm),
            hash_name=HashName(hash_name),
            digits=int(digits),
            period_s=int(period_s),
            counter=int(counter),
            seed=base64.b64decode(seed, validate=True),
            pin_rule=PinRule(pin_rule),
            expires_at_ms=None if end is None else int(end),
        ),
    )
