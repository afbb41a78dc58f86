# SPDX-License-Identifier: Apache-2.0
"""
The journal's bytes: a header, then batches of records.

    header   magic 8 | salt 16 | crc 4
    batch    magic 4 | sequence 8 | length 4 | crc 4 | records
    record   kind 1 | length 4 | body
    mark     magic 4 | salt 16 | sequence 8 | crc 4, in a file of its own

Little endian. A batch's CRC-32 covers the salt, its sequence number, its length and its
records. The salt is random, one per file, so neither the bytes of a command nor a batch
of another file can pass for a batch of this one.

A batch is written only after the previous one is on disk. So an invalid last batch is a
tail torn by a crash, and the node never relied on it; an invalid batch before a valid
one is corruption. The mark names the last batch known to be on disk: if that batch is
invalid or missing, that is corruption, too.
"""

import enum
import hashlib
import json
import struct
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

from sparecode_node.replication.members import Configuration

FILE_MAGIC = b"SPCJRNL\x01"
BATCH_MAGIC = b"SPCB"
SALT_BYTES = 16
BATCH_BYTES_MAX = 64 * 1024 * 1024
"""Larger batches are never written, so a longer invalid rest is not a torn tail."""
JOINED_BYTES = 1024 * 1024
"""
The size of batches in a file that takes another one's place.

A batch is copied three times before it is written, and a log has many megabytes.
"""

MARK_MAGIC = b"SPCM"
_MARK = struct.Struct(f"<4s{SALT_BYTES}sQI")
_FILE_HEADER = struct.Struct(f"<8s{SALT_BYTES}sI")
_BATCH_HEADER = struct.Struct("<4sQII")
_BATCH_FIELDS = struct.Struct("<QI")
_RECORD_HEADER = struct.Struct("<BI")
_INDEX = struct.Struct("<Q")
_INDEX_AND_TERM = struct.Struct("<QQ")

FILE_HEADER_BYTES = _FILE_HEADER.size

Entry: TypeAlias = tuple[bytes, int, int]
"""Command, index, term: the tuple that PySyncObj compares entries by."""


def bytes_of(entries: Iterable[Entry]) -> int:
    """Return how long the commands of these entries are together."""
    return sum(len(command) for command, _, _ in entries)


class RecordKind(enum.IntEnum):
    """What a record contains. On disk: never reuse a number."""

    IDENTITY = 1
    TERM = 3
    ADD = 4
    TRUNCATE = 5
    BASE = 6
    CONFIGURATION = 7
    JOURNAL_ID = 8


class FormatError(Exception):
    """The file is not a journal, or is damaged; with the offset."""

    def __init__(self, offset: int, problem: str) -> None:
        super().__init__(f"at offset {offset}: {problem}")
        self.offset = offset


@dataclass(frozen=True, slots=True)
class Identity:
    """The cluster and the node that own a journal."""

    cluster_id: str
    node_id: str


@dataclass(frozen=True, slots=True)
class Batch:
    """A valid batch, and where it begins and ends."""

    sequence: int
    records: bytes
    start: int
    end: int


def file_header(salt: bytes) -> bytes:
    """Return the first bytes of a journal."""
    head = FILE_MAGIC + salt
    return head + zlib.crc32(head).to_bytes(4, "little")


def read_file_header(data: bytes) -> bytes:
    """Return the salt. Raises `FormatError`."""
    if len(data) < FILE_HEADER_BYTES:
        raise FormatError(0, "shorter than a journal's header")
    magic, salt, crc = _FILE_HEADER.unpack_from(data)
    if magic != FILE_MAGIC:
        raise FormatError(0, "not a journal of this version")
    if crc != zlib.crc32(data[: FILE_HEADER_BYTES - 4]):
        raise FormatError(0, "the journal's header is damaged")
    return bytes(salt)


def batch(salt: bytes, sequence: int, records: bytes) -> bytes:
    """Return the bytes of a batch."""
    crc = _crc(salt, sequence, records)
    return _BATCH_HEADER.pack(BATCH_MAGIC, sequence, len(records), crc) + records


def _crc(salt: bytes, sequence: int, records: bytes) -> int:
    return zlib.crc32(
        records, zlib.crc32(salt + _BATCH_FIELDS.pack(sequence, len(records)))
    )


def _batch_at(data: bytes, offset: int, salt: bytes) -> Batch | None:
    start = offset + _BATCH_HEADER.size
    if start > len(data):
        return None
    magic, sequence, length, crc = _BATCH_HEADER.unpack_from(data, offset)
    end = start + length
    if magic != BATCH_MAGIC or end > len(data):
        return None
    records = data[start:end]
    if crc != _crc(salt, sequence, records):
        return None
    return Batch(sequence, records, offset, end)


