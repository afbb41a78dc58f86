# SPDX-License-Identifier: Apache-2.0
"""Backups: who may take one, who can open it, and what its manifest proves."""

import contextlib
import dataclasses
import json
import os
import sqlite3
import tarfile
from pathlib import Path

import pytest

from sparecode_node.domain.outcomes import Reason
from sparecode_node.services.errors import InvalidFieldError, Refused
from sparecode_node.services.files import age_files, backup_files
from sparecode_node.services.files.age_files import AgeError
from sparecode_node.services.files.backup_files import BackupFileError
from sparecode_node.services.files.backup_verification import open_backup
from tests.services.one_node import SEED, OneNode

pytestmark = pytest.mark.asyncio

BACKUP = "ClusterService/CreateBackup"
UPDATE = "PolicyService/UpdatePolicy"


async def name_recipients(node: OneNode, recipients: str) -> None:
    await node.policies.update(
        node.admin(UPDATE), version=1, values={"backup_recipients": recipients}
    )


async def write(
    node: OneNode, path: Path, *, without_sealed_events: bool = False
) -> Path:
    """Write a backup into a file."""
    with path.open("wb") as file:
        async for piece in await node.backups.create(
            node.admin(BACKUP), without_sealed_events=without_sealed_events
        ):
            assert piece.offset == file.tell()
            file.write(piece.content)
    return path


def last_event(node: OneNode) -> tuple[str, str, str]:
    row: tuple[str, str, str] = node.primary_db.execute(
        "SELECT action, outcome, reason FROM audit_events "
        "ORDER BY sequence DESC LIMIT 1"
    ).fetchone()
    return row


@pytest.fixture
def keys() -> tuple[str, str]:
    """Return a secret key and its public key."""
    return age_files.new_identity()


async def test_without_recipients_there_is_no_backup(node: OneNode) -> None:
    """It could not be opened. The refusal says what to do."""
    with pytest.raises(Refused) as refused:
        await node.backups.create(node.admin(BACKUP))
    assert refused.value.rejected.reason is Reason.NO_BACKUP_RECIPIENT
    assert "sparecode-node backup keygen" in refused.value.rejected.detail
    assert last_event(node) == ("CreateBackup", "refused", "no_backup_recipient")


async def test_a_backup_matches_its_manifest(
    node: OneNode, tmp_path: Path, keys: tuple[str, str]
) -> None:
    """It holds every earlier commit, and the audit log records the backup."""
    secret, public = keys
    await name_recipients(node, public)
    await node.add_user("alice")
    path = await write(node, tmp_path / "a.backup")

    signed = open_backup(path, tmp_path / "opened.db", [secret])

    manifest = signed.manifest
    assert manifest.recipients == (public,)
    assert backup_files.is_signed_by_ring(node.sealing, signed)
    with contextlib.closing(sqlite3.connect(tmp_path / "opened.db")) as db:
        assert db.execute("SELECT username FROM users").fetchall() == [("alice",)]
        assert db.execute("SELECT count(*) FROM audit_events").fetchone() == (
            manifest.audit_sequence,
        )
    assert (tmp_path / "opened.db").stat().st_mode & 0o777 == 0o600
    assert last_event(node) == ("NoteBackup", "applied", "")
    noted = dict(node.primary_db.execute("SELECT name, value FROM meta").fetchall())
    assert noted["backup_index"] == manifest.index
    assert noted["backup_at_ms"] == manifest.taken_at_ms
    with tarfile.open(path) as file:  # Without our software.
        assert file.getnames() == ["manifest.json", "state.age"]
    assert not [name for name in os.listdir(tmp_path) if name.startswith("backup.")]  # noqa: PTH208


