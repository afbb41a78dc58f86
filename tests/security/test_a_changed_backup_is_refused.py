# SPDX-License-Identifier: Apache-2.0
"""
A backup or a bundle that was changed restores nothing, and takes over no machine (E1, P5).

The attacker can write to the folder of the backups, and knows the public keys of their
recipients, which every manifest shows. So they can encrypt a file of their own. The
attacks: pieces of two backups, a database that never answers, archives with links and
odd headers, and bundles with names that no folder takes. And the user of the node lays
links for root.
"""

import contextlib
import dataclasses
import io
import os
import sqlite3
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from typer.testing import CliRunner

from sparecode_node.__main__ import app
from sparecode_node.membership.preparation import StartError
from sparecode_node.services.ambient import SystemEntropy
from sparecode_node.services.cluster import bundles
from sparecode_node.services.cluster.bundles import Bundle, BundleError
from sparecode_node.services.cluster.checkpoints import public_keys
from sparecode_node.services.files import age_files, backup_files
from sparecode_node.services.files.age_files import AgeError
from sparecode_node.services.files.backup_files import BackupFileError
from sparecode_node.services.files.backup_verification import open_backup
from sparecode_node.services.secrets.keyring import KeyRing
from sparecode_node.tool.ownership import give_to_node
from tests.services.one_node import OneNode, one_node
from tests.services.test_backups import name_recipients, write
from tests.test_recovery import config_of, restored

ENDLESS = (
    "CREATE VIEW meta (name, value) AS WITH RECURSIVE numbers (number) AS "
    "(SELECT 1 UNION ALL SELECT number + 1 FROM numbers) "
    "SELECT max(number), 1 FROM numbers"
)
PIECES = (backup_files.MANIFEST, backup_files.STATE)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Backup:
    """A backup, and what its owner has."""

    path: Path
    ring: KeyRing
    secret: str
    recipient: str

    def pieces(self) -> dict[str, bytes]:
        """Return the contents of its members."""
        with tarfile.open(self.path) as file:
            return {
                name: member.read()
                for name in PIECES
                if (member := file.extractfile(name)) is not None
            }


async def backup_of(node: OneNode, path: Path, keys: tuple[str, str]) -> Backup:
    secret, public = keys
    await write(node, path)
    return Backup(path=path, ring=node.ring, secret=secret, recipient=public)


@pytest_asyncio.fixture
async def backups(tmp_path: Path) -> tuple[Backup, Backup, Backup]:
    """Return an older and a newer backup of a cluster, and one of another cluster."""
    keys = age_files.new_identity()
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
    async with (
        one_node(tmp_path / "one") as node,
        one_node(tmp_path / "other") as other,
    ):
        for each in (node, other):
            await name_recipients(each, keys[1])
        older = await backup_of(node, tmp_path / "older.backup", keys)
        await node.add_user()
        newer = await backup_of(node, tmp_path / "newer.backup", keys)
        return older, newer, await backup_of(other, tmp_path / "other.backup", keys)


