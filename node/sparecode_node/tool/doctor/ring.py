# SPDX-License-Identifier: Apache-2.0
"""The key ring: whether it opens, where it lies, and whether it can be written."""

import os
from collections.abc import Iterator
from pathlib import Path

from sparecode_node.config import Config
from sparecode_node.membership.preparation import ring_file
from sparecode_node.services.secrets.keyring import KeyRing, KeyRingError
from sparecode_node.services.secrets.ring_file import RingFile
from sparecode_node.tool.doctor.findings import Finding, fail, ok, warn

_SUBJECT = "key ring"


def check_key_ring(config: Config) -> tuple[KeyRing | None, list[Finding]]:
    """Load the key ring, and say what its place is good for (P5)."""
    file = ring_file(config)
    try:
        ring = file.load()
        findings = list(_check_place(file, config.node.data_dir))
    except KeyRingError as error:
        return None, [fail(_SUBJECT, str(error))]
    keys = ", ".join(map(str, ring.key_ids))
    wrapped = f"encrypted with {file.wrapping_key}" if file.wrapping_key else "plain"
    words = (
        f"{file.path}, {wrapped}: cluster {ring.cluster_id}, keys {keys}, "
        f"{ring.active} active"
    )
    return ring, [ok(_SUBJECT, words), *findings]


def _check_place(file: RingFile, data_dir: Path) -> Iterator[Finding]:
    """Say what would keep a key from being rotated, or the ring from being apart."""
    if not file.path.exists():
        yield warn(
            _SUBJECT,
            f"{file.given} is not taken over yet: the node does it at its next start",
        )
    elif not file.is_settled():
        yield warn(
            _SUBJECT,
            f"{file.path} is not encrypted yet: the node does it at its next start",
        )
    if file.wrapping_key is None and file.path.is_relative_to(data_dir):
        yield warn(
            _SUBJECT,
            f"{file.path} is plain and in the data folder, so a copy of the folder "
            "opens itself: name a [keys] wrapping_key",
        )
    if problem := _cannot_write(file.path.parent, data_dir):
        yield warn(
            _SUBJECT,
            f"{problem}: no key can be rotated; give [keys] file a folder of the "
            "node's own (docs/deploy.md)",
        )


def _cannot_write(folder: Path, data_dir: Path) -> str:
    """
    Say why the node cannot write to a folder; empty: it can.

    Root may write everywhere, and is not who the node is: that is whoever owns the
    data folder.
    """
    try:
        if os.statvfs(folder).f_flag & os.ST_RDONLY:
            return f"{folder} is read-only"
        if not os.access(folder, os.W_OK | os.X_OK):
            return f"{folder} may not be written to"
        owner = data_dir.stat().st_uid
        if os.geteuid() == 0 and owner and folder.stat().st_uid != owner:
            return f"{folder} is not owned by the owner of {data_dir}"
    except OSError:
        return ""  # It is made at the start; or the data folder's look says so.
    return ""
