# SPDX-License-Identifier: Apache-2.0
"""
Contracts of the tree, checked.

`make check` runs some of them too; here they fail in a run of the tests alone.
"""

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = Path(sys.executable).parent
SPDX = "# SPDX-License-Identifier: Apache-2.0"
LINES_MAX = 500

# They run what they read.
UNSAFE_MODULES = {"cloudpickle", "dill", "jsonpickle", "marshal", "pickle", "shelve"}
UNSAFE_BUILTINS = {"eval", "exec"}
UNSAFE_YAML = {"full_load", "load", "load_all", "unsafe_load"}

GENERATED = re.compile(r"_pb2(_grpc)?\.pyi?$")
CHECKER = re.compile(r"(assert|check|expect|until)(_|$)")
"""Names of functions that fail a test: `until_*` waits for something, with a deadline."""
VAGUE = re.compile(r"(^|_)(utils?|helpers?|managers?)(_|$)")


def python_files(*folders: str) -> list[Path]:
    """List all Python files in *folders*, generated ones and stubs included."""
    return sorted(
        path
        for folder in folders
        for pattern in ("*.py", "*.pyi")
        for path in (ROOT / folder).rglob(pattern)
        if "__pycache__" not in path.parts
    )


def written_files(*folders: str) -> list[Path]:
    """List the Python files in *folders* that people wrote."""
    return [path for path in python_files(*folders) if not GENERATED.search(path.name)]


def imported_modules(tree: ast.AST) -> Iterator[str]:
    """Name the modules that the code in *tree* imports, wherever it does so."""
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                yield from (alias.name for alias in names)
            case ast.ImportFrom(module=str(module), level=0):
                yield module


def unsafe_constructs(source: str) -> set[str]:
    """Name what in *source* could run code that comes from outside."""
    tree = ast.parse(source)
    roots = {module.partition(".")[0] for module in imported_modules(tree)}
    result = roots & UNSAFE_MODULES
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Name(id=name)) if name in UNSAFE_BUILTINS:
                result.add(name)
            case ast.Attribute(value=ast.Name(id="builtins"), attr=name) if (
                name in UNSAFE_BUILTINS
            ):
                result.add(name)
            case ast.Attribute(value=ast.Name(id="yaml"), attr=name) if (
                name in UNSAFE_YAML
            ):
                result.add(f"yaml.{name}")
            case ast.ImportFrom(module="yaml", names=names):
                result |= {f"yaml.{a.name}" for a in names if a.name in UNSAFE_YAML}
    return result


