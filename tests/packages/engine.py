# SPDX-License-Identifier: Apache-2.0
"""
Docker, for the tests of packages: the engine of this machine, or one of their own.

If no engine answers, a `dockerd` is started whose images and containers lie in a
folder of its own. At the end it is stopped, and the folder is deleted.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Self

LABEL = "sparecode-packages"
START_S = 60
OUTPUT_MAX = 4000
FORWARDING = Path("/proc/sys/net/ipv4/ip_forward")
EMPTY_TABLES = {
    "filter": "*filter\n:FORWARD ACCEPT\nCOMMIT\n",
    "nat": "*nat\nCOMMIT\n",
    "raw": "*raw\nCOMMIT\n",
}
"""What to restore where a table that the daemon makes did not exist before."""
SAVERS = ("iptables-save", "ip6tables-save")
BRIDGE = "docker0"
INTERRUPTED = 130
"""The exit code after Ctrl-C, as in shells."""


class EngineError(Exception):
    """A command failed, or a tool is missing; the message says which."""


def run(
    *command: str | Path,
    given: str = "",
    check: bool = True,
    cwd: Path | None = None,
    environment: Mapping[str, str] | None = None,
    timeout_s: float = 1800,
) -> subprocess.CompletedProcess[str]:
    """Run a command; return it with its output. Raises `EngineError`."""
    try:
        done = subprocess.run(
            command,
            input=given,
            capture_output=True,
            text=True,
            check=False,
            cwd=cwd,
            env={**os.environ, **(environment or {})},
            timeout=timeout_s,
        )
    except FileNotFoundError as error:
        raise EngineError(f"{command[0]} is missing: make package-tools") from error
    except subprocess.TimeoutExpired as error:
        raise EngineError(f"{' '.join(map(str, command))}: took too long") from error
    if check and done.returncode:
        words = " ".join(map(str, command))
        output = (done.stdout + done.stderr)[-OUTPUT_MAX:]
        raise EngineError(f"{words}\nexit code {done.returncode}\n{output}")
    return done


class Engine:
    """Docker, as its command line. A context manager: it removes what it has made."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._open = contextlib.ExitStack()
        self._host = os.environ.get("DOCKER_HOST", "")

    def __enter__(self) -> Self:
        """Find an engine, or start one."""
        if not self._answers():
            self._open.enter_context(self._own())
        self._open.callback(self.remove_all)
        return self

    def __exit__(self, *_: object) -> None:
        """Remove containers, volumes, networks and images, and an engine of our own."""
        self._open.close()

    @property
    def environment(self) -> dict[str, str]:
        """What commands need to reach this engine."""
        return {"DOCKER_HOST": self._host} if self._host else {}

    def docker(
        self, *arguments: str | Path, given: str = "", check: bool = True
    ) -> str:
        """Run docker; return its output. Raises `EngineError`."""
        return run(
            *("docker", *arguments),
            given=given,
            check=check,
            environment=self.environment,
        ).stdout.strip()

    def _answers(self) -> bool:
        return not run(
            "docker", "info", check=False, environment=self.environment
        ).returncode

    @contextlib.contextmanager
    def _own(self) -> Iterator[None]:
        """Run a daemon of our own; put the machine's network back after that."""
        with _network_kept(), self._daemon():
            yield

    @contextlib.contextmanager
    def _daemon(self) -> Iterator[None]:
        folder = self._folder
        folder.mkdir(parents=True, exist_ok=True)
        self._host = f"unix://{folder}/docker.sock"
        with (folder / "dockerd.log").open("wb") as log:
            try:
                daemon = subprocess.Popen(
                    [
                        "dockerd",
                        f"--host={self._host}",
                        f"--data-root={folder}/data",
                        f"--exec-root={folder}/run",
                        f"--pidfile={folder}/docker.pid",
                    ],
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            except FileNotFoundError as error:
                raise EngineError("dockerd is missing: make package-tools") from error
            try:
                deadline = time.monotonic() + START_S
                while not self._answers():
                    if daemon.poll() is not None or time.monotonic() > deadline:
                        words = (folder / "dockerd.log").read_text()[-2000:]
                        raise EngineError(f"dockerd did not start:\n{words}")
                    time.sleep(0.5)
                yield
            finally:
                daemon.terminate()
                daemon.wait(timeout=60)
                shutil.rmtree(folder, ignore_errors=True)

    def remove_all(self) -> None:
        """Remove everything that has our label."""
        for kind, remove in (
            ("container", ("rm", "--force", "--volumes")),
            ("network", ("rm",)),
        ):
            all_of_them = ("--all",) if kind == "container" else ()
            names = self.docker(
                *(kind, "ls", "--quiet", *all_of_them),
                *("--filter", f"label={LABEL}"),
                check=False,
            ).split()
            if names:
                self.docker(kind, *remove, *names, check=False)

    def imported(self, name: str, root: Path) -> None:
        """Make an image of the folder *root*."""
        archive = root.with_suffix(".tar")
        run("tar", "--create", "--numeric-owner", "--file", archive, "-C", root, ".")
        self.docker("import", archive, name)
        archive.unlink()

    def has(self, image: str) -> bool:
        """Return whether the engine has this image."""
        return bool(self.docker("image", "ls", "--quiet", image))


@contextlib.contextmanager
def _network_kept() -> Iterator[None]:
    """Undo what a daemon leaves: rules of the filter, a bridge, and forwarding."""
    rules = {saver: run(saver).stdout for saver in SAVERS}
    forwarding = FORWARDING.read_text()
    had_bridge = not run("ip", "link", "show", BRIDGE, check=False).returncode
    try:
        yield
    finally:
        for saver, before in rules.items():
            _restore_rules(saver, before)
        FORWARDING.write_text(forwarding)
        if not had_bridge:
            run("ip", "link", "delete", BRIDGE, check=False)


def _restore_rules(saver: str, before: str) -> None:
    """Put the tables back; one that did not exist, and exists now, is emptied."""
    now = run(saver).stdout
    text = before + "".join(
        empty
        for table, empty in EMPTY_TABLES.items()
        if f"*{table}\n" in now and f"*{table}\n" not in before
    )
    if text:
        run(saver.replace("save", "restore"), given=text)


def exit_on_signals() -> None:
    """
    Let the signals that end a process raise `SystemExit`, so that engines are closed.

    Only the first one: another one must not cut the clean-up off.
    """
    ends = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)

    def end(*_: object) -> None:
        for number in ends:
            signal.signal(number, signal.SIG_IGN)
        sys.exit(INTERRUPTED)

    for number in ends:
        signal.signal(number, end)


def debootstrap(root: Path, suite: str, *packages: str) -> None:
    """Install a small Debian into the folder *root*."""
    run(
        *("debootstrap", "--variant=minbase", f"--include={','.join(packages)}"),
        *(suite, root),
    )
    shutil.rmtree(root / "var/cache/apt/archives", ignore_errors=True)
