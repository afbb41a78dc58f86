# SPDX-License-Identifier: Apache-2.0
"""
Earlier releases, built from the history: `make baseline`.

Each is a wheel of a pinned commit, in an environment of its own under var/, which
borrows the dependencies of the one that runs the tests. Built once.
"""

import dataclasses
import json
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).parents[2]
BUILDS = ROOT / "var" / "baseline"
HTMX = "node/sparecode_node/console/static/htmx.min.js"

FACTS = """
import json
from sparecode_node.statemachine import schema
try:
    from sparecode_node.statemachine.feature_level import NEWEST
except ImportError:  # The first level does not speak of levels.
    NEWEST = 1
print(json.dumps({"level": NEWEST, "schema": schema.VERSION}))
"""


class BaselineError(Exception):
    """A release cannot be built; the message says why."""


class HistoryMissingError(BaselineError):
    """The history of the project is not here: no release can be built from it."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """A release as it is installed."""

    python: str
    level: int
    """The feature level that it knows."""
    schema: int
    """The version of its tables."""


BASELINES = {
    "level-1": "b9b0dcb8759ccdd67c45ae6122f230041dcfcac2",
    "level-2": "cc83683c13e1cd22a84f7570140e44de01d220d8",
    "level-3": "1594d2c927031e61f2dc18c5c3600819eec0994f",
    "newest": "48737990bea2e336e72f70648885a9a4f633e57e",
}
"""
Commits on main: a late one of each earlier level, and a late one of the newest, to
which one may go back. A release takes the place of the last.
"""


def release_of(python: str) -> Release:
    """Return what the software of an environment knows."""
    return Release(python=python, **json.loads(_run(python, "-c", FACTS)))


def current() -> Release:
    """Return the software that is tested."""
    return release_of(sys.executable)


def build(commit: str) -> Release:
    """Return an earlier release; build it the first time. Raises `BaselineError`."""
    folder = BUILDS / commit
    python = folder / "venv" / "bin" / "python"
    if not (folder / "built").exists():
        _require_history()
        shutil.rmtree(folder, ignore_errors=True)
        (source := folder / "source").mkdir(parents=True)
        archive = folder / "source.tar"
        _run("git", "-C", ROOT, "archive", "--output", archive, commit)
        _run("tar", "--extract", "--file", archive, "--directory", source)
        # Fetched at set-up, so no commit has it.
        shutil.copy(ROOT / HTMX, source / HTMX)
        _run(
            *(sys.executable, "-m", "build", "--wheel", "--no-isolation"),
            *("--outdir", folder, source),
        )
        (wheel,) = folder.glob("*.whl")
        _run(sys.executable, "-m", "venv", "--without-pip", folder / "venv")
        _run(
            *(sys.executable, "-m", "pip", "--python", python, "install", "--quiet"),
            *("--no-deps", "--no-index", wheel),
        )
        # A .pth file of the folder that it names is not followed: what is installed
        # there as editable, the software that is tested, does not come along.
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        packages = folder / "venv" / "lib" / version / "site-packages"
        (packages / "borrowed.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
        shutil.rmtree(source)
        (folder / "built").touch()
    return release_of(str(python))


def _require_history() -> None:
    """Raise `HistoryMissingError` unless git and the whole history are here."""
    if shutil.which("git") is None:
        raise HistoryMissingError("git is missing: make system-packages")
    git = ("git", "-C", ROOT, "rev-parse")
    try:
        shallow = _run(*git, "--is-shallow-repository").strip() == "true"
    except BaselineError as error:
        raise HistoryMissingError("this tree is not a git clone") from error
    if shallow:
        raise HistoryMissingError("this clone is shallow: git fetch --unshallow")


def _run(*command: str | Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/")
    if done.returncode:
        words = " ".join(map(str, command))
        message = f"{words}:\n{done.stdout}{done.stderr}"
        raise BaselineError(message)
    return done.stdout


if __name__ == "__main__":
    for name, pinned in BASELINES.items():
        print(f"{name}: {build(pinned)}")  # noqa: T201