def written_tests() -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """Yield every test function, with its name for a message."""
    for path in written_files("examples", "tests"):
        if path.name.startswith("test_"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(
                    node, ast.FunctionDef | ast.AsyncFunctionDef
                ) and node.name.startswith("test_"):
                    yield f"{path.relative_to(ROOT)}::{node.name}", node


def asserts(test: ast.AST) -> bool:
    """Return whether a test can fail by more than an exception it does not expect."""
    for node in ast.walk(test):
        match node:
            case ast.Assert():
                return True
            case ast.Attribute(value=ast.Name(id="pytest"), attr="raises" | "warns"):
                return True
            case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name)) if (
                CHECKER.match(name)
            ):
                return True
    return False


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a tool at the root of the checkout."""
    # As a child of `make test`, a second make would look for the jobserver.
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MAKE")}
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )


def relative(paths: list[Path]) -> list[str]:
    """Shorten *paths* for a message."""
    return [str(path.relative_to(ROOT)) for path in paths]


def test_layers_import_only_downwards() -> None:
    result = run(SCRIPTS / "lint-imports", "--no-cache")
    assert result.returncode == 0, result.stdout + result.stderr


def test_generated_code_is_fresh() -> None:
    result = run(
        "make", "--no-print-directory", "proto-fresh", f"PYTHON={sys.executable}"
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_contract_has_no_line_by_hand() -> None:
    by_hand = [p for p in written_files("protos") if p.name != "__init__.py"]
    assert not relative(by_hand)


def test_modules_are_small() -> None:
    """A module that needs more than 500 lines holds more than one idea."""
    long = {
        str(path.relative_to(ROOT)): lines
        for path in written_files("node/sparecode_node", "client/sparecode_client")
        if (lines := len(path.read_text().splitlines())) > LINES_MAX
    }
    assert not long


def test_no_module_has_a_vague_name() -> None:
    vague = [
        path
        for path in written_files("node", "client", "deploy", "examples", "tests")
        if any(VAGUE.search(part.removesuffix(path.suffix)) for part in path.parts)
    ]
    assert not relative(vague)


def test_product_never_runs_what_it_reads() -> None:
    """One unpickled frame from the network is remote code execution."""
    unsafe = {
        str(path.relative_to(ROOT)): result
        for path in python_files(
            "protos/sparecode", "node/sparecode_node", "client/sparecode_client"
        )
        if (result := unsafe_constructs(path.read_text()))
    }
    assert not unsafe


@pytest.mark.parametrize(
    ("source", "construct"),
    [
        ("import pickle", "pickle"),
        ("def f():\n    from pickle import loads", "pickle"),
        ("import marshal as m", "marshal"),
        ("eval('1')", "eval"),
        ("import builtins\nbuiltins.exec('1')", "exec"),
        ("import yaml\nyaml.load(text)", "yaml.load"),
        ("from yaml import unsafe_load", "yaml.unsafe_load"),
    ],
)
def test_unsafe_constructs_are_found(source: str, construct: str) -> None:
    assert unsafe_constructs(source) == {construct}


@pytest.mark.parametrize(
    "source",
    [
        "import pysyncobj.pickle",  # To put a refusal in its place.
        "import yaml\nyaml.safe_load(text)",
        "self.exec(command)",
        "from .pickle import name",
    ],
)
def test_harmless_code_is_left_alone(source: str) -> None:
    assert not unsafe_constructs(source)


def test_folders_are_not_packages() -> None:
    """
    `node` and `client` are folders; only what is in them is imported.

    At the root of the checkout `import node` would work all the same, and load
    every module a second time, with a second set of classes.
    """
    folders = {"client", "node", "protos"}
    packages = [
        folder for folder in folders if (ROOT / folder / "__init__.py").exists()
    ]
    importers = [
        path
        for path in written_files(
            "protos", "node", "client", "deploy", "examples", "tests"
        )
        if any(
            module.partition(".")[0] in folders
            for module in imported_modules(ast.parse(path.read_text()))
        )
    ]
    assert not packages
    assert not relative(importers)


def test_written_files_name_their_license() -> None:
    unnamed = [
        path
        for path in written_files(
            "protos", "node", "client", "deploy", "examples", "tests"
        )
        if not path.read_text().startswith(f"{SPDX}\n")
    ]
    assert not relative(unnamed)


@pytest.mark.parametrize(
    ("body", "does"),
    [
        ("assert answer == 1", True),
        ("with pytest.raises(ValueError):\n        run()", True),
        ("await until_equal(nodes)", True),
        ("assert_refused(judgement)", True),
        ("expect(page).to_have_url(url)", True),
        ("async with asyncio.timeout(10):\n        await run()", False),
        ("checked(page)", False),
    ],
)
def test_an_assertion_is_recognized(body: str, does: bool) -> None:
    assert asserts(ast.parse(f"async def test():\n    {body}")) is does


def test_every_test_asserts_something() -> None:
    """A test without an assertion passes when what it shows has broken."""
    assert not [name for name, test in written_tests() if not asserts(test)]


def test_every_test_is_named_after_a_fact() -> None:
    """Fewer than three words name a subject and do not say what holds of it."""
    unclear = [
        name for name, test in written_tests() if len(test.name.split("_")) < 1 + 3
    ]
    assert not unclear
