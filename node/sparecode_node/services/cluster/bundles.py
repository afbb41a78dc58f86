# SPDX-License-Identifier: Apache-2.0
"""
The recovery bundle: what a restore needs and backups do not hold (P5).

An age file that holds a JSON object. Operators keep it offline, apart from the backups.
Its fields: `format` 1, `cluster_id`, `ring` (the text of the key ring), and `files`,
additional files in base64, such as an authority's key.
"""

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sparecode_node.services.secrets.keyring import KeyRing

FORMAT = 1
BUNDLE_BYTES_MAX = 4 * 1024 * 1024
NAME_BYTES_MAX = 200
"""A file system takes 255, and a file is first written under a longer name."""


class BundleError(Exception):
    """The file is not a usable recovery bundle. The message quotes nothing of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """A key ring, and the other files that are lost with the last node."""

    ring: KeyRing
    files: Mapping[str, bytes] = field(default_factory=dict, repr=False)


def to_bytes(bundle: Bundle) -> bytes:
    """Return the text of a bundle. It is as secret as the keys in it."""
    content = {
        "format": FORMAT,
        "cluster_id": bundle.ring.cluster_id,
        "ring": bundle.ring.to_bytes().decode(),
        "files": {
            name: base64.b64encode(data).decode()
            for name, data in sorted(bundle.files.items())
        },
    }
    return json.dumps(content, indent=2).encode() + b"\n"


def from_bytes(text: bytes) -> Bundle:
    """Return the bundle from a text that `to_bytes` wrote. Raises `BundleError`."""
    try:
        content: dict[str, Any] = json.loads(text)
        if content["format"] != FORMAT:
            raise BundleError(
                f"the bundle has format {content['format']}; this software reads {FORMAT}"
            )
        return Bundle(
            ring=KeyRing.from_bytes(content["ring"].encode()),
            files={
                _name(name): base64.b64decode(data, validate=True)
                for name, data in content["files"].items()
            },
        )
    except (
        AttributeError,
        KeyError,
        RecursionError,
        TypeError,
        ValueError,
        binascii.Error,
    ):
        raise BundleError("the file opens, but it is not a recovery bundle") from None


def _name(name: str) -> str:
    """Return a file name. Raises `ValueError` if it is too long, or leads out of its folder."""
    too_long = len(name.encode()) > NAME_BYTES_MAX
    if not name or name.startswith(".") or "/" in name or "\0" in name or too_long:
        raise ValueError(name)
    return name