def tar(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for member, content in members:
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return file.getvalue()


def pieces_as_backup(path: Path, manifest: bytes, state: bytes) -> Path:
    contents = zip(PIECES, (manifest, state), strict=True)
    path.write_bytes(tar(*((tarfile.TarInfo(name), each) for name, each in contents)))
    return path


def forged(backup: Backup, folder: Path, statement: str) -> Path:
    """Return a backup with a changed state. Its manifest fits, but for the signature."""
    opened = io.BytesIO()
    sealed = io.BytesIO(backup.pieces()[backup_files.STATE])
    age_files.decrypt(sealed, opened, [backup.secret])
    plain, state = folder / "forged.db", folder / "forged.age"
    plain.write_bytes(opened.getvalue())
    db = sqlite3.connect(plain)
    db.execute("DROP TABLE meta")
    db.execute(statement)
    db.close()
    age_files.encrypt(plain, state, [backup.recipient])
    signed = backup_files.read_manifest(backup.path)
    manifest = dataclasses.replace(
        signed.manifest,
        state_bytes=plain.stat().st_size,
        state_sha256=backup_files.sha256_of(plain),
    )
    path = folder / "forged.backup"
    made = dataclasses.replace(signed, manifest=manifest)
    path.write_bytes(b"".join(backup_files.pieces(made, state)))
    return path


@pytest.mark.asyncio
async def test_pieces_of_two_backups_are_none(
    backups: tuple[Backup, Backup, Backup], tmp_path: Path
) -> None:
    """Each piece is right, and the manifest is signed."""
    older, newer, other = backups
    for manifest, state in ((newer, older), (older, newer), (newer, other)):
        path = pieces_as_backup(
            tmp_path / "mixed.backup",
            manifest.pieces()[backup_files.MANIFEST],
            state.pieces()[backup_files.STATE],
        )
        with pytest.raises(StartError, match=r"the state has|SHA-256"):
            restored(tmp_path, path, manifest.ring, manifest.secret)
    with pytest.raises(StartError, match="the bundle is of"):
        restored(tmp_path, other.path, newer.ring, newer.secret)
    restored(tmp_path, newer.path, newer.ring, newer.secret)


@pytest.mark.asyncio
@pytest.mark.usefixtures("interrupted")
async def test_a_forged_database_is_not_opened(
    backups: tuple[Backup, Backup, Backup], tmp_path: Path
) -> None:
    """Reading it never ends, and no key stops that. So the signature comes first."""
    _, backup, _ = backups
    path = forged(backup, tmp_path, ENDLESS)
    keys, key = tmp_path / "keys.pem", tmp_path / "key"
    keys.write_text(public_keys(backup.ring))
    key.touch(mode=0o600)
    key.write_text(backup.secret)
    with pytest.raises(StartError, match="not signed"):
        restored(tmp_path, path, backup.ring, backup.secret)
    verify = ("backup", "verify", str(path), "--key", str(key))
    for arguments, words in (
        (verify, "no table of a state"),
        ((*verify, "--public-key", str(keys)), "not signed by any"),
    ):
        done = CliRunner(env={"COLUMNS": "1000"}).invoke(app, arguments)
        assert (done.exit_code, words in done.stderr) == (1, True), done.output


@pytest.fixture
def interrupted(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Break a statement of SQLite off that never ends, so that the test fails."""
    connect, opened = sqlite3.connect, list[sqlite3.Connection]()

    def connected(*args: object, **options: object) -> sqlite3.Connection:
        opened.append(connect(*args, **options))  # type: ignore[call-overload]
        return opened[-1]

    def interrupt() -> None:
        for each in opened:
            with contextlib.suppress(sqlite3.ProgrammingError):  # It is closed.
                each.interrupt()

    monkeypatch.setattr(sqlite3, "connect", connected)
    timer = threading.Timer(10, interrupt)
    timer.start()
    yield
    timer.cancel()


def link(kind: bytes, name: str, to: str) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, to
    return member


def odd(**headers: str) -> tarfile.TarInfo:
    member = tarfile.TarInfo(backup_files.MANIFEST)
    member.pax_headers = headers
    return member


MANIFEST = backup_files.MANIFEST
ODD = {
    "link to itself": [(link(tarfile.SYMTYPE, MANIFEST, MANIFEST), b"")],
    "links in a circle": [
        (link(tarfile.SYMTYPE, MANIFEST, "b"), b""),
        (link(tarfile.SYMTYPE, "b", MANIFEST), b""),
    ],
    "link elsewhere": [(link(tarfile.SYMTYPE, MANIFEST, "/etc/passwd"), b"")],
    "hard link": [(link(tarfile.LNKTYPE, MANIFEST, "/etc/passwd"), b"")],
    "device": [(link(tarfile.CHRTYPE, MANIFEST, ""), b"")],
    "pipe": [(link(tarfile.FIFOTYPE, MANIFEST, ""), b"")],
    "folder": [(link(tarfile.DIRTYPE, MANIFEST, ""), b"")],
    "long name": [(tarfile.TarInfo("x" * 100_000), b"{}")],
    "name outside": [(tarfile.TarInfo(f"../{MANIFEST}"), b"{}")],
    "huge size": [(odd(size="9" * 40), b"{}")],
    "negative size": [(odd(size="-512"), b"{}")],
    "sparse": [
        (
            odd(
                **{
                    "GNU.sparse.major": "1",
                    "GNU.sparse.minor": "0",
                    "GNU.sparse.realsize": "9" * 15,
                }
            ),
            b"{}",
        )
    ],
    "sparse map": [(odd(**{"GNU.sparse.map": "a,b"}), b"{}")],
    "sparse size": [(odd(**{"GNU.sparse.size": "x"}), b"{}")],
}


@pytest.mark.parametrize("name", ODD)
def test_an_odd_archive_is_refused_in_one_line(tmp_path: Path, name: str) -> None:
    path = tmp_path / "odd.backup"
    path.write_bytes(tar(*ODD[name]))
    with pytest.raises(BackupFileError, match=r"odd\.backup: "):
        backup_files.read_manifest(path)
    done = CliRunner().invoke(app, ["backup", "show", str(path)])
    assert (done.exit_code, "/etc/passwd" in done.output) == (1, False)


@pytest.mark.asyncio
async def test_a_link_in_place_of_the_state_is_refused(
    backups: tuple[Backup, Backup, Backup], tmp_path: Path
) -> None:
    """It would be the manifest, or the file of another member."""
    older, _, _ = backups
    manifest = older.pieces()[MANIFEST]
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
        older.path.write_bytes(
            tar(
                (tarfile.TarInfo(MANIFEST), manifest),
                (link(kind, backup_files.STATE, MANIFEST), b""),
            )
        )
        with pytest.raises(BackupFileError, match=r"state\.age is not a file"):
            open_backup(older.path, tmp_path / "opened.db", [older.secret])


@pytest.mark.parametrize("name", ["x" * 201, "ä" * 101, "\ud800", "a/../../b"])
def test_a_bundle_with_a_name_that_no_folder_takes_is_refused(name: str) -> None:
    """Before anything is restored: its files are written after the state."""
    bundle = Bundle(ring=KeyRing.draw(SystemEntropy()), files={name: b"x"})
    with pytest.raises(BundleError):
        bundles.from_bytes(bundles.to_bytes(bundle))


def test_a_bundle_cannot_keep_the_computer_hashing() -> None:
    """Its header says how costly the hash of the passphrase is: here, for 2^40 blocks."""
    salt, rest = "A" * 22, "A" * 43
    header = f"age-encryption.org/v1\n-> scrypt {salt} 40\n{rest}\n--- {rest}\n"
    changed = header.encode() + bytes(48)
    with pytest.raises(AgeError):
        age_files.decrypt_bytes(changed, passphrase="correct horse battery")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: gives files to another user")
def test_root_gives_the_nodes_user_nothing_outside_its_folder(tmp_path: Path) -> None:
    """
    `bundle`, `restore` and `recover` give files of the data folder to its owner.

    An attacker who has taken over the node's process can lay links there, and wait.
    """
    config = config_of(tmp_path)
    data, outside = config.node.data_dir, tmp_path / "shadow"
    outside.write_text("root's")
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_text("root's")
    (data / "journal").mkdir(parents=True)
    (data / "state.db").write_text("new")
    (data / "journal/1").write_text("new")
    (data / "link").symlink_to(outside)
    (data / "journal/link").symlink_to(outside)
    (data / "folder").symlink_to(tmp_path / "etc")
    os.chown(data, 12345, 12345)
    give_to_node(config)
    for path in (data / "state.db", data / "journal", data / "journal/1"):
        assert path.stat().st_uid == 12345, path
    for path in (outside, tmp_path / "etc", tmp_path / "etc/passwd"):
        assert path.stat().st_uid == 0, path
