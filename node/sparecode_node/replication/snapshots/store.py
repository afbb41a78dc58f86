# SPDX-License-Identifier: Apache-2.0
"""
The newest snapshot of this node, and the one that it is receiving, on its disk.

A snapshot counts once it has a manifest: that is written when the body is on disk,
under another name, and renamed. So a crash leaves the old snapshot or the new one; the
next start removes other files. Only one thread at a time may change the files; any
thread may read `current`.
"""

import contextlib
import hashlib
import logging
import zlib
from dataclasses import dataclass
from typing import Self

from google.protobuf.message import DecodeError

from sparecode.internal.v1 import snapshot_pb2
from sparecode_node.fault_points import Point, reach
from sparecode_node.replication.errors import SnapshotRefusedError
from sparecode_node.replication.log.storage import AppendFile, Storage
from sparecode_node.replication.members import (
    Configuration,
    ConfigurationError,
)
from sparecode_node.replication.settings import SNAPSHOT_CHUNK_BYTES

log = logging.getLogger(__name__)

FORMAT = 1
MANIFEST = "snapshot.manifest"
WRITTEN = "snapshot.written"
"""A body that this node has written, and that has no manifest yet."""
RECEIVED = "snapshot.received"
"""A body that this node is receiving, complete or not."""
_PREFIX = "snapshot."
READ_BYTES = 4 * 1024 * 1024
"""Of a body at once: between two parts, a thread waits for the interpreter."""


class BrokenSnapshotError(Exception):
    """The received bytes are not the snapshot that was announced."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What a snapshot contains."""

    cluster_id: str
    index: int
    term: int
    configuration: Configuration
    """The members at that index."""
    digest: str
    """Of the state. Empty from feature level 2 on."""
    length: int
    sha256: bytes

    @property
    def body(self) -> str:
        """Name of the body's file."""
        return f"{_PREFIX}{self.index}.{self.sha256[:8].hex()}"

    def to_message(self) -> snapshot_pb2.SnapshotManifest:
        """Return the message that is written and sent."""
        return snapshot_pb2.SnapshotManifest(
            format=FORMAT,
            cluster_id=self.cluster_id,
            index=self.index,
            term=self.term,
            members=self.configuration.ids,
            configuration=self.configuration.to_message(),
            digest=self.digest,
            length=self.length,
            sha256=self.sha256,
        )

    def to_bytes(self) -> bytes:
        """Return the bytes of the manifest's file."""
        data = self.to_message().SerializeToString(deterministic=True)
        return zlib.crc32(data).to_bytes(4, "little") + data

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Return the manifest in these bytes. Raises `BrokenSnapshotError`."""
        crc, data = data[:4], data[4:]
        if crc != zlib.crc32(data).to_bytes(4, "little"):
            raise BrokenSnapshotError("the manifest is damaged")
        try:
            message = snapshot_pb2.SnapshotManifest.FromString(data)
        except DecodeError as error:
            raise BrokenSnapshotError("not a manifest") from error
        return cls.from_message(message)

    @classmethod
    def from_message(cls, message: snapshot_pb2.SnapshotManifest) -> Self:
        """Return the manifest in a message. Raises `BrokenSnapshotError`."""
        plausible = (
            message.format == FORMAT
            and message.index > 0
            and message.term >= 0
            and message.length > 0
            and len(message.sha256) == hashlib.sha256().digest_size
        )
        if not plausible:
            raise BrokenSnapshotError("not a manifest of this version")
        try:
            configuration = Configuration.from_message(message.configuration)
        except ConfigurationError as error:
            raise BrokenSnapshotError(str(error)) from error
        return cls(
            cluster_id=message.cluster_id,
            index=message.index,
            term=message.term,
            configuration=configuration,
            digest=message.digest,
            length=message.length,
            sha256=message.sha256,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What a file was when it was read."""

    name: str
    length: int
    sha256: bytes


def measure(storage: Storage, name: str) -> Measured:
    """Read a file."""
    total, length = hashlib.sha256(), 0
    while data := storage.read_at(name, length, READ_BYTES):
        total.update(data)
        length += len(data)
    return Measured(name=name, length=length, sha256=total.digest())


def measure_newest(storage: Storage) -> Measured | None:
    """
    Read the body of the newest snapshot, in any thread before the store is opened.

    Returns None if there is none that can be read: the store will say why. Changes
    nothing.
    """
    try:
        if not storage.exists(MANIFEST):
            return None
        manifest = Manifest.from_bytes(storage.read(MANIFEST))
        return measure(storage, manifest.body)
    except (BrokenSnapshotError, OSError):
        return None


