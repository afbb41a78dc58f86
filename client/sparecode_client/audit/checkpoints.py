# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of the audit log: files, signatures and public keys (U2)."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from sparecode_client.values.audit import Checkpoint

CHECKPOINT_FIRST_LINE = b"sparecode audit checkpoint 1\n"
_PEM_END = b"-----END PUBLIC KEY-----"
FILE_BYTES_MAX = 1024 * 1024
"""Of a file with a checkpoint or with keys."""


class AuditFileError(Exception):
    """A file cannot be used. The message names the file and the reason."""


def canonical_form(fields: dict[str, str | int]) -> bytes:
    """Return the bytes to hash for an event, or to sign for a checkpoint."""
    # The API defines this form: JSON as Python writes it with these settings.
    text = json.dumps(fields, ensure_ascii=True, sort_keys=True, separators=(",", ":"))
    return text.encode("ascii")


def signature_is_right(checkpoint: Checkpoint) -> bool:
    """Return whether the checkpoint's signature matches its public key."""
    message = CHECKPOINT_FIRST_LINE + canonical_form(
        {
            "at_ms": checkpoint.at_ms,
            "cluster_id": checkpoint.cluster_id,
            "head": checkpoint.head.hex(),
            "key_id": checkpoint.key_id,
            "sequence": checkpoint.sequence,
        }
    )
    try:
        key = Ed25519PublicKey.from_public_bytes(checkpoint.public_key)
        key.verify(checkpoint.signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def checkpoint_text(checkpoint: Checkpoint) -> str:
    """Return the content of a checkpoint file."""
    content = {
        "cluster_id": checkpoint.cluster_id,
        "sequence": checkpoint.sequence,
        "head": checkpoint.head.hex(),
        "at_ms": checkpoint.at_ms,
        "key_id": checkpoint.key_id,
        "public_key": base64.b64encode(checkpoint.public_key).decode(),
        "signature": base64.b64encode(checkpoint.signature).decode(),
    }
    return json.dumps(content, indent=2) + "\n"


def read_checkpoint(path: Path) -> Checkpoint:
    """
    Return the checkpoint in a file. Its signature is not checked.

    Raises:
        AuditFileError: The file holds no checkpoint, or cannot be read.
    """
    try:
        content = json.loads(_bytes(path))
        if not _is_checkpoint(content):
            raise AuditFileError(f"{path}: not a checkpoint")
        return Checkpoint(
            cluster_id=content["cluster_id"],
            sequence=content["sequence"],
            head=bytes.fromhex(content["head"]),
            at_ms=content["at_ms"],
            key_id=content["key_id"],
            public_key=base64.b64decode(content["public_key"], validate=True),
            signature=base64.b64decode(content["signature"], validate=True),
        )
    except (ValueError, RecursionError) as error:
        raise AuditFileError(f"{path}: not a checkpoint") from error


def _is_checkpoint(content: Any) -> bool:  # noqa: ANN401  Whatever JSON holds.
    numbers = ("sequence", "at_ms", "key_id")
    words = ("cluster_id", "head", "public_key", "signature")
    return (
        isinstance(content, dict)
        and set(content) == {*numbers, *words}
        and all(type(content[name]) is int and content[name] >= 0 for name in numbers)
        and all(isinstance(content[name], str) for name in words)
    )


def read_public_keys(path: Path) -> tuple[bytes, ...]:
    """
    Return the Ed25519 public keys in a PEM file.

    Raises:
        AuditFileError: The file holds no public key, or another kind of key.
    """
    keys = []
    for block in _blocks(_bytes(path)):
        try:
            key = load_pem_public_key(block)
        except (ValueError, UnsupportedAlgorithm) as error:
            raise AuditFileError(f"{path}: not a PEM public key") from error
        if not isinstance(key, Ed25519PublicKey):
            raise AuditFileError(f"{path}: holds a key that is not an Ed25519 key")
        keys.append(key.public_bytes_raw())
    if not keys:
        raise AuditFileError(f"{path}: holds no PEM public key")
    return tuple(keys)


def _blocks(content: bytes) -> Iterator[bytes]:
    """Yield each public key in a PEM file, and skip certificates."""
    *blocks, _ = content.split(_PEM_END)
    for block in blocks:
        yield block[block.rfind(b"-----BEGIN") :] + _PEM_END + b"\n"


def _bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(FILE_BYTES_MAX)
    except OSError as error:
        raise AuditFileError(f"{path}: {error.strerror}") from error
