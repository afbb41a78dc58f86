# SPDX-License-Identifier: Apache-2.0
"""
The file of a backup: a readable manifest, and the state encrypted by `age_files`.

A tar file with two members, in this order:

    manifest.json   what the backup holds, signed by the cluster
    state.age       the SQLite file of the state, encrypted to the recipients

The signature is made with the key of audit checkpoints (`sparecode-node audit-keys`),
over `sparecode backup manifest 1`, a line feed and the manifest as canonical JSON. So a
recipient's public key is not enough to forge a backup that restores.
"""

import base64
import binascii
import dataclasses
import hashlib
import io
import json
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from sparecode_node.domain.ids import KeyId
from sparecode_node.services.secrets.sealing import Sealing

FORMAT = 1
MANIFEST = "manifest.json"
STATE = "state.age"
FIRST_LINE = b"sparecode backup manifest 1\n"
"""Nothing else that the key may sign begins with this line."""
MANIFEST_BYTES_MAX = 65_536
PIECE_BYTES = 1 << 20


class BackupFileError(Exception):
    """The file is not a usable backup. The message gives the reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BackupManifest:
    """The manifest of a backup: the state that it holds."""

    format: int
    cluster_id: str
    epoch: int
    index: int
    """The last log entry that the state holds."""
    term: int
    """The term of the node that took it, at that moment."""
    digest: str
    """The digest of the state, as replicas compare it."""
    audit_sequence: int
    audit_head: str
    """Hash of the last audit event, in hex."""
    state_at_ms: int
    """The log's time at the last entry."""
    taken_at_ms: int
    node_id: str
    version: str
    """The version of the software."""
    state_bytes: int
    state_sha256: str
    """The hash of the SQLite file before encryption."""
    recipients: tuple[str, ...]
    key_id: int
    """The active key of the ring: it signed the manifest and made the newest seals."""

    def signed_bytes(self) -> bytes:
        """Return the bytes that are signed."""
        return FIRST_LINE + json.dumps(
            dataclasses.asdict(self),
            ensure_ascii=True,
            sort_keys=True,
            separators=(",", ":"),
        ).encode("ascii")


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedManifest:
    """A manifest and its signature."""

    manifest: BackupManifest
    public_key: bytes
    signature: bytes

    def signed_by(self, public_key: bytes) -> bool:
        """Return whether the holder of *public_key* signed it."""
        try:
            Ed25519PublicKey.from_public_bytes(public_key).verify(
                self.signature, self.manifest.signed_bytes()
            )
        except (InvalidSignature, ValueError):
            return False
        return True


def sign(sealing: Sealing, manifest: BackupManifest) -> SignedManifest:
    """Sign a manifest with the key that signs audit checkpoints."""
    _, key = sealing.checkpoint_key()
    return SignedManifest(
        manifest=manifest,
        public_key=key.public_key().public_bytes_raw(),
        signature=key.sign(manifest.signed_bytes()),
    )


def is_signed_by_ring(sealing: Sealing, signed: SignedManifest) -> bool:
    """Return whether a node with this key ring signed it."""
    known = sealing.checkpoint_public_key(KeyId(signed.manifest.key_id))
    return known is not None and signed.signed_by(known)


def pieces(signed: SignedManifest, state: Path) -> Iterator[bytes]:
    """Yield the file piece by piece. *state* is already encrypted."""
    content = {
        "manifest": dataclasses.asdict(signed.manifest),
        "public_key": base64.b64encode(signed.public_key).decode(),
        "signature": base64.b64encode(signed.signature).decode(),
    }
    text = json.dumps(content, indent=2).encode() + b"\n"
    yield _header(MANIFEST, len(text), signed.manifest.taken_at_ms)
    yield text + _padding(len(text))
    size = state.stat().st_size
    yield _header(STATE, size, signed.manifest.taken_at_ms)
    with state.open("rb") as file:
        while piece := file.read(PIECE_BYTES):
            yield piece
    yield _padding(size) + bytes(2 * tarfile.BLOCKSIZE)


def _header(name: str, size: int, at_ms: int) -> bytes:
    member = tarfile.TarInfo(name)
    member.size, member.mtime, member.mode = size, at_ms // 1000, 0o600
    return member.tobuf(tarfile.PAX_FORMAT)


def _padding(size: int) -> bytes:
    return bytes(-size % tarfile.BLOCKSIZE)


def read_manifest(path: Path) -> SignedManifest:
    """Return the manifest of a backup. Raises `BackupFileError`."""
    with _opened(path) as file:
        return _manifest(path, file)


@contextmanager
def open_state(path: Path) -> Iterator[tuple[SignedManifest, IO[bytes]]]:
    """Yield the manifest of a backup and its open, encrypted state."""
    with _opened(path) as file:
        yield _manifest(path, file), _member(path, file, STATE)


@contextmanager
def _opened(path: Path) -> Iterator[tarfile.TarFile]:
    try:
        with tarfile.open(path, "r:") as file:
            yield file
    except (tarfile.TarError, OverflowError, ValueError) as error:
        # The last two: numbers in a header that nothing can be.
        raise BackupFileError(f"{path}: not a backup: {error}") from None
    except OSError as error:
        raise BackupFileError(f"{path}: {error.strerror or error}") from error


def _member(path: Path, file: tarfile.TarFile, name: str) -> IO[bytes]:
    """Return a member that is a file of its own: no link to another, and no sparse one."""
    try:
        member = file.getmember(name)
    except KeyError:
        raise BackupFileError(f"{path}: incomplete backup: it has no {name}") from None
    content = file.extractfile(member) if member.isreg() else None
    if content is None or member.issparse():
        raise BackupFileError(f"{path}: not a backup: {name} is not a file")
    return content


def _manifest(path: Path, file: tarfile.TarFile) -> SignedManifest:
    text = _member(path, file, MANIFEST).read(MANIFEST_BYTES_MAX)
    try:
        content = json.load(io.BytesIO(text))
        return SignedManifest(
            manifest=_checked(content["manifest"]),
            public_key=base64.b64decode(content["public_key"], validate=True),
            signature=base64.b64decode(content["signature"], validate=True),
        )
    except (
        AttributeError,
        KeyError,
        RecursionError,
        TypeError,
        ValueError,
        binascii.Error,
    ) as error:
        raise BackupFileError(f"{path}: its manifest cannot be read: {error}") from None


def _checked(fields: dict[str, Any]) -> BackupManifest:
    if fields.get("format") != FORMAT:
        raise ValueError(
            f"it has format {fields.get('format')}; this software reads {FORMAT}"
        )
    fields = {**fields, "recipients": tuple(fields["recipients"])}
    manifest = BackupManifest(**fields)
    for field in dataclasses.fields(BackupManifest):
        value = getattr(manifest, field.name)
        if field.type in (int, str) and type(value) is not field.type:
            raise ValueError(f"{field.name} has the wrong type")
    return manifest


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
