# SPDX-License-Identifier: Apache-2.0
"""The whole state is read in a process of its own, unless that takes longer."""

import contextlib
import errno
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sparecode_node.replication.errors import StoppingError
from sparecode_node.services.state import state_process
from sparecode_node.services.state.state_process import StateProcesses
from sparecode_node.statemachine.snapshots import SnapshotError
from tests.services.one_node import OneNode

DEADLINE_S = 60
PATIENCE_S = 20


@pytest.fixture
def processes() -> Iterator[StateProcesses]:
    """Return the state processes of a node."""
    with contextlib.closing(StateProcesses()) as processes:
        yield processes


def state_of(node: OneNode) -> Path:
    (_, _, path) = node.local_db.execute("PRAGMA database_list").fetchone()
    return Path(path)


@pytest.mark.asyncio
async def test_a_separate_process_finds_the_same(
    node: OneNode,
    processes: StateProcesses,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await node.add_user()
    state = state_of(node)
    here = [
        processes.look(state),
        processes.write(state, tmp_path / "here"),
        processes.check_snapshot(tmp_path / "here"),
    ]
    monkeypatch.setattr(state_process, "SMALL_BYTES", 0)
    monkeypatch.setattr(state_process, "WORK", {})  # This process reads nothing.
    apart = [
        processes.look(state),
        processes.write(state, tmp_path / "apart"),
        processes.check_snapshot(tmp_path / "apart"),
    ]
    assert here == apart
    assert len({facts.index for facts in here}) == 1
    assert here[0].index > 0
    assert here[0].digest
    assert not any(facts.digest for facts in here[1:])
    assert (tmp_path / "apart").stat().st_mode & 0o777 == 0o600


def test_unreadable_state_is_reported(
    processes: StateProcesses, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the words of the process that tried."""
    monkeypatch.setattr(state_process, "SMALL_BYTES", 0)
    (tmp_path / "state.db").write_bytes(5000 * b"x")
    with pytest.raises(SnapshotError, match=r"snapshot: file is not a database$"):
        processes.write(tmp_path / "state.db", tmp_path / "snapshot")
    with pytest.raises(SnapshotError, match=r"state\.db: file is not a database$"):
        processes.look(tmp_path / "state.db")


def test_a_killed_process_is_reported(
    processes: StateProcesses, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The snapshot keeper tries again later."""
    monkeypatch.setattr(state_process, "SMALL_BYTES", 0)
    killed = tmp_path / "killed"
    script(killed, "#!/bin/sh\necho out of memory >&2\nkill -9 $$\n")
    monkeypatch.setattr(sys, "executable", str(killed))
    with pytest.raises(SnapshotError, match="ended with -9: out of memory"):
        processes.look(killed)


def script(path: Path, text: str) -> None:
    """Write an executable script that stands in for Python."""
    path.write_text(text)
    path.chmod(0o700)


ENDLESS = f"""#!{sys.executable}
import os, sys, threading
from sparecode_node.services.state import state_process

def work(state):
    state.with_name("begun").write_text(str(os.getpid()))
    threading.Event().wait()

state_process.WORK["look"] = work
del sys.argv[1:4]  # -P -m, and the module.
sys.exit(state_process.main())
"""


@pytest.mark.timeout(DEADLINE_S)
def test_process_ends_when_its_node_is_told_to_stop(
    processes: StateProcesses, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the node would wait for it. A waiting caller gets the reason."""
    state, begun = tmp_path / "endless", tmp_path / "begun"
    script(state, ENDLESS)
    monkeypatch.setattr(sys, "executable", str(state))
    monkeypatch.setattr(state_process, "SMALL_BYTES", 0)
    os.mkfifo(begun)
    with ThreadPoolExecutor() as threads:
        reading = threads.submit(processes.look, state)
        process = int(begun.read_text())
        try:
            processes.close()
            with pytest.raises(StoppingError, match="this node stops"):
                reading.result(PATIENCE_S)
        finally:
            if not reading.done():
                os.kill(process, signal.SIGKILL)
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)


def test_no_process_starts_after_its_node_was_told_to_stop(
    processes: StateProcesses, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = tmp_path / "state.db"
    script(state, f"#!/bin/sh\ntouch {tmp_path}/begun\n")
    monkeypatch.setattr(sys, "executable", str(state))
    monkeypatch.setattr(state_process, "SMALL_BYTES", 0)
    processes.close()
    processes.close()  # A node does this twice as well.
    with pytest.raises(StoppingError):
        processes.look(state)
    assert not (tmp_path / "begun").exists()


class NoThread:
    """A stand-in for the thread that would end this process."""

    def __init__(self, **_: object) -> None:
        pass

    def start(self) -> None:
        """Do nothing."""


BEGIN = """
import os, sys, threading
from sparecode_node.services.state import state_process
from sparecode_node.statemachine.snapshots import SnapshotFacts

def work(_):
    print(os.getpriority(os.PRIO_PROCESS, 0), flush=True)
    threading.Event().wait()

state_process.WORK["look"] = work
sys.exit(state_process.main())
"""


@pytest.fixture
def at_work() -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Start a process whose work never ends; return it with its lock."""
    ended, held = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-c", BEGIN, str(ended), "look", "state.db"],
        stdout=subprocess.PIPE,
        text=True,
        pass_fds=(ended,),
    )
    os.close(ended)
    yield process, held
    process.kill()
    process.communicate()


def test_process_works_where_priorities_cannot_be_lowered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A sandbox may refuse the call with ENOSYS, too. Run in this process."""

    def refusing(_: int) -> int:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(os, "nice", refusing)
    ended, held = os.pipe()
    monkeypatch.setattr(threading, "Thread", NoThread)
    snapshot = tmp_path / "no snapshot"
    monkeypatch.setattr(sys, "argv", ["", str(ended), "check", str(snapshot)])
    assert state_process.main() == state_process.EXIT_REFUSED
    assert "unable to open database file" in capsys.readouterr().out
    os.close(ended)
    os.close(held)


@pytest.mark.timeout(DEADLINE_S)
def test_process_ends_with_its_node(at_work: tuple[subprocess.Popen[str], int]) -> None:
    """(kill -9) Otherwise it would write beside the process of the restarted node."""
    process, held = at_work
    assert process.stdout.readline()
    assert process.poll() is None
    os.close(held)
    assert process.wait(DEADLINE_S) == 1


@pytest.mark.timeout(DEADLINE_S)
def test_process_runs_at_low_priority(
    at_work: tuple[subprocess.Popen[str], int],
) -> None:
    process, held = at_work
    own = os.getpriority(os.PRIO_PROCESS, 0)
    report = int(process.stdout.readline())
    os.close(held)
    assert report == min(own + state_process.NICE, 19)
