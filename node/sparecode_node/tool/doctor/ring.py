# SPDX-License-Identifier: Apache-2.0
"""Checks of the key ring: whether it opens, where it is, whether it is writable."""

import os
from collections.abc import Iterator
from pathlib import Path

from sparecode_node.config import Config
from sparecode_node.membership.preparation import ring_file
from sparecode_node.services.ambient import SystemEntropy
from sparecode_node.services.secrets.keyring import KeyRing, KeyRingError
from sparecode_node.services.secrets.ring_file import NOT_ENCRYPTED, RingFile
from sparecode_node.services.secrets.wrap_command import KEY_BYTES
from sparecode_node.tool.doctor.findings import Finding, fail, ok, warn

_SUBJECT = "key ring"


def check_key_ring(config: Config) -> tuple[KeyRing | None, list[Finding]]:
    """Load the key ring, and check its place (P5)."""
    file = ring_file(config)
    try:
        ring = file.load()
        findings = list(_check_place(file, config.node.data_dir))
    except KeyRingError as error:
        return None, [fail(_SUBJECT, str(error))]
    keys = ", ".join(map(str, ring.key_ids))
    words = (
        f"{file.path}, {file.protection()}: cluster {ring.cluster_id}, keys {keys}, "
        f"{ring.active} active"
    )
    return ring, [ok(_SUBJECT, words), *findings]


def _check_place(file: RingFile, data_dir: Path) -> Iterator[Finding]:
    """Check for what prevents key rotation, or leaves the ring open to a copy."""
    if not file.path.exists():
        yield warn(
            _SUBJECT,
            f"{file.initial} is not copied yet: the node copies it at its next start",
        )
    elif not file.is_settled():
        yield warn(
            _SUBJECT,
            f"{file.path} is not {file.protection()} yet: the node encrypts it at its "
            "next start",
        )
    if file.command is not None:
        try:
            file.command.wrap(SystemEntropy().token_bytes(KEY_BYTES))
        except KeyRingError as error:
            yield warn(_SUBJECT, f"keys cannot be rotated: {error}")
    if file.protection() == NOT_ENCRYPTED and file.path.is_relative_to(data_dir):
        yield warn(
            _SUBJECT,
            f"{file.path} is not encrypted and in the data folder, so anyone with a "
            "copy of the folder can read all secrets: set [keys] wrapping_key or "
            "wrap_command",
        )
    if problem := _cannot_write(file.path.parent, data_dir):
        yield warn(
            _SUBJECT,
            f"{problem}: keys cannot be rotated; move the file to a folder that the "
            "node's user owns, and name it in [keys] file (docs/deploy.md)",
        )


def _cannot_write(folder: Path, data_dir: Path) -> str:
    """
    Return why the node cannot write to a folder, or an empty text if it can.

    Root can write everywhere, but the node does not run as root: it runs as the
    owner of the data folder.
    """
    try:
        if os.statvfs(folder).f_flag & os.ST_RDONLY:
            return f"{folder} is read-only"
        if not os.access(folder, os.W_OK | os.X_OK):
            return f"{folder} is not writable"
        owner = data_dir.stat().st_uid
        if os.geteuid() == 0 and owner and folder.stat().st_uid != owner:
            return f"{folder} is not owned by the owner of {data_dir}"
    except OSError:
        return ""  # The node creates it at its start, or `check_disk` reports it.
    return ""
