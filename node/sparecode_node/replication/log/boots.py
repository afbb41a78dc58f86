# SPDX-License-Identifier: Apache-2.0
"""
The starts of this node, and the promises that it has seen other members make.

A disk that went back in time, as in a restored snapshot of a virtual machine, is intact,
and only older: no checksum shows that. So a node counts its starts, each with a random
number (`Boot`), and records where its journal ended when each began. The other members
remember the start that they have last seen of it, and its promises in that start
(`Seen`). `raft/rollback.py` compares the two.

The file is beside the journal and not in it: release 0.1.0 ignores it, so a downgrade
within feature level 1 still works. It has two slots. A write without a sync only
touches the slot that the last sync did not write: a power cut leaves that one whole.
"""

import json
import zlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from sparecode_node.replication.errors import Fatal, StartRefusedError
from sparecode_node.replication.log.storage import MarkFile, Storage

NAME = "raft.boots"

KEPT_MAX = 16
"""Starts of this node that are kept, and shown to the other members."""

SLOT_BYTES = 8192
"""Enough for nine members and `KEPT_MAX` starts."""

_CRC_BYTES = 4

Position: TypeAlias = tuple[int, int, int]
"""
A term, and term and index of an entry; ordered like tuples.

On a journal: its term and its last entry. Of a promise: the term in which it was made,
and the last entry that was acknowledged then. Within a term no acknowledged entry is
cut off. So an intact journal is never at a position before any promise made from it.
"""

NOWHERE: Position = (0, 0, 0)


@dataclass(frozen=True, slots=True)
class Boot:
    """One start of a node."""

    number: int
    """Counts the starts with this journal."""
    nonce: str
    """Random: two copies of one disk start with different ones."""
    began: Position
    """Where the journal ended, and so what the start before had promised at most."""


@dataclass(frozen=True, slots=True)
class Seen:
    """The newest start that this node has seen of another member."""

    journal_id: str
    number: int
    nonce: str
    promised: Position


class BootFile:
    """The file with both. Belongs to the engine's thread."""

    def __init__(self, storage: Storage) -> None:
        """Make an empty one, for `open`."""
        self._storage = storage
        self._file: MarkFile | None = None
        self._slots = [b"", b""]
        self._spare = 0
        """The slot that does not have the version that was synced last."""
        self._version = 0
        self._journal_id = ""
        self.boots: list[Boot] = []
        """The last starts of this node, the current one at the end."""
        self.seen: dict[str, Seen] = {}
        """What was seen of each other node."""
        self.refused_by = ""
        """A member that has refused this node as an older copy; empty: none has."""

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def save(self, members: Collection[str], *, sync: bool) -> None:
        """
        Write the file; without *sync*, it reaches the disk at some later time.

        Of other nodes, only what was seen of *members* is kept. Raises `Fatal`.
        """
        if self._file is None:
            raise Fatal(f"{self._storage.where(NAME)} is closed")
        kept = {peer: seen for peer, seen in self.seen.items() if peer in members}
        self._version += 1
        self._slots[self._spare] = _slot(self._version, self._content(kept))
        try:
            self._file.write(b"".join(s.ljust(SLOT_BYTES, b"\0") for s in self._slots))
            if sync:
                self._file.sync()
                self._spare = 1 - self._spare
        except OSError as error:
            where = self._storage.where(NAME)
            raise Fatal(f"{where}: writing the file failed: {error}") from error

    def _content(self, seen: Mapping[str, Seen]) -> dict[str, Any]:
        return {
            "journal": self._journal_id,
            "boots": [[b.number, b.nonce, b.began] for b in self.boots],
            "seen": {
                peer: [s.journal_id, s.number, s.nonce, s.promised]
                for peer, s in seen.items()
            },
            "refused_by": self.refused_by,
        }

    # --- Opening

    def open(self, journal_id: str, ended: Position, nonce: str) -> None:
        """
        Read the file, and count this start durably. Raises `StartRefusedError`.

        *ended* is where the journal ends. A damaged file counts as missing: then this
        node shows its first start, and members that remember a later one refuse it.
        """
        try:
            for version, spare, content in self._read():
                if version > self._version and content["journal"] == journal_id:
                    self._version, self._spare = version, spare
                    self._take(content)
            self._journal_id = journal_id
            number = self.boots[-1].number + 1 if self.boots else 1
            self.boots = [*self.boots, Boot(number, nonce, ended)][-KEPT_MAX:]
            self._file = self._storage.mark_in(NAME)
            self.save(self.seen, sync=True)
            # Also for the journal: a killed process may have left it under a name that
            # is not on disk yet, and from now on this node makes promises with it.
            self._storage.sync_directory()
        except (OSError, Fatal) as error:
            where = self._storage.where(NAME)
            raise StartRefusedError(
                f"{where}: this start cannot be recorded: {error}"
            ) from error

    def _read(self) -> Iterator[tuple[int, int, dict[str, Any]]]:
        """Yield version and content of each valid slot, and the number of the other."""
        if not self._storage.exists(NAME):
            return
        data = self._storage.read(NAME)
        for number in range(len(self._slots)):
            slot = data[number * SLOT_BYTES : (number + 1) * SLOT_BYTES].rstrip(b"\0")
            if (content := _read_slot(slot)) is not None:
                self._slots[number] = slot
                yield content.pop("version"), 1 - number, content

    def _take(self, content: dict[str, Any]) -> None:
        self.boots = [Boot(n, nonce, tuple(at)) for n, nonce, at in content["boots"]]
        self.seen = {
            peer: Seen(journal_id, number, nonce, tuple(promised))
            for peer, (journal_id, number, nonce, promised) in content["seen"].items()
        }
        self.refused_by = content["refused_by"]


def read_refused_by(data: bytes, journal_id: str) -> str:
    """
    Return the member that has refused a node as an older copy; empty: none has.

    *data* is the node's file, which its process may be writing.
    """
    newest, refused_by = 0, ""
    for start in (0, SLOT_BYTES):
        content = _read_slot(data[start : start + SLOT_BYTES].rstrip(b"\0"))
        if content is None or content["journal"] != journal_id:
            continue
        if content["version"] > newest:
            newest, refused_by = content["version"], str(content["refused_by"])
    return refused_by


def _slot(version: int, content: dict[str, Any]) -> bytes:
    text = json.dumps({"version": version, **content}, separators=(",", ":"))
    slot = zlib.crc32(text.encode()).to_bytes(_CRC_BYTES, "little") + text.encode()
    if len(slot) > SLOT_BYTES:
        raise Fatal(f"{NAME} has no room for {len(slot)} bytes")
    return slot


def _read_slot(slot: bytes) -> dict[str, Any] | None:
    crc, text = slot[:_CRC_BYTES], slot[_CRC_BYTES:]
    if not text or zlib.crc32(text) != int.from_bytes(crc, "little"):
        return None
    content: dict[str, Any] = json.loads(text)
    return content
