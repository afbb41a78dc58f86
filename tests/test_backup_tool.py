# SPDX-License-Identifier: Apache-2.0
"""`sparecode-node backup`, without a node or a cluster."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sparecode_node.__main__ import app
from sparecode_node.services.cluster.checkpoints import public_keys
from sparecode_node.services.files import age_files
from tests.services.one_node import OneNode, one_node
from tests.services.test_backups import name_recipients, write

pytestmark = pytest.mark.asyncio


def run(*args: str | Path) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["backup", *map(str, args)])
    return result.exit_code, result.stdout, result.stderr


async def test_secret_key_is_private_and_public_key_is_printed(
    tmp_path: Path,
) -> None:
    code, public, advice = run("keygen", tmp_path / "key")
    assert code == 0
    assert age_files.recipient_problem(public.strip()) == ""
    assert f"backup_recipients={public.strip()}" in advice
    words = [line for line in advice.splitlines() if "age1" not in line]
    assert max(len(line.replace(str(tmp_path), "")) for line in words) <= 80
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600
    assert len(age_files.read_identities(tmp_path / "key")) == 1
    code, _, why = run("keygen", tmp_path / "key")
    assert code == 1
    assert "exists" in why


async def backed_up(node: OneNode, folder: Path) -> tuple[Path, Path]:
    """Return a backup and the file of the key that opens it."""
    _, public, _ = run("keygen", folder / "key")
    await name_recipients(node, public.strip())
    return await write(node, folder / "a.backup"), folder / "key"


async def test_show_prints_the_manifest_without_a_key(tmp_path: Path) -> None:
    async with one_node(tmp_path) as node:
        path, _ = await backed_up(node, tmp_path)
    code, report, _ = run("show", path)
    assert code == 0
    assert "Cluster" in report
    assert max(map(len, report.splitlines())) <= 80
    code, report, _ = run("show", path, "-o", "json")
    assert json.loads(report)["recipients"][0].startswith("age1")


async def test_verify_opens_the_backup_and_checks_the_signature(tmp_path: Path) -> None:
    async with one_node(tmp_path) as node:
        path, key = await backed_up(node, tmp_path)
        keys = tmp_path / "keys.pem"
        keys.write_text(public_keys(node.ring))
    code, report, _ = run("verify", path, "--key", key)
    assert (code, "not verified: use --public-key" in report) == (0, True)
    code, report, _ = run("verify", path, "--key", key, "--public-key", keys)
    assert (code, "Signed by the cluster." in report) == (0, True)


async def test_errors_are_one_line(tmp_path: Path) -> None:
    async with one_node(tmp_path) as node:
        path, key = await backed_up(node, tmp_path)
    (tmp_path / "other").mkdir()
    async with one_node(tmp_path / "other") as other:
        (tmp_path / "other.pem").write_text(public_keys(other.ring))
    code, _, why = run(
        "verify", path, "--key", key, "--public-key", tmp_path / "other.pem"
    )
    assert code == 1
    assert "not signed by any of the keys" in why
    run("keygen", tmp_path / "other-key")
    code, _, why = run("verify", path, "--key", tmp_path / "other-key")
    assert code == 1
    assert "NOT VERIFIED" in why
    key.chmod(0o644)
    code, _, why = run("verify", path, "--key", key)
    assert code == 1
    assert "chmod 600" in why
    (tmp_path / "junk").write_bytes(b"junk")
    code, _, why = run("show", tmp_path / "junk")
    assert code == 1
    assert "not a backup" in why
