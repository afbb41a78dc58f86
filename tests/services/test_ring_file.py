# SPDX-License-Identifier: Apache-2.0
"""The ring's own file, wrapped with a key that the node only reads (P5)."""

import base64
import json
from pathlib import Path

import pytest

from sparecode_node.domain.ids import KeyId
from sparecode_node.services.ambient import SystemEntropy
from sparecode_node.services.secrets.keyring import KeyRing, KeyRingError
from sparecode_node.services.secrets.ring_file import RingFile


@pytest.fixture
def ring() -> KeyRing:
    return KeyRing.draw(SystemEntropy())


@pytest.fixture
def file(tmp_path: Path) -> RingFile:
    (tmp_path / "etc").mkdir()
    file = RingFile(
        path=tmp_path / "keys/keyring.json", wrapping_key=tmp_path / "etc/wrapping.key"
    )
    file.prepare(SystemEntropy())
    return file


def test_no_key_is_in_the_file_and_it_opens_with_the_wrapping_key(
    ring: KeyRing, file: RingFile
) -> None:
    file.save(ring)
    text = file.path.read_bytes()
    for each in json.loads(ring.to_bytes())["keys"].values():
        assert each.encode() not in text
        assert base64.b64decode(each) not in text
    assert ring.cluster_id.encode() not in text
    assert file.path.stat().st_mode & 0o777 == 0o600
    assert file.path.parent.stat().st_mode & 0o777 == 0o700
    assert file.load().to_bytes() == ring.to_bytes()


def test_wrapping_key_is_made_once_for_its_owner_alone(file: RingFile) -> None:
    assert file.wrapping_key is not None
    made = file.wrapping_key.read_bytes()
    assert len(base64.b64decode(made)) == 32
    assert file.wrapping_key.stat().st_mode & 0o777 == 0o600
    file.prepare(SystemEntropy())
    assert file.wrapping_key.read_bytes() == made


def test_plain_ring_is_read_and_wrapped_when_it_is_next_written(
    ring: KeyRing, file: RingFile
) -> None:
    """A node with a plain ring changes over at its next start."""
    RingFile(path=file.path).save(ring)
    assert not file.is_settled()
    file.save(file.load())
    assert file.is_settled()
    assert file.load().subkey(KeyId(1), "seed") == ring.subkey(KeyId(1), "seed")


def test_given_ring_is_taken_over_once(
    ring: KeyRing, file: RingFile, tmp_path: Path
) -> None:
    """After that, the node's own file counts, not the given one."""
    initial = tmp_path / "given.json"
    ring.save(initial)
    begins = RingFile(path=file.path, wrapping_key=file.wrapping_key, initial=initial)
    assert begins.exists()
    assert not begins.is_settled()
    assert begins.load().cluster_id == ring.cluster_id
    later = KeyRing.draw(SystemEntropy())
    begins.save(later)
    assert begins.is_settled()
    assert begins.load().cluster_id == later.cluster_id
    initial.unlink()
    assert begins.load().cluster_id == later.cluster_id


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda file: file.wrapping_key.unlink(), "wrapping.key: No such file"),
        (lambda file: file.wrapping_key.write_bytes(b"AAAA"), "base64 of 32 bytes"),
        (lambda file: file.wrapping_key.write_bytes(b"%"), "base64 of 32 bytes"),
        (
            lambda file: file.wrapping_key.write_bytes(base64.b64encode(bytes(32))),
            "was not wrapped with .*let it join again",
        ),
        (lambda file: file.wrapping_key.chmod(0o644), "wrapping.key.*chmod 600"),
        (lambda file: file.path.chmod(0o640), "keyring.json.*chmod 600"),
        (
            lambda file: file.path.write_bytes(
                file.path.read_bytes().replace(b'"ring": "', b'"ring": "AAAA')
            ),
            "is damaged",
        ),
        (
            lambda file: file.path.write_text('{"wrapped": "AES-SIV"}'),
            "is damaged",
        ),
    ],
    ids=["gone", "short", "no-base64", "another", "open", "open-ring", "edited", "cut"],
)
def test_invalid_file_names_the_problem(
    ring: KeyRing, file: RingFile, spoil, says
) -> None:
    file.save(ring)
    assert file.wrapping_key is not None
    key = file.wrapping_key.read_text().strip()
    spoil(file)
    with pytest.raises(KeyRingError, match=says) as raised:
        file.load()
    assert key not in str(raised.value)


def test_wrapped_ring_without_its_key_says_where_to_name_it(
    ring: KeyRing, file: RingFile
) -> None:
    file.save(ring)
    with pytest.raises(KeyRingError, match=r"\[keys\] wrapping_key"):
        RingFile(path=file.path).load()


def test_unwritable_ring_file_is_refused(ring: KeyRing, file: RingFile) -> None:
    file.path.parent.write_text("a file where the folder should be")
    with pytest.raises(KeyRingError, match="keys"):
        file.save(ring)
