# SPDX-License-Identifier: Apache-2.0
"""`make run`, `make demo` and `make reset`: python -m local_cluster COMMAND."""

import contextlib
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console

from local_cluster.cluster import (
    ADMINISTRATOR,
    AGENT,
    LocalCluster,
    LocalClusterError,
)
from local_cluster.setup import set_up
from local_cluster.story import NotAsPromisedError, Story
from sparecode_client import SparecodeError

STATE = Path(__file__).parents[2] / "var" / "local"
TOLD = "told"
"""A file that says: the story was told to its end, the cluster can go on."""

ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Ctrl-C, a polite kill, and the terminal closed."""

IMPATIENCE_S = 2.0
"""Between two presses of Ctrl-C that mean one."""

INTERRUPTED = 130
"""The exit code of what Ctrl-C has ended, as shells have it."""


def _environment_file(cluster: LocalCluster) -> Path:
    """Write what the `sparecode` command wants to know, to be sourced by a shell."""
    certificates = cluster.certificates
    lines = {
        "SPARECODE_NODES": ",".join(node.admin_address for node in cluster.nodes),
        "SPARECODE_CA": cluster.members_ca,
        "SPARECODE_AGENT_NODES": ",".join(
            node.agents_address for node in cluster.nodes
        ),
        "SPARECODE_AGENT_CERTIFICATE": certificates / f"{AGENT}.pem",
        "SPARECODE_AGENT_KEY": certificates / f"{AGENT}.key",
    }
    file = cluster.directory / "environment.sh"
    file.write_text(
        "".join(f"export {name}='{value}'\n" for name, value in lines.items())
    )
    return file


def run(console: Console) -> int:
    """Run the cluster of this checkout until Ctrl-C; tell the story on the way."""
    new = not (STATE / TOLD).exists()
    if new:
        _forget()  # What an interrupted run has left.
        console.print("Setting up three nodes: certificates, keys, first administrator")
    cluster = set_up(STATE) if new else LocalCluster.load(STATE)
    with _stopping(cluster):
        console.print("Starting the nodes")
        cluster.start()
        with Story(cluster, console) as story:
            if new:
                story.tell()
            else:
                story.tell_again()
        (STATE / TOLD).touch()
        _invite(cluster, console)
        with contextlib.suppress(KeyboardInterrupt):
            signal.pause()
        console.print("\nStopping the nodes; `make run` continues this cluster")
    return 0


@contextlib.contextmanager
def _stopping(cluster: LocalCluster) -> Iterator[None]:
    """Stop the nodes at the end, whatever ends it, and however often it is told to."""
    try:
        yield
    finally:
        for number in ENDS:
            signal.signal(number, signal.SIG_IGN)
        cluster.stop()


def _invite(cluster: LocalCluster, console: Console) -> None:
    environment = _environment_file(cluster)
    console.print("\n[bold]The cluster is yours.[/] In another terminal:\n")
    console.print(
        f"    source {environment}\n"
        f"    .venv/bin/sparecode login {ADMINISTRATOR}"
        f" --password-file {cluster.password_file}\n"
        "    .venv/bin/sparecode cluster status\n"
        "    .venv/bin/sparecode emergency issue 000131415926 --expires 7d\n"
        "    .venv/bin/sparecode authenticate alice      (PIN 4711, then a code)\n",
        highlight=False,
        soft_wrap=True,
    )
    if cluster.nodes[0].ports.console:
        console.print("Or in a browser, at whichever node, the Security Console:\n")
        for node in cluster.nodes:
            console.print(f"    {node.console_url}  ({node.node_id})", highlight=False)
        console.print(
            f"\n    name {ADMINISTRATOR}, password {cluster.password}\n"
            "    (the certificate is of this cluster's own authority: "
            f"{cluster.members_ca})\n",
            highlight=False,
            soft_wrap=True,
        )
    console.print("Ctrl-C stops the nodes. `make reset` forgets them.")


def demo(console: Console) -> int:
    """Tell the story with fresh state; the exit code says whether it is true."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="sparecode-demo-") as directory:
        cluster = set_up(Path(directory))
        with _stopping(cluster):
            cluster.start()
            with Story(cluster, console) as story:
                story.tell()
    took = time.monotonic() - started
    console.print(f"\n[bold green]Every step came out as promised[/] ({took:.0f} s).")
    return 0


def reset(console: Console) -> int:
    """Forget the cluster of `make run`."""
    _forget()
    console.print("The cluster of `make run` is forgotten.")
    return 0


def _forget() -> None:
    """Remove the cluster's folder, but not from under nodes that run."""
    if (STATE / "cluster.json").exists():
        LocalCluster.load(STATE).check_ports()
    shutil.rmtree(STATE, ignore_errors=True)


class _Interruption:
    """Interrupts for a signal; more of them at once are impatience, and disturb."""

    def __init__(self) -> None:
        self._last = float("-inf")

    def __call__(self, *_: object) -> None:
        before, self._last = self._last, time.monotonic()
        if self._last - before > IMPATIENCE_S:
            raise KeyboardInterrupt


def main() -> int:
    """Do what the one argument says."""
    commands = {"run": run, "demo": demo, "reset": reset}
    match sys.argv[1:]:
        case [name] if name in commands:
            command = commands[name]
        case _:
            usage = f"usage: python -m local_cluster {'|'.join(commands)}"
            print(usage, file=sys.stderr)
            return 2
    interruption = _Interruption()
    for number in ENDS:
        signal.signal(number, interruption)
    console = Console()
    try:
        return command(console)
    except KeyboardInterrupt:
        console.print("\nInterrupted; the nodes are stopped.")
        return INTERRUPTED
    except (NotAsPromisedError, LocalClusterError, SparecodeError) as error:
        console.print(f"\n[bold red]{error}[/]", highlight=False)
        return 1


if __name__ == "__main__":
    sys.exit(main())
