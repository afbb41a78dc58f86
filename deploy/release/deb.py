# SPDX-License-Identifier: Apache-2.0
"""
Builds the Debian package from a wheel, with debhelper and dh-virtualenv.

    python deploy/release/deb.py WHEEL LOCK FOLDER [--version VERSION]

It lays out a source folder for deploy/debian/rules, and runs dpkg-buildpackage in it.
The package fits the Debian release of the machine that builds it.
"""

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
CHANGELOG = ROOT / "CHANGELOG.md"
UNITS = ("sparecode-node.service", "sparecode-backup.service", "sparecode-backup.timer")
UNRELEASED = re.compile(r"^## \[Unreleased\]\n(.*?)^## ", re.MULTILINE | re.DOTALL)


class PackageError(Exception):
    """The package cannot be built; the message says why."""


def run(*command: str | Path, cwd: Path = ROOT) -> str:
    """Run a command and return what it printed. Raises `PackageError`."""
    try:
        done = subprocess.run(
            command, cwd=cwd, capture_output=True, text=True, check=False
        )
    except FileNotFoundError as error:
        raise PackageError(f"{command[0]} is missing: make package-tools") from error
    if done.returncode:
        output = done.stdout + done.stderr
        raise PackageError(f"{command[0]} failed:\n{output[-4000:]}")
    return done.stdout.strip()


def package_version(version: str, changelog: str, commit: str) -> str:
    """
    Return the version of the package for a wheel of *version*.

    A checkout with unreleased changes still has the version of the release before it.
    Its package is newer than that release, and older than the next. *commit* is its
    date and abbreviated hash: `20261128.74144a6f`. The revision is Debian's.
    """
    section = UNRELEASED.search(changelog)
    unreleased = section is not None and section[1].strip()
    return f"{version}+git{commit}-1" if unreleased else f"{version}-1"


def lay_out(folder: Path, wheel: Path, lock: Path, version: str) -> None:
    """Write everything that deploy/debian/rules needs into *folder*."""
    shutil.copytree(DEPLOY / "debian", debian := folder / "debian")
    shutil.copy(DEPLOY / "systemd/sparecode.sysusers", debian)
    (units := folder / "units").mkdir()
    for name in UNITS:
        shutil.copy(DEPLOY / "systemd" / name, units)
    shutil.copy(DEPLOY / "node.toml", folder)
    shutil.copytree(DEPLOY / "pam", folder / "pam")
    shutil.copytree(
        ROOT / "docs",
        folder / "docs",
        ignore=shutil.ignore_patterns("*.py", "results", "__pycache__"),
    )
    shutil.copy(CHANGELOG, folder)  # dh_installchangelogs finds it there.
    shutil.copy(wheel, folder)
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    (folder / "requirements.txt").write_text(
        f"{lock.read_text()}\n./{wheel.name} --hash=sha256:{digest}\n"
    )
    maintainer = re.search(
        r"^Maintainer: (.+)$", (debian / "control").read_text(), re.MULTILINE
    )
    date = run("git", "log", "-1", "--format=%cD")
    (debian / "changelog").write_text(
        f"sparecode ({version}) stable; urgency=medium\n\n"
        "  * See /usr/share/doc/sparecode/changelog.gz.\n\n"
        f" -- {maintainer and maintainer[1]}  {date}\n"
    )


def build(wheel: Path, lock: Path, out: Path, version: str = "") -> Path:
    """Build the package into *out*; return its path. Raises `PackageError`."""
    number = wheel.name.split("-")[1]
    commit = run(
        *("git", "log", "-1", "--format=%cd.%h", "--date=format:%Y%m%d"),
    )
    version = version or package_version(number, CHANGELOG.read_text(), commit)
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="sparecode-deb-") as work:
        folder = Path(work) / "sparecode"
        folder.mkdir()
        lay_out(folder, wheel, lock, version)
        run("dpkg-buildpackage", "--build=any", "--unsigned-changes", cwd=folder)
        (package,) = Path(work).glob("sparecode_*.deb")
        target = out / package.name
        shutil.copy(package, target)
    return target


def main() -> int:
    """Build a package; print its path."""
    parser = argparse.ArgumentParser(prog="deb.py")
    parser.add_argument("wheel", type=Path)
    parser.add_argument("lock", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--version", default="")
    options = parser.parse_args()
    try:
        package = build(options.wheel, options.lock, options.out, options.version)
    except PackageError as error:
        print(error, file=sys.stderr)
        return 1
    print(os.path.relpath(package))
    return 0


if __name__ == "__main__":
    sys.exit(main())
