# SPDX-License-Identifier: Apache-2.0
"""
Tests of the wheel that users install, not of the checkout.

The wheel is built once and installed into a separate environment. That environment
uses the dependencies of the one that runs the tests, but not its editable install.
"""

import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from sparecode_node.console.kit import sheet_pdf

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("sparecode", "sparecode_node", "sparecode_client")

IMPORT_EVERYTHING = f"""
import importlib, pathlib, pkgutil, sys

for name in {PACKAGES!r}:
    package = importlib.import_module(name)
    for module in pkgutil.walk_packages(package.__path__, name + "."):
        if not module.name.endswith(".__main__"):
            importlib.import_module(module.name)
for name, module in sorted(sys.modules.items()):
    if name.partition(".")[0] in {PACKAGES!r} and module.__file__:
        print(pathlib.Path(module.__file__).resolve())
"""


def run(*command: str | Path) -> str:
    """Run *command* away from the checkout and return what it printed."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    result = subprocess.run(
        command, cwd="/", env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, ROOT / "docs/man_pages.py", ROOT / "var/man")
    run(
        *(sys.executable, "-m", "build", "--wheel", "--no-isolation"),
        *("--outdir", folder, ROOT),
    )
    (wheel,) = folder.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("environment").resolve()
    run(sys.executable, "-m", "venv", "--without-pip", folder)
    run(
        *(sys.executable, "-m", "pip", "--python", folder / "bin" / "python"),
        *("install", "--quiet", "--no-deps", "--no-index", wheel),
    )
    # Python adds a folder named in a .pth file, but ignores .pth files in that folder:
    # so the editable install is not imported.
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    borrowed = folder / "lib" / version / "site-packages" / "borrowed.pth"
    borrowed.write_text(f"{sysconfig.get_path('purelib')}\n")
    return folder


def test_wheel_has_three_packages_and_the_protos(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.partition("/")[0] for name in names}
    metadata = (".dist-info", ".data")
    assert {top for top in tops if not top.endswith(metadata)} == set(PACKAGES)
    for package in PACKAGES:
        assert f"{package}/py.typed" in names
    protos = ROOT / "protos"
    contract = {str(path.relative_to(protos)) for path in protos.rglob("*.proto")}
    assert contract
    assert contract <= set(names)


def test_wheel_has_the_files_of_the_console(wheel: Path) -> None:
    """Pages, styles, and the script that `make venv` fetches."""
    names = set(zipfile.ZipFile(wheel).namelist())
    console = ROOT / "node" / "sparecode_node" / "console"
    for folder in ("templates", "static"):
        files = {
            f"sparecode_node/console/{folder}/{path.name}"
            for path in (console / folder).iterdir()
        }
        assert files
        assert files <= names
    assert "sparecode_node/console/static/htmx.min.js" in names
    icons = (console / "assets" / "icons.txt").read_text().split()
    assert icons
    for name in (*(f"{each}.svg" for each in icons), "LICENSE"):
        assert f"sparecode_node/console/icons/{name}" in names
    for name in (*(path.name for path in sheet_pdf.FONTS.values()), "LICENSE"):
        assert f"sparecode_node/console/fonts/{name}" in names


def test_wheel_installs_the_manual_pages(environment: Path) -> None:
    """Beside the scripts, where `man` looks for them."""
    pages = {page.name for page in (environment / "share/man/man1").iterdir()}
    assert {"sparecode.1", "sparecode-node.1", "sparecode-emergency.1"} <= pages
    assert pages == {page.name for page in (ROOT / "var/man").iterdir()}


def test_scripts_run_from_anywhere(environment: Path) -> None:
    for script in ("sparecode", "sparecode-node", "sparecode-pkcs11-wrap"):
        assert "usage" in run(environment / "bin" / script, "--help").lower()


def test_every_module_is_imported_from_the_wheel(environment: Path) -> None:
    imported = run(environment / "bin" / "python", "-c", IMPORT_EVERYTHING).split()
    outside = [path for path in imported if not Path(path).is_relative_to(environment)]
    assert imported
    assert not outside


def test_client_alone_names_the_missing_extra(environment: Path) -> None:
    """`pip install sparecode` has no extra; the command of the node says which it needs."""
    (environment / "bin/sparecode-node").stat()
    hidden = "import sys; sys.modules['uvloop'] = None; from sparecode_node import main; main()"
    done = subprocess.run(
        [environment / "bin/python", "-c", hidden],
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr == (
        "sparecode-node: uvloop is not installed: a node needs the extra `node`. Run: "
        'pip install "sparecode[node]"\n'
    )
