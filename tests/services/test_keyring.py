# SPDX-License-Identifier: Apache-2.0
"""The key ring and its file (P5)."""

import base64
import json
import os
from pathlib import Path

import pytest

from sparecode_node.domain.ids import KeyId
from sparecode_node.services.ambient import SystemEntropy
from sparecode_node.services.secrets.keyring import (
    KeyRing,
    KeyRingError,
    UnknownKeyError,
)


@pytest.fixture
def ring() -> KeyRing:
    return KeyRing.draw(SystemEntropy())


def test_ring_survives_its_file(ring: KeyRing, tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    ring.save(path)
    loaded = KeyRing.load(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["keys.json"]
    assert loaded.cluster_id == ring.cluster_id
    assert loaded.active == 1
    assert loaded.subkey(KeyId(1), "seed") == ring.subkey(KeyId(1), "seed")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o660, 0o677])
def test_ring_that_others_can_touch_is_refused(
    ring: KeyRing, tmp_path: Path, mode: int
) -> None:
    path = tmp_path / "keys.json"
    ring.save(path)
    path.chmod(mode)
    with pytest.raises(KeyRingError, match=rf"keys\.json.*{mode:04o}.*0600"):
        KeyRing.load(path)


@pytest.mark.parametrize(("mode", "accepted"), [(0o440, True), (0o444, False)])
def test_ring_of_root_and_the_node_s_group_is_accepted(
    ring: KeyRing,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    mode: int,
    *,
    accepted: bool,
) -> None:
    """Like systemd credentials and Kubernetes secrets. No other group is accepted."""
    path = tmp_path / "keys.json"
    ring.save(path)
    path.chmod(mode)
    status = os.stat_result((*path.stat()[:4], 0, *path.stat()[5:]))
    monkeypatch.setattr(os, "fstat", lambda _: status)
    monkeypatch.setattr(os, "geteuid", lambda: 10001)
    if accepted:
        assert KeyRing.load(path).cluster_id == ring.cluster_id
    else:
        with pytest.raises(KeyRingError, match="other users have access"):
            KeyRing.load(path)


def test_each_purpose_has_a_key_of_its_own(ring: KeyRing) -> None:
    other = KeyRing.draw(SystemEntropy())
    keys = {
        ring.subkey(KeyId(1), "seed"),
        ring.subkey(KeyId(1), "draft"),
        other.subkey(KeyId(1), "seed"),
    }
    assert len(keys) == 3
    assert {len(key) for key in keys} == {64}


def test_ring_is_never_shown(ring: KeyRing, tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    ring.save(path)
    key = json.loads(path.read_text())["keys"]["1"]
    subkey = ring.subkey(KeyId(1), "seed")
    assert key not in repr(ring)
    assert repr(base64.b64decode(key)) not in repr(ring)
    assert repr(subkey) not in repr(ring)
    assert "key_ids=[1]" in repr(ring)


def test_unknown_key_is_named(ring: KeyRing) -> None:
    with pytest.raises(UnknownKeyError, match="no key 2"):
        ring.subkey(KeyId(2), "seed")


KEY = base64.b64encode(bytes(64)).decode()


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ("", "not JSON"),
        ("[]", "cluster_id, active and keys"),
        ('{"cluster_id": "c", "active": 1}', "cluster_id, active and keys"),
        (f'{{"cluster_id": "", "active": 1, "keys": {{"1": "{KEY}"}}}}', "cluster_id"),
        (f'{{"cluster_id": "c", "active": true, "keys": {{"1": "{KEY}"}}}}', "active"),
        (f'{{"cluster_id": "c", "active": 2, "keys": {{"1": "{KEY}"}}}}', "no key 2"),
        (f'{{"cluster_id": "c", "active": 1, "keys": {{"x": "{KEY}"}}}}', "number"),
        ('{"cluster_id": "c", "active": 1, "keys": {"1": "%"}}', "key 1 is not base64"),
        (
            '{"cluster_id": "c", "active": 1, "keys": {"1": "AAAA"}}',
            "key 1 has 3 bytes",
        ),
    ],
)
def test_broken_ring_is_named(tmp_path: Path, content: str, fault: str) -> None:
    path = tmp_path / "keys.json"
    path.write_text(content)
    path.chmod(0o600)
    with pytest.raises(KeyRingError, match=fault) as raised:
        KeyRing.load(path)
    assert str(path) in str(raised.value)
    assert KEY not in str(raised.value)


def test_missing_ring_is_named(tmp_path: Path) -> None:
    with pytest.raises(KeyRingError, match=r"none\.json: No such file"):
        KeyRing.load(tmp_path / "none.json")


def test_ring_is_written_at_once_or_not_at_all(ring: KeyRing, tmp_path: Path) -> None:
    with pytest.raises(KeyRingError, match="No such file"):
        ring.save(tmp_path / "nowhere" / "keys.json")
