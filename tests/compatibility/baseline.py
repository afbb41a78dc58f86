# SPDX-License-Identifier: Apache-2.0
"""
Releases to upgrade from, built from the history: `make baseline`.

Each is a wheel of a pinned commit, in an environment of its own under var/, which
borrows the dependencies of the environment that runs the tests. Built once.
"""

import dataclasses
import importlib
import json
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).parents[2]
BUILDS = ROOT / "var" / "baseline"
HTMX = "node/sparecode_node/console/static/htmx.min.js"
ICONS = "node/sparecode_node/console/icons"
FONTS = "node/sparecode_node/console/fonts"

FACTS = """
import json
from sparecode_node.statemachine.feature_level import NEWEST
from sparecode_node.statemachine.tables import schema
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
    "0.1.0": "5d3007e1f3134927734ba9344f6000680461b864",
}
"""
The commit of each release, by its version. It is on main, so that every clone has it.

A level that is not released yet may stand here with a late commit of it: its release
takes the place of that commit.
"""

NEXT_LEVEL = """
from sparecode_node.statemachine.tables import schema
schema.VERSION += 1
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
        # Fetched at set-up, so no commit has them.
        for name in (ICONS, FONTS):
            shutil.copytree(ROOT / name, source / name, dirs_exist_ok=True)
        shutil.copy(ROOT / HTMX, source / HTMX)
        _run(
            *(sys.executable, "-m", "build", "--wheel", "--no-isolation"),
            *("--outdir", folder, source),
        )
        (wheel,) = folder.glob("*.whl")
        _environment(folder)
        _run(
            *(sys.executable, "-m", "pip", "--python", python, "install", "--quiet"),
            *("--no-deps", "--no-index", wheel),
        )
        shutil.rmtree(source)
        (folder / "built").touch()
    return release_of(str(python))


def next_level(folder: Path) -> Release:
    """
    Return the software that is tested, made to know one feature level more.

    It stands for a release that comes after the newest level. The environment in
    *folder* changes the number before any other module reads it.
    """
    python = _environment(folder)
    packages = _packages(folder)
    (packages / "next_level.py").write_text(NEXT_LEVEL)
    (packages / "next_level.pth").write_text("import next_level\n")
    sources = {
        str(Path(path).parent)
        for name in ("sparecode", "sparecode_client", "sparecode_node")
        for path in importlib.import_module(name).__path__
    }
    (packages / "editable.pth").write_text("".join(f"{path}\n" for path in sources))
    return release_of(str(python))


def file_of(commit: str, path: str) -> bytes:
    """Return a file as a commit has it. Raises `BaselineError`."""
    _require_history()
    done = subprocess.run(
        ("git", "-C", ROOT, "show", f"{commit}:{path}"),
        capture_output=True,
        check=False,
    )
    if done.returncode:
        raise BaselineError(done.stderr.decode())
    return done.stdout


def _environment(folder: Path) -> Path:
    """Make an environment that borrows the dependencies of this one; return its Python."""
    _run(sys.executable, "-m", "venv", "--without-pip", folder / "venv")
    # A .pth file of the folder that it names is not followed: what is installed
    # there as editable, the software that is tested, does not come along.
    borrowed = _packages(folder) / "borrowed.pth"
    borrowed.write_text(f"{sysconfig.get_path('purelib')}\n")
    return folder / "venv" / "bin" / "python"


def _packages(folder: Path) -> Path:
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    return folder / "venv" / "lib" / version / "site-packages"


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