async def test_nothing_in_a_backup_can_be_read_without_a_key(
    node: OneNode, tmp_path: Path, keys: tuple[str, str]
) -> None:
    """Neither names nor seals; another key does not open it."""
    pin = "90817263"  # Four digits occur in times and digests by chance.
    await name_recipients(node, keys[1])
    await node.add_user("alice-the-canary", pin=pin)
    codes = await node.issue()
    path = await write(node, tmp_path / "a.backup")
    content = path.read_bytes()
    for canary in (b"alice-the-canary", b"SQLite format", pin.encode(), SEED):
        assert canary not in content
    for code in codes.codes:
        assert code.code.encode() not in content
    other, _ = age_files.new_identity()
    with pytest.raises(AgeError, match="another key"):
        open_backup(path, tmp_path / "opened.db", [other])
    assert not (tmp_path / "opened.db").exists()


@pytest.mark.parametrize("place", [0.2, 0.5, 0.9])
async def test_a_damaged_backup_does_not_open(
    node: OneNode, tmp_path: Path, keys: tuple[str, str], place: float
) -> None:
    await name_recipients(node, keys[1])
    path = await write(node, tmp_path / "a.backup")
    content = bytearray(path.read_bytes())
    content[int(len(content) * place)] ^= 1
    path.write_bytes(content)
    with pytest.raises((AgeError, BackupFileError)):
        open_backup(path, tmp_path / "opened.db", [keys[0]])
    assert not (tmp_path / "opened.db").exists()


async def test_a_cut_backup_does_not_open(
    node: OneNode, tmp_path: Path, keys: tuple[str, str]
) -> None:
    await name_recipients(node, keys[1])
    path = await write(node, tmp_path / "a.backup")
    content = path.read_bytes()
    for size in (0, 100, 700, len(content) // 2):
        path.write_bytes(content[:size])
        with pytest.raises((AgeError, BackupFileError)):
            open_backup(path, tmp_path / "opened.db", [keys[0]])


async def test_an_edited_manifest_is_refused(
    node: OneNode, tmp_path: Path, keys: tuple[str, str]
) -> None:
    """A manifest that contradicts the state is refused too, signed or not."""
    await name_recipients(node, keys[1])
    path = await write(node, tmp_path / "a.backup")
    signed = backup_files.read_manifest(path)
    forged = dataclasses.replace(
        signed, manifest=dataclasses.replace(signed.manifest, epoch=9)
    )
    assert not backup_files.is_signed_by_ring(node.sealing, forged)
    with tarfile.open(path) as file:
        sealed = file.extractfile("state.age")
        assert sealed is not None
        (tmp_path / "state.age").write_bytes(sealed.read())
    for field, value, text in (
        ("digest", "0" * 64, "digest"),
        ("state_sha256", "0" * 64, "SHA-256"),
        ("state_bytes", 1, "bytes"),
        ("audit_sequence", 1, "audit log"),
    ):
        other = dataclasses.replace(signed.manifest, **{field: value})
        pieces = backup_files.pieces(
            backup_files.sign(node.sealing, other), tmp_path / "state.age"
        )
        path.write_bytes(b"".join(pieces))
        with pytest.raises(BackupFileError, match=text):
            open_backup(path, tmp_path / "opened.db", [keys[0]])


@pytest.mark.parametrize(
    "wrong", ["age1nobody", "age1" + "q" * 58, "AGE-SECRET-KEY-1", "x"]
)
async def test_an_invalid_recipient_names_the_field(node: OneNode, wrong: str) -> None:
    with pytest.raises(InvalidFieldError, match="backup_recipients"):
        await name_recipients(node, wrong)


async def test_a_manifest_of_a_later_format_is_refused(
    node: OneNode, tmp_path: Path, keys: tuple[str, str]
) -> None:
    await name_recipients(node, keys[1])
    path = await write(node, tmp_path / "a.backup")
    signed = backup_files.read_manifest(path)
    later = dataclasses.replace(signed.manifest, format=2)
    (tmp_path / "state.age").write_bytes(b"x")
    signed_later = dataclasses.replace(signed, manifest=later)
    path.write_bytes(
        b"".join(backup_files.pieces(signed_later, tmp_path / "state.age"))
    )
    with pytest.raises(BackupFileError, match="format 2"):
        backup_files.read_manifest(path)
    assert json.loads(later.signed_bytes().partition(b"\n")[2])["format"] == 2
