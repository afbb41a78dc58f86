# SPDX-License-Identifier: Apache-2.0
"""The files of a release: a complete bill of materials, and checksums that are signed."""

import hashlib
import json
import shutil
import subprocess
from pathlib import Path

import pytest
from release import sbom

ROOT = Path(__file__).parents[2]
SIGNED_AS = "sparecode-release"


def run(
    *command: str | Path, cwd: Path = ROOT, given: bytes = b""
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        command, cwd=cwd, input=given, capture_output=True, check=False
    )


@pytest.fixture
def key(tmp_path: Path) -> Path:
    """Return an SSH key, as the maintainers of a fork would draw it."""
    if shutil.which("ssh-keygen") is None:
        pytest.skip("ssh-keygen is missing: make system-packages")
    path = tmp_path / "release"
    done = run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path)
    assert done.returncode == 0, done.stderr
    return path


@pytest.fixture
def dist(tmp_path: Path) -> Path:
    folder = tmp_path / "dist"
    folder.mkdir()
    (folder / "sparecode-1.0.0-py3-none-any.whl").write_bytes(b"the wheel")
    (folder / "sparecode-1.0.0.cdx.json").write_bytes(b"{}")
    return folder


def verified(dist: Path, key: Path) -> tuple[bool, bool]:
    """Return whether the signature is right, and the checksums; as docs/deploy.md does."""
    signers = key.with_name("allowed_signers")
    public = " ".join(key.with_suffix(".pub").read_text().split()[:2])
    signers.write_text(f"sparecode {public}\n")
    signature = run(
        *("ssh-keygen", "-Y", "verify", "-f", signers, "-I", "sparecode"),
        *("-n", SIGNED_AS, "-s", dist / "SHA256SUMS.sig"),
        given=(dist / "SHA256SUMS").read_bytes(),
    )
    sums = run("sha256sum", "--check", "--strict", "SHA256SUMS", cwd=dist)
    return signature.returncode == 0, sums.returncode == 0


def test_checksums_cover_all_files_and_are_signed(dist: Path, key: Path) -> None:
    done = run("make", "-s", "checksums", f"DIST={dist}", f"KEY={key}")
    assert done.returncode == 0, done.stderr
    names = {line.split()[1] for line in (dist / "SHA256SUMS").read_text().splitlines()}
    assert names == {each.name for each in dist.iterdir()} - {
        "SHA256SUMS",
        "SHA256SUMS.sig",
    }
    assert verified(dist, key) == (True, True)


def test_changed_file_and_changed_list_are_noticed(dist: Path, key: Path) -> None:
    assert run("make", "-s", "checksums", f"DIST={dist}", f"KEY={key}").returncode == 0
    wheel, sums = dist / "sparecode-1.0.0-py3-none-any.whl", dist / "SHA256SUMS"
    wheel.write_bytes(b"another wheel")
    assert verified(dist, key) == (True, False)
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    old = hashlib.sha256(b"the wheel").hexdigest()
    sums.write_text(sums.read_text().replace(old, digest))
    assert verified(dist, key) == (False, True)


def test_another_key_does_not_verify(dist: Path, key: Path, tmp_path: Path) -> None:
    assert run("make", "-s", "checksums", f"DIST={dist}", f"KEY={key}").returncode == 0
    other = tmp_path / "other"
    assert run("ssh-keygen", "-q", "-N", "", "-f", other).returncode == 0
    assert verified(dist, other) == (False, True)


def test_without_a_key_nothing_is_written(dist: Path) -> None:
    """Checksums without a signature protect from accidents, not from people."""
    done = run("make", "-s", "checksums", f"DIST={dist}")
    assert done.returncode != 0
    assert b"make checksums KEY=FILE" in done.stderr
    assert not (dist / "SHA256SUMS").exists()


def test_bill_of_materials_has_the_files_that_are_not_from_python() -> None:
    """Their hashes are those of the files in the wheel."""
    bom = sbom.completed(
        {
            "metadata": {"component": {"bom-ref": "root"}},
            "components": [{"name": "grpcio"}],
            "dependencies": [{"ref": "root", "dependsOn": ["grpcio"]}],
        }
    )
    htmx, icons, fonts = bom["components"][-3:]
    lock = json.loads((sbom.CONSOLE / "assets" / "package-lock.json").read_text())
    assert htmx["version"] == lock["packages"]["node_modules/htmx.org"]["version"]
    assert htmx["hashes"] == [
        {
            "alg": "SHA-256",
            "content": hashlib.sha256(sbom.HTMX_FILE.read_bytes()).hexdigest(),
        }
    ]
    assert bom["dependencies"][0]["dependsOn"] == [
        "grpcio",
        fonts["bom-ref"],
        htmx["bom-ref"],
        icons["bom-ref"],
    ]
    assert icons["licenses"] == [{"license": {"id": "ISC"}}]
    (archive,) = htmx["externalReferences"]
    assert archive["hashes"][0]["alg"] == "SHA-512"
    assert len(archive["hashes"][0]["content"]) == 128
