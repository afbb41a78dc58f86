# SPDX-License-Identifier: Apache-2.0
"""
The text of a key ring, in its file and on its way to a joining node.

    {"cluster_id": "...", "active": 1, "keys": {"1": "base64 of 64 bytes"},
     "waiting": [{"replaces": 1, "key": "..."}], "retired": {"1": "..."},
     "origin": "..."}

The last three fields are optional. Errors quote no key.
"""

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from sparecode_node.domain.ids import KeyId

KEY_BYTES = 64
PUBLIC_KEY_BYTES = 32
_NEEDED = {"cluster_id", "active", "keys"}
_OPTIONAL = {"waiting", "retired", "origin"}


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingKey:
    """A key that this ring holds and that is not active yet."""

    replaces: KeyId
    """The key that was active when it was drawn. It is useless once another one is."""
    key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class RingContent:
    """The whole content of a ring."""

    cluster_id: str
    active: KeyId
    keys: Mapping[KeyId, bytes] = field(repr=False)
    waiting: tuple[WaitingKey, ...] = ()
    retired: Mapping[KeyId, bytes] = field(default_factory=dict)
    origin: str = ""
    """The cluster that the keys were drawn for, if it is another one (E2)."""


def write(content: RingContent) -> bytes:
    """Return the text of a ring."""
    ring: dict[str, object] = {
        "cluster_id": content.cluster_id,
        "active": content.active,
        "keys": _written(content.keys),
    }
    if content.waiting:
        ring["waiting"] = [
            {"replaces": each.replaces, "key": base64.b64encode(each.key).decode()}
            for each in content.waiting
        ]
    if content.retired:
        ring["retired"] = _written(content.retired)
    if content.origin:
        ring["origin"] = content.origin
    return json.dumps(ring, indent=2).encode() + b"\n"


def parse(text: bytes) -> RingContent:
    """Read the text of a ring. Raises `ValueError`."""
    try:
        ring = json.loads(text)
    except (RecursionError, ValueError):
        raise ValueError("not JSON") from None
    if not isinstance(ring, dict) or not _NEEDED <= set(ring) <= _NEEDED | _OPTIONAL:
        raise ValueError(
            "it must hold cluster_id, active and keys, and no unknown field"
        )
    cluster_id, active, keys = ring["cluster_id"], ring["active"], ring["keys"]
    waiting, retired = ring.get("waiting", []), ring.get("retired", {})
    if not isinstance(cluster_id, str) or not cluster_id:
        raise ValueError("cluster_id must be a string")
    origin = ring.get("origin", "")
    if not isinstance(origin, str):
        raise ValueError("origin must be a string")  # noqa: TRY004
    lists = isinstance(waiting, list) and isinstance(retired, dict)
    if not (type(active) is int and isinstance(keys, dict)):
        raise ValueError("active must be a number, and keys must map numbers to keys")
    if not lists:
        raise ValueError("waiting must be a list, and retired must map numbers to keys")
    return RingContent(
        cluster_id=cluster_id,
        active=KeyId(active),
        keys=_read(keys, KEY_BYTES),
        waiting=tuple(map(_waiting, waiting)),
        retired=_read(retired, PUBLIC_KEY_BYTES),
        origin=origin,
    )


def _written(keys: Mapping[KeyId, bytes]) -> dict[str, str]:
    return {
        str(key_id): base64.b64encode(key).decode()
        for key_id, key in sorted(keys.items())
    }


def _read(keys: Mapping[str, object], size: int) -> dict[KeyId, bytes]:
    return {_key_id(name): _key(name, value, size) for name, value in keys.items()}


def _waiting(each: object) -> WaitingKey:
    if not isinstance(each, dict) or set(each) != {"replaces", "key"}:
        raise ValueError("a waiting key must hold replaces and key")
    return WaitingKey(
        replaces=_key_id(str(each["replaces"])),
        key=_key("waiting", each["key"], KEY_BYTES),
    )


def _key_id(name: str) -> KeyId:
    """Read a key's number."""
    if not (name.isascii() and name.isdigit()):
        raise ValueError("a key's name must be its number")
    return KeyId(int(name))


def _key(name: str, value: object, size: int) -> bytes:
    """Read a key."""
    try:
        key = base64.b64decode(str(value), validate=True)
    except binascii.Error:
        raise ValueError(f"key {name} is not base64") from None
    if len(key) != size:
        raise ValueError(f"key {name} has {len(key)} bytes, not {size}")
    return key
