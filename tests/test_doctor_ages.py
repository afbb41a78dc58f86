# SPDX-License-Identifier: Apache-2.0
"""The doctor's findings about the place of the ring, and about old keys and backups."""

import base64
import contextlib
import datetime as dt
import os
import sqlite3
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from sparecode_node.config import Config
from sparecode_node.services.ambient import SystemEntropy
from sparecode_node.services.secrets.keyring import KeyRing
from sparecode_node.services.secrets.ring_file import RingFile
from sparecode_node.statemachine.tables.formats import prepare
from sparecode_node.tool.doctor.ages import check_ages
from sparecode_node.tool.doctor.findings import Finding, Verdict
from sparecode_node.tool.doctor.ring import check_key_ring

NOW = dt.datetime(2026, 6, 1, tzinfo=dt.UTC)


def ms(before: dt.timedelta) -> int:
    return int((NOW - before).timestamp() * 1000)


def state(folder: Path, *, key: dt.timedelta, backup: dt.timedelta | None) -> Path:
    """Write a state whose second key and last backup have these times."""
    path = folder / "state.db"
    with contextlib.closing(sqlite3.connect(path)) as db:
        prepare(db)
        db.execute("INSERT INTO meta VALUES ('cluster_id', 'c')")
        if backup is not None:
            db.execute("INSERT INTO meta VALUES ('backup_at_ms', ?)", (ms(backup),))
        db.execute("INSERT INTO ring_keys VALUES (1, X'', 0, 5, 0, 1)")
        db.execute("INSERT INTO ring_keys VALUES (2, X'00', ?, NULL, 0, 0)", (ms(key),))
        db.commit()
    return path


def verdicts(findings: list[Finding]) -> dict[str, Verdict]:
    return {each.subject: each.verdict for each in findings}


def test_young_key_and_backup_are_fine(tmp_path: Path) -> None:
    path = state(tmp_path, key=dt.timedelta(days=364), backup=dt.timedelta(hours=25))
    result = list(check_ages(path, NOW))
    assert verdicts(result) == {"key age": Verdict.OK, "backup": Verdict.OK}
    assert "key 2 has been active since 2025-06-02 (364 days)" in result[0].words
    assert "2026-05-30 23:00 UTC (25 hours ago)" in result[1].words


def test_old_key_and_backup_are_found_with_a_command(tmp_path: Path) -> None:
    path = state(tmp_path, key=dt.timedelta(days=365), backup=dt.timedelta(hours=26))
    result = list(check_ages(path, NOW))
    assert verdicts(result) == {"key age": Verdict.WARN, "backup": Verdict.WARN}
    assert "sparecode cluster rotate-keys" in result[0].words
    assert "sparecode-backup" in result[1].words


def test_a_key_that_a_removed_member_has_had_is_found(tmp_path: Path) -> None:
    """(P6)."""
    path = state(tmp_path, key=dt.timedelta(), backup=dt.timedelta())
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("INSERT INTO meta VALUES ('rotation_due', 'n4')")
        db.commit()
    result = {each.subject: each for each in check_ages(path, NOW)}
    assert result["key rotation"].verdict is Verdict.WARN
    assert "n4 was removed and has had the ring's key" in result["key rotation"].words


def test_authorities_that_a_removed_member_has_had_are_found(tmp_path: Path) -> None:
    """(P6a)."""
    path = state(tmp_path, key=dt.timedelta(), backup=dt.timedelta())
    since = ms(dt.timedelta(days=3))
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.executemany(
            "INSERT INTO due_authorities VALUES (?, ?, 'n4', ?, 'policy', 0)",
            [("agents", "bb", since), ("members", "aa", since)],
        )
        db.commit()
    result = {each.subject: each for each in check_ages(path, NOW)}
    assert result["authorities"].verdict is Verdict.WARN
    words = result["authorities"].words
    assert words.startswith("n4 was removed on 2026-05-29 and has had the keys of the")
    assert "authorities for members and agents" in words
    assert "Next: sparecode cluster replace-authorities n4." in words


def test_the_next_step_of_a_replacement_is_named(tmp_path: Path) -> None:
    """(P6a) As far as the state of this node tells."""
    path = state(tmp_path, key=dt.timedelta(), backup=dt.timedelta())

    def words() -> str:
        (found,) = [e for e in check_ages(path, NOW) if e.subject == "authorities"]
        return found.words

    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("INSERT INTO due_authorities VALUES ('agents', 'b', 'n4', 1, '', 1)")
        db.commit()
        assert "announces successors within a minute" in words()
        db.execute(
            "INSERT INTO authority_successors "
            "VALUES ('agents', 'b', 'n1', 'c', x'01', x'02', 1, 0)"
        )
        db.commit()
    assert "replace-authorities n4 --finish" in words()


def test_missing_backup_is_found(tmp_path: Path) -> None:
    path = state(tmp_path, key=dt.timedelta(), backup=None)
    result = list(check_ages(path, NOW))
    assert verdicts(result)["backup"] is Verdict.WARN
    assert "sparecode cluster backup FILE" in result[1].words


