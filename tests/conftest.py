# SPDX-License-Identifier: Apache-2.0
"""Fixtures for every test."""

import collections
import functools
import os
import threading
from collections.abc import Generator, Iterator
from pathlib import Path

import pysyncobj.journal
import pysyncobj.pickle
import pytest
import typer
import typer.testing
from hypothesis import settings
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from tests import three_nodes
from tests.databases import close_databases
from tests.memory import folder_in_memory

# A deadline of an example would measure how busy the machine is.
settings.register_profile("sparecode", deadline=None)
settings.load_profile("sparecode")

# Folders of tests that may run beside any other: they start no process of a node and no
# browser, compare no times, and use no fixed port.
BESIDE_OTHERS = (
    "client",
    "console",
    "domain",
    "fuzz",
    "http",
    "metrics",
    "model",
    "packages",
    "queries",
    "radius",
    "replication",
    "rpc",
    "security",
    "services",
    "simulation",
    "statemachine",
)
# Modules in these folders that do. `make quick` leaves them out.
EXCEPTIONS = (
    "console/test_at_the_desk.py",
    "console/test_procedure.py",
    "security/test_callers_may_do_what_the_table_says.py",
    "services/test_state_process.py",
)

MEMORY_MIN = 4 * 1024**3
"""Free bytes from which on the folders of tests are in memory."""


def pytest_configure() -> None:
    """
    Let `tmp_path` be in memory, if there is room.

    Most tests make a database. On a disk, half of their time is spent with waiting for it.
    No test needs a disk that outlasts a power cut: such disks are simulated.
    """
    if memory := folder_in_memory(free=MEMORY_MIN):
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(memory))


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the project's own options."""
    parser.addoption(
        "--rewrite",
        action="store_true",
        help="record the output of the golden scripts again: commit only what "
        "you understand",
    )
    parser.addoption(
        "--quick",
        action="store_true",
        help="leave out the modules that start nodes or browsers, or measure time, in "
        "folders that otherwise do not",
    )
    parser.addoption(
        "--every-look",
        action="store_true",
        help="check the contrast of every page of the console in every look: make looks",
    )


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out the exceptions for `--quick`."""
    module = collection_path.relative_to(config.rootpath / "tests").as_posix()
    return (config.getoption("--quick") and module in EXCEPTIONS) or None


def pytest_report_header(config: pytest.Config) -> list[str]:
    """List what `--quick` leaves out."""
    if not config.getoption("--quick"):
        return []
    return [f"left out by --quick: {', '.join(EXCEPTIONS)}"]


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter,
) -> None:
    """Name the packages for want of which tests were skipped, and how many."""
    missing = collections.Counter(_missing(terminalreporter))
    if missing:
        names = ", ".join(
            f"{name} ({number})" for name, number in missing.most_common()
        )
        terminalreporter.write_line(
            f"{missing.total()} tests were skipped for want of {names}: "
            "make system-packages installs what Debian has."
        )


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail in CI, which installs every package that tests need."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if "CI" in os.environ and reporter and any(_missing(reporter, installed=True)):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def _missing(
    reporter: pytest.TerminalReporter, *, installed: bool = False
) -> Iterator[str]:
    """Yield the package of each skipped test; *installed*: by `make system-packages`."""
    for report in reporter.stats.get("skipped", ()):
        reason = report.longrepr[2].removeprefix("Skipped: ")
        package, is_missing, advice = reason.partition(" is missing")
        if is_missing and (not installed or "make system-packages" in advice):
            yield package


class NodesInOneProcess(LoadScopeScheduling):
    """
    Run the tests that start nodes in one process, one after the other.

    `make test` runs two processes (pytest-xdist). Two clusters at a time would use the
    same ports and measure each other. All other tests go module by module to the
    process that is free. Groups by mark (`--dist loadgroup`) would say the same, but
    pytest-xdist 3.8 loses the marks with pytest 9.2.
    """

    def _split_scope(self, nodeid: str) -> str:
        module = nodeid.partition("::")[0].removeprefix("tests/")
        if module.partition("/")[0] in BESIDE_OTHERS and module not in EXCEPTIONS:
            return super()._split_scope(nodeid)
        return "nodes"


def pytest_xdist_make_scheduler(
    config: pytest.Config, log: Producer
) -> LoadScopeScheduling | None:
    """Take the scheduler above for `--dist loadscope`."""
    if config.getvalue("dist") == "loadscope":
        return NodesInOneProcess(config, log)
    return None


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(
    fixturedef: pytest.FixtureDef[object],
) -> Generator[None, object, object]:
    """See that a cluster of three nodes, as `make rules` calls it, is one."""
    value = yield
    three_nodes.check(fixturedef.func, value)
    return value


@pytest.fixture(scope="session")
def rewrite(request: pytest.FixtureRequest) -> bool:
    """Whether golden scripts are to be recorded again."""
    return bool(request.config.getoption("--rewrite"))


@pytest.fixture(scope="session", autouse=True)
def commands_built_once() -> Iterator[None]:
    """Typer's runner builds all commands again for each call, which takes 25 ms."""
    with pytest.MonkeyPatch.context() as patch:
        build = functools.cache(typer.main.get_command)
        patch.setattr(typer.testing, "_get_command", build)
        yield


@pytest.fixture(autouse=True)
def closed_databases() -> Iterator[None]:
    """Close what a test has opened with `open_database`."""
    yield
    close_databases()


@pytest.fixture(autouse=True)
def stopped_engines() -> Iterator[None]:
    """
    Fail the test that leaves an engine running.

    Its thread would draw from the dice of the whole process, and disturb later tests.
    """
    before = _engines()
    yield
    assert _engines() <= before, "the test has left an engine running"


def _engines() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name == "engine"}


@pytest.fixture(autouse=True)
def no_pickles(monkeypatch: pytest.MonkeyPatch) -> None:
    """No object comes out of bytes by PySyncObj's pickle, in any test."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("PySyncObj has pickled or unpickled something")

    for module in (pysyncobj.pickle, pysyncobj.journal):
        for name in ("load", "loads", "dump", "dumps"):
            monkeypatch.setattr(module, name, refuse, raising=False)