def read_batches(data: bytes, salt: bytes) -> Iterator[Batch]:
    """
    Yield the batches in order; an invalid rest after the last one is a torn tail.

    Raises `FormatError` if the rest cannot be a torn tail.
    """
    offset, sequence = FILE_HEADER_BYTES, 0
    while batch := _batch_at(data, offset, salt):
        if batch.sequence != sequence + 1:
            problem = f"batch {batch.sequence} follows batch {sequence}"
            raise FormatError(offset, problem)
        yield batch
        offset, sequence = batch.end, batch.sequence
    if len(data) - offset > _BATCH_HEADER.size + BATCH_BYTES_MAX:
        raise FormatError(offset, "damaged, and longer than a torn batch could be")
    candidate = data.find(BATCH_MAGIC, offset + 1)
    while candidate != -1:
        if later := _batch_at(data, candidate, salt):
            problem = f"damaged; valid batch {later.sequence} follows it"
            raise FormatError(offset, problem)
        candidate = data.find(BATCH_MAGIC, candidate + 1)


def mark(salt: bytes, sequence: int) -> bytes:
    """Return a mark for this batch, always of the same length."""
    crc = zlib.crc32(_MARK.pack(MARK_MAGIC, salt, sequence, 0))
    return _MARK.pack(MARK_MAGIC, salt, sequence, crc)


def read_mark(data: bytes, salt: bytes) -> int:
    """Return the marked batch of the journal with *salt*; 0: the mark is not for it."""
    if len(data) != _MARK.size:
        return 0
    sequence = int(_MARK.unpack(data)[2])
    return sequence if data == mark(salt, sequence) else 0


def joined(records: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the records in batches, each up to one record longer than `JOINED_BYTES`."""
    data = bytearray()
    for one in records:
        data += one
        if len(data) > JOINED_BYTES:
            yield bytes(data)
            data.clear()
    if data:
        yield bytes(data)


def record(kind: RecordKind, body: bytes) -> bytes:
    """Return the bytes of a record."""
    return _RECORD_HEADER.pack(kind, len(body)) + body


def identity_record(identity: Identity) -> bytes:
    """Return the record of the journal's owner."""
    body = _json([identity.cluster_id, identity.node_id])
    return record(RecordKind.IDENTITY, body)


def journal_id_record(journal_id: str) -> bytes:
    """Return the record of the journal's id, which differs from that of any later journal."""
    return record(RecordKind.JOURNAL_ID, journal_id.encode())


def configuration_record(configuration: Configuration) -> bytes:
    """Return the record of the members where the log begins."""
    return record(RecordKind.CONFIGURATION, configuration.to_bytes())


def term_record(term: int, vote: str | None) -> bytes:
    """Return the record of the term, and of this node's vote in it."""
    return record(RecordKind.TERM, _json([term, vote]))


def add_record(entry: Entry) -> bytes:
    """Return the record that appends an entry."""
    command, index, term = entry
    return record(RecordKind.ADD, _INDEX_AND_TERM.pack(index, term) + command)


def truncate_record(index: int) -> bytes:
    """Return the record that cuts the log off at *index*, which goes, too."""
    return record(RecordKind.TRUNCATE, _INDEX.pack(index))


def base_record(index: int, term: int) -> bytes:
    """Return the record that begins the log after *index*, keeping only its term."""
    return record(RecordKind.BASE, _INDEX_AND_TERM.pack(index, term))


def next_salt(salt: bytes, sequence: int) -> bytes:
    """Return the salt of the journal that replaces the one with *salt*."""
    return hashlib.sha256(salt + _INDEX.pack(sequence)).digest()[:SALT_BYTES]


def read_records(batch: Batch) -> Iterator[tuple[RecordKind, Any]]:
    """
    Yield the kinds and values of a batch's records. Raises `FormatError`.

    The values: `Identity`, `Configuration`, name of the journal, (term, vote), `Entry`,
    (index, term), or index.
    """
    data, offset = batch.records, 0
    while offset < len(data):
        try:
            kind, length = _RECORD_HEADER.unpack_from(data, offset)
            start = offset + _RECORD_HEADER.size
            body = struct.unpack_from(f"{length}s", data, start)[0]
            yield RecordKind(kind), _read_body(RecordKind(kind), body)
        except (ValueError, TypeError, RecursionError, struct.error) as error:
            where = batch.start + _BATCH_HEADER.size + offset
            raise FormatError(where, f"malformed record: {error}") from error
        offset = start + length


def _read_body(kind: RecordKind, body: bytes) -> Any:  # noqa: ANN401 - see read_records.
    match kind:
        case RecordKind.IDENTITY:
            return Identity(*json.loads(body))
        case RecordKind.CONFIGURATION:
            return Configuration.from_bytes(body)
        case RecordKind.JOURNAL_ID:
            return body.decode()
        case RecordKind.TERM:
            term, vote = json.loads(body)
            return term, vote
        case RecordKind.ADD:
            index, term = _INDEX_AND_TERM.unpack_from(body)
            return body[_INDEX_AND_TERM.size :], index, term
        case RecordKind.BASE:
            return _INDEX_AND_TERM.unpack(body)
        case RecordKind.TRUNCATE:
            return _INDEX.unpack(body)[0]


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