def test_first_key_is_as_old_as_the_cluster(tmp_path: Path) -> None:
    """The state has no time for the first key, which came with the cluster."""
    path = state(tmp_path, key=dt.timedelta(), backup=None)
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("DELETE FROM ring_keys WHERE key_id = 2")
        db.execute("UPDATE ring_keys SET retire_at_ms = NULL, retired = 0")
        db.execute(
            "INSERT INTO audit_events VALUES (1, ?, '', '', '', '', '', '', '', X'')",
            (ms(dt.timedelta(days=400)),),
        )
        db.commit()
    result = list(check_ages(path, NOW))
    assert result[0].verdict is Verdict.WARN
    assert "key 1" in result[0].words
    assert "(400 days)" in result[0].words


def test_ages_of_a_missing_or_damaged_state_are_not_checked(
    tmp_path: Path,
) -> None:
    assert list(check_ages(tmp_path / "none", NOW)) == []
    (tmp_path / "state.db").write_bytes(b"not a database" * 100)
    assert list(check_ages(tmp_path / "state.db", NOW)) == []


# --- The ring's place


def config_of(folder: Path, *, wrapped: bool = True, ring: str = "keys") -> Config:
    (folder / "data").mkdir(exist_ok=True)
    key = folder / "wrapping.key"
    if not key.exists():
        key.write_bytes(base64.b64encode(os.urandom(32)))
        key.chmod(0o600)
    return cast(
        "Config",
        SimpleNamespace(
            node=SimpleNamespace(data_dir=folder / "data"),
            keys_file=folder / ring / "keyring.json",
            wrapping_key_file=key if wrapped else None,
            wrap_command=None,
            given_ring_file=folder / "given.json",
        ),
    )


def save(config: Config, *, wrapped: bool) -> None:
    key = config.wrapping_key_file if wrapped else None
    RingFile(path=config.keys_file, wrapping_key=key).save(
        KeyRing.draw(SystemEntropy())
    )


def looked_at(config: Config) -> list[tuple[Verdict, str]]:
    _, result = check_key_ring(config)
    assert {each.subject for each in result} == {"key ring"}
    return [(each.verdict, each.words) for each in result]


def test_encrypted_writable_ring_is_fine(tmp_path: Path) -> None:
    config = config_of(tmp_path)
    save(config, wrapped=True)
    [(verdict, words)] = looked_at(config)
    assert verdict is Verdict.OK
    assert f"{config.keys_file}, encrypted with {config.wrapping_key_file}" in words
    assert "keys 1, 1 active" in words


def test_ring_not_yet_copied_or_encrypted_is_found(tmp_path: Path) -> None:
    config = config_of(tmp_path)
    KeyRing.draw(SystemEntropy()).save(tmp_path / "given.json")
    [_, (verdict, words)] = looked_at(config)
    assert verdict is Verdict.WARN
    assert "given.json is not copied yet" in words
    save(config, wrapped=False)
    [_, (verdict, words)] = looked_at(config)
    assert verdict is Verdict.WARN
    assert f"is not encrypted with {config.wrapping_key_file} yet" in words


def test_plain_ring_in_the_data_folder_is_found(tmp_path: Path) -> None:
    config = config_of(tmp_path, wrapped=False, ring="data")
    save(config, wrapped=False)
    [_, (verdict, words)] = looked_at(config)
    assert verdict is Verdict.WARN
    assert "copy of the folder can read all secrets" in words


def test_ring_in_a_read_only_place_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keys cannot be rotated in a credential, a Secret or a folder of root."""
    config = config_of(tmp_path)
    save(config, wrapped=True)
    folder = config.keys_file.parent
    with monkeypatch.context() as patched:
        flags = SimpleNamespace(f_flag=os.ST_RDONLY)
        patched.setattr(os, "statvfs", lambda _: flags)
        [_, (verdict, words)] = looked_at(config)
    assert verdict is Verdict.WARN
    assert f"{folder} is read-only: keys cannot be rotated" in words
    with monkeypatch.context() as patched:
        patched.setattr(os, "access", lambda *_: False)
        [_, (verdict, words)] = looked_at(config)
    assert "is not writable" in words


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: changes the owner of a file")
def test_ring_of_another_owner_is_found_by_root(tmp_path: Path) -> None:
    config = config_of(tmp_path)
    save(config, wrapped=True)
    os.chown(config.node.data_dir, 10001, 10001)
    [_, (verdict, words)] = looked_at(config)
    assert verdict is Verdict.WARN
    assert "is not owned by the owner of" in words


def test_ring_that_does_not_open_is_a_failure(tmp_path: Path) -> None:
    config = config_of(tmp_path)
    save(config, wrapped=True)
    assert config.wrapping_key_file is not None
    config.wrapping_key_file.write_bytes(base64.b64encode(bytes(32)))
    [(verdict, words)] = looked_at(config)
    assert verdict is Verdict.FAIL
    assert "was not wrapped with" in words


def test_lines_fit_80_columns_and_paths_are_not_broken() -> None:
    path = f"/var/lib/{'x' * 90}/keyring.json"
    lines = str(Finding(Verdict.WARN, "key ring", f"{'word ' * 30}{path} end"))
    assert path in lines
    first, *rest = lines.splitlines()
    assert first.startswith("WARN  key ring      word")
    assert all(line.startswith(" " * 20) for line in rest)
    assert all(len(line) <= 80 for line in (first, *rest) if path not in line)
