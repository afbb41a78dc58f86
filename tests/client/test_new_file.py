# SPDX-License-Identifier: Apache-2.0
"""Files that commands write, such as backups and exports: complete, or not there."""

from pathlib import Path

import pytest

from sparecode_client.cli.terminal.exit_codes import UsageError
from sparecode_client.cli.terminal.new_file import new_file


def test_file_appears_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "a.backup"
    with new_file(path) as file:
        file.write(b"content")
        assert not path.exists()
    assert path.read_bytes() == b"content"
    assert list(tmp_path.iterdir()) == [path]
    assert path.stat().st_mode & 0o777 == 0o600


def test_nothing_is_left_after_a_failure(tmp_path: Path) -> None:
    def write_half() -> None:
        with new_file(tmp_path / "a.backup") as file:
            file.write(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()
    assert not list(tmp_path.iterdir())


def test_existing_link_is_not_replaced(tmp_path: Path) -> None:
    """Not even one without a target."""
    path = tmp_path / "a.backup"
    path.symlink_to(tmp_path / "missing")
    with pytest.raises(UsageError, match="exists already"), new_file(path):
        pass
    assert path.is_symlink()


def test_missing_folder_is_wrong_usage(tmp_path: Path) -> None:
    with (
        pytest.raises(UsageError, match="No such file"),
        new_file(tmp_path / "missing" / "a.backup"),
    ):
        pass
