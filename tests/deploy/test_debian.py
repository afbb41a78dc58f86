# SPDX-License-Identifier: Apache-2.0
"""
What the Debian package is built from. `make packages-test` builds and runs it.

`make deb` needs Debian's tools, so these tests only look at its files.
"""

import importlib.metadata
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from release import deb

ROOT = Path(__file__).parents[2]
DEBIAN = ROOT / "deploy/debian"
LOCK = "deploy/container/requirements.lock"
WHEEL = "sparecode-1.2.3-py3-none-any.whl"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Return the folder that the package is built in."""
    if shutil.which("git") is None:
        pytest.skip("git is missing: make system-packages")
    (wheel := tmp_path / WHEEL).write_bytes(b"the wheel")
    folder = tmp_path / "sparecode"
    folder.mkdir()
    deb.lay_out(folder, wheel, ROOT / LOCK, "1.2.3-1")
    return folder


def words(name: str) -> list[str]:
    lines = (DEBIAN / name).read_text().splitlines()
    return [line.split()[0] for line in lines if not line.startswith("#")]


def test_package_of_a_release_has_its_version():
    assert deb.package_version("1.2.3", "## [Unreleased]\n\n## [1.2.3]\n", "") == (
        "1.2.3-1"
    )


def test_package_of_later_changes_is_newer_than_the_release():
    changelog = "## [Unreleased]\n\n### Added\n\n- A.\n\n## [1.2.3]\n"
    version = deb.package_version("1.2.3", changelog, "20300101.abcdef01")
    assert version == "1.2.3+git20300101.abcdef01-1"


def test_every_file_that_the_package_names_is_laid_out(source: Path):
    for name in ("sparecode.install", "sparecode.docs", "sparecode.examples"):
        for pattern in words(name):
            assert list(source.glob(pattern)), f"{name}: {pattern}"
    assert (source / "debian/sparecode.sysusers").exists()
    assert (source / "debian/rules").stat().st_mode & 0o111


def test_package_brings_the_files_for_pam(source: Path):
    """A folder in this list keeps its name below examples/, and files would lose it."""
    assert "pam" in words("sparecode.examples")
    there = ROOT / "deploy/pam"
    assert sorted(file.name for file in (source / "pam").iterdir()) == sorted(
        file.name for file in there.iterdir()
    )
    page = (ROOT / "docs/ssh.md").read_text()
    assert "/usr/share/doc/sparecode/examples/pam/" in page
    for name in ("sparecode", "sparecode-pam.conf", "sshd_config"):
        assert (source / "pam" / name).read_bytes() == (there / name).read_bytes()
        assert f"deploy/pam/{name}`" in page


def test_wheel_and_dependencies_are_installed_by_hash(source: Path):
    lines = (source / "requirements.txt").read_text().splitlines()
    named = [line for line in lines if line and not line.startswith((" ", "#"))]
    assert named[-1].startswith(f"./{WHEEL} --hash=sha256:")
    assert all("==" in line for line in named[:-1])
    assert "--require-hashes" in (DEBIAN / "rules").read_text()


def test_what_dependencies_bring_for_developers_is_deleted():
    """Folders that stand beside the packages of all dependencies, from any wheel."""
    for_developers = {"doc", "docs", "example", "examples", "test", "tests"}
    names = re.findall(r"^([\w.-]+)==", (deb.ROOT / LOCK).read_text(), re.MULTILINE)
    brought = {
        (distribution.name, file.parts[0])
        for distribution in importlib.metadata.distributions()
        if distribution.name.lower().replace("_", "-") in names
        for file in distribution.files or ()
        if file.parts[0] in for_developers
    }
    assert brought, "no wheel brings any: delete this test, and the line in rules"
    lines = (DEBIAN / "rules").read_text().splitlines()
    rules = "\n".join(line for line in lines if not line.startswith("#"))
    for distribution, folder in brought:
        assert f"/site-packages/{folder}" in rules, (distribution, folder)


def test_programs_are_where_the_units_look_for_them():
    links = words("sparecode.links")
    unit = (ROOT / "deploy/systemd/sparecode-node.service").read_text()
    program = re.search(r"^ExecStart=/(\S+)", unit, re.MULTILINE)
    assert program is not None
    assert program[1] in links
    assert "DH_VIRTUALENV_INSTALL_ROOT := /opt\n" in (DEBIAN / "rules").read_text()


def test_changelog_of_the_package_is_one_that_debian_reads(source: Path):
    text = (source / "debian/changelog").read_text()
    assert text.startswith("sparecode (1.2.3-1) stable; urgency=medium\n")
    assert re.search(
        r"^ -- The Sparecode authors <\S+>  \w{3}, \d{1,2} \w{3} \d{4} \d\d:\d\d:\d\d \+\d{4}$",
        text,
        re.MULTILINE,
    )


def test_missing_tool_is_named(monkeypatch: pytest.MonkeyPatch):
    def missing(*_: object, **__: object) -> None:
        raise FileNotFoundError

    monkeypatch.setattr(subprocess, "run", missing)
    with pytest.raises(deb.PackageError, match="make package-tools"):
        deb.run("dpkg-buildpackage")


def test_fonts_of_the_wheel_that_debian_has_too_are_overridden():
    """Lintian warns of each, and `make deb` fails at a warning."""
    assets = ROOT / "node/sparecode_node/console/assets/package.json"
    assert "dejavu-fonts-ttf" in assets.read_text(), "delete the override, too"
    assert "duplicate-font-file" in " ".join(
        (DEBIAN / "sparecode.lintian-overrides").read_text().split()
    )