class SnapshotStore:
    """The snapshots in one directory. Methods may raise `OSError`."""

    def __init__(self, storage: Storage, measured: Measured | None = None) -> None:
        """*measured*: by `measure_newest` at this start."""
        self.storage = storage
        self.current: Manifest | None = self._load(measured)
        """The newest snapshot; its body is complete."""
        self._receiving: Manifest | None = None
        self._file: AppendFile | None = None
        self._received = 0

    def _load(self, measured: Measured | None) -> Manifest | None:
        """Return the snapshot on disk if it is complete; remove all other files."""
        manifest = self._read_manifest(measured)
        for name in self.storage.list_names():
            kept = manifest is not None and name in (MANIFEST, manifest.body)
            if name.startswith(_PREFIX) and not kept:
                self.storage.remove(name)
        return manifest

    def _read_manifest(self, measured: Measured | None) -> Manifest | None:
        if not self.storage.exists(MANIFEST):
            return None
        try:
            manifest = Manifest.from_bytes(self.storage.read(MANIFEST))
            self._check(manifest, manifest.body, measured)
        except BrokenSnapshotError as error:
            # A new one can be taken; until then the log is not compacted further.
            where = self.storage.where(MANIFEST)
            log.warning("snapshot_dropped", extra={"file": where, "cause": str(error)})
            return None
        return manifest

    def _check(
        self, manifest: Manifest, name: str, measured: Measured | None = None
    ) -> None:
        """
        Compare a body with its manifest. Raises `BrokenSnapshotError`.

        It is read, unless it is what was *measured* before.
        """
        if not self.storage.exists(name):
            raise BrokenSnapshotError("the snapshot is missing")
        if measured is None or measured.name != name:
            measured = measure(self.storage, name)
        if (measured.length, measured.sha256) != (manifest.length, manifest.sha256):
            raise BrokenSnapshotError("length or SHA-256 are not those of the manifest")

    def measure(self, name: str) -> tuple[int, bytes]:
        """Return length and SHA-256 of a file."""
        found = measure(self.storage, name)
        return found.length, found.sha256

    def clear(self, name: str) -> str:
        """Remove the file *name*; return its path for a new body."""
        self.storage.remove(name)
        return self.storage.where(name)

    def adopt(self, manifest: Manifest, name: str) -> None:
        """
        Make the body *name*, which `measure` has read, the newest snapshot.

        Raises `SnapshotRefusedError` if that cannot be written: the older snapshot
        stays, and nothing relies on this one.
        """
        try:
            self._adopt(manifest, name)
        except OSError as error:
            raise SnapshotRefusedError(f"it cannot be written: {error}") from error

    def _adopt(self, manifest: Manifest, name: str) -> None:
        storage = self.storage
        with contextlib.closing(storage.append_to(name)) as file:
            reach(Point.SNAPSHOT_SYNC)
            file.sync()
        storage.rename(name, manifest.body)
        new, old = MANIFEST + ".new", self.current
        is_another = old is None or old.body != manifest.body
        try:
            reach(Point.SNAPSHOT_NAMED)
            self._write_manifest(manifest, new)
            reach(Point.SNAPSHOT_MANIFEST)
        except OSError:
            if is_another:  # On a full disk, each attempt would leave one.
                storage.remove(manifest.body)
            raise
        storage.rename(new, MANIFEST)
        reach(Point.SNAPSHOT_REPLACED)
        storage.sync_directory()
        self.current = manifest
        reach(Point.SNAPSHOT_TAKEN)
        if old is not None and is_another:
            storage.remove(old.body)

    def _write_manifest(self, manifest: Manifest, name: str) -> None:
        """Write the manifest; return when it and the body's name are on disk."""
        self.storage.remove(name)
        with contextlib.closing(self.storage.append_to(name)) as file:
            file.append(manifest.to_bytes())
            file.sync()
        self.storage.sync_directory()

    # --- Sending

    def chunk(self, manifest: Manifest, offset: int, size: int) -> bytes:
        """Return at most *size* bytes of the newest snapshot, none at its end."""
        size = max(0, min(size, SNAPSHOT_CHUNK_BYTES))
        return self.storage.read_at(manifest.body, offset, size)

    # --- Receiving

    def part(self) -> tuple[bytes, int]:
        """Return the SHA-256 of the snapshot in progress, and how much of it is here."""
        if self._receiving is None:
            return b"", 0
        return self._receiving.sha256, self._received

    def receiving_index(self) -> int:
        """Return the entry of the snapshot in progress, 0 if there is none."""
        return 0 if self._receiving is None else self._receiving.index

    def is_complete(self) -> bool:
        """Return whether all bytes of the snapshot in progress are here."""
        return self._receiving is not None and self._received == self._receiving.length

    def begin(self, manifest: Manifest) -> None:
        """Start to receive a snapshot, or continue if it is the one in progress."""
        if manifest == self._receiving:
            return
        self.abandon()
        self.storage.remove(RECEIVED)
        self._file = self.storage.append_to(RECEIVED)
        self._receiving, self._received = manifest, 0

    def add(self, offset: int, data: bytes, crc32: int) -> None:
        """
        Append a chunk. Raises `BrokenSnapshotError`, and keeps the earlier chunks.

        The same holds for an `OSError`, for example on a full disk, if the part of the
        chunk that was written can be cut off; else receiving starts over.
        """
        if self._receiving is None or self._file is None or offset != self._received:
            raise BrokenSnapshotError("the chunk does not follow")
        if not data or zlib.crc32(data) != crc32:
            raise BrokenSnapshotError("the chunk is damaged")
        if offset + len(data) > self._receiving.length:
            raise BrokenSnapshotError("longer than announced")
        try:
            reach(Point.SNAPSHOT_PART)
            self._file.append(data)
        except OSError:
            self._cut_off()
            raise
        self._received += len(data)

    def _cut_off(self) -> None:
        """Remove what a failed write may have left of a chunk."""
        try:
            self.storage.truncate(RECEIVED, self._received)
        except OSError:
            self.abandon()

    def complete(self) -> Manifest:
        """
        Return the received snapshot, once it is complete and on disk.

        Raises `BrokenSnapshotError`; then receiving starts over.
        """
        manifest, file = self._receiving, self._file
        if manifest is None or file is None or self._received < manifest.length:
            raise BrokenSnapshotError("the snapshot is incomplete")
        try:
            reach(Point.SNAPSHOT_COMPLETE)
            file.sync()
        finally:
            # After a failed sync the next one would succeed, and write nothing.
            self.abandon()
        self._check(manifest, RECEIVED)
        return manifest

    def abandon(self) -> None:
        """Forget the part received so far."""
        if self._file is not None:
            self._file.close()
        self._file, self._receiving, self._received = None, None, 0
