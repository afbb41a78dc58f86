# SPDX-License-Identifier: Apache-2.0
"""
The record of the last recovery bundle that was exported on this node.

A cluster whose only copy of the authorities' keys is on one machine loses them with
that machine. From the record the node knows that a bundle is missing, or does not
have the current keys. It holds hashes only.
"""

import enum
import hashlib
import json
import logging
from pathlib import Path

from cryptography.hazmat.primitives import serialization

from sparecode_node.config import Config
from sparecode_node.membership.files import PRIVATE, key_beside, put
from sparecode_node.membership.preparation import ring_file
from sparecode_node.membership.successors import SuccessorFiles
from sparecode_node.services.secrets.keyring import KeyRing, KeyRingError

log = logging.getLogger(__name__)

RECORD = "bundle.json"
"""In the data folder."""


class BundleState(enum.StrEnum):
    """Whether a recovery bundle has the keys that would be lost with this node."""

    NOT_HERE = "not_here"
    """This node has no key of an authority: bundles are exported elsewhere."""
    MISSING = "missing"
    """No bundle was ever exported on this node."""
    OUTDATED = "outdated"
    """An authority or the key of the ring was replaced after the last bundle."""
    CURRENT = "current"


def record_bundle(config: Config, ring: KeyRing) -> None:
    """Record that a bundle with the current keys was exported. Raises `StartError`."""
    content = json.dumps({"keys": _keys(config, ring)}, indent=2).encode() + b"\n"
    put(config.node.data_dir / RECORD, content, PRIVATE)


def bundle_state(config: Config, ring: KeyRing | None = None) -> BundleState:
    """
    Return whether the last bundle has the keys that this node has.

    *ring* is the ring of a running node; by default it is read from its file.
    """
    if not any(path.exists() for path in _key_files(config)):
        return BundleState.NOT_HERE
    try:
        content = json.loads((config.node.data_dir / RECORD).read_bytes())
        recorded = set(content["keys"])
    except (OSError, ValueError, KeyError, TypeError):
        return BundleState.MISSING
    try:
        now = set(_keys(config, ring or ring_file(config).load()))
    except (OSError, ValueError, KeyRingError) as error:
        log.warning("bundle_not_compared", extra={"cause": str(error)})
        return BundleState.MISSING
    return BundleState.CURRENT if now <= recorded else BundleState.OUTDATED


def _keys(config: Config, ring: KeyRing) -> list[str]:
    """Return marks of the keys that a bundle has if exported now. Raises `ValueError`."""
    marks = {f"ring {ring.cluster_id} {ring.active}"}
    for path in _key_files(config):
        if path.exists():
            marks.add(f"authority {_mark(path.read_bytes())}")
    return sorted(marks)


def _key_files(config: Config) -> tuple[Path, ...]:
    """Return where the keys of authorities and of their successors may be."""
    return (
        key_beside(config.peers.ca),
        key_beside(config.agents.ca),
        *SuccessorFiles(config).key_files(),
    )


def _mark(key: bytes) -> str:
    try:
        public = serialization.load_pem_private_key(key, None).public_key()
    except TypeError as error:  # It has a passphrase.
        raise ValueError(str(error)) from error
    return hashlib.sha256(
        public.public_bytes(
            serialization.Encoding.DER,
            serialization.PublicFormat.SubjectPublicKeyInfo,
        )
    ).hexdigest()
