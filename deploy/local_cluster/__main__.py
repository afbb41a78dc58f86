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
from local_cluster.doors import RADIUS_CLIENT
from local_cluster.setup import set_up
from local_cluster.story import NotAsPromisedError, Story
from sparecode_client import SparecodeError

STATE = Path(__file__).parents[2] / "var" / "local"
COMPLETED = "told"
"""A file that exists once every step has passed: `make run` can continue this cluster."""

ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Ctrl-C, `kill`, and a closed terminal."""

IMPATIENCE_S = 2.0
"""Signals within this time count as one: impatient users press Ctrl-C twice."""

INTERRUPTED = 130
"""The exit code after Ctrl-C, as in shells."""


def write_environment(cluster: LocalCluster) -> Path:
    """Write the settings of the `sparecode` command, to be sourced by a shell."""
    certificates = cluster.certificates
    lines = {
        "SPARECODE_NODES": ",".join(node.admin_address for node in cluster.nodes),
        "SPARECODE_CA": cluster.members_ca,
        "SPARECODE_AGENT_NODES": ",".join(
            node.agents_address for node in cluster.nodes
        ),
        "SPARECODE_HTTP": cluster.nodes[0].http_url
        if cluster.nodes[0].ports.http
        else "",
        "SPARECODE_AGENT_CERTIFICATE": certificates / f"{AGENT}.pem",
        "SPARECODE_AGENT_KEY": certificates / f"{AGENT}.key",
    }
    file = cluster.directory / "environment.sh"
    file.write_text(
        "".join(f"export {name}='{value}'\n" for name, value in lines.items())
    )
    return file


def run(console: Console) -> int:
    """Run the cluster of this checkout until Ctrl-C, and run the steps of the story."""
    new = not (STATE / COMPLETED).exists()
    if new:
        _forget()  # An interrupted run may have left files.
        console.print("Setting up three nodes: certificates, keys, first administrator")
    cluster = set_up(STATE, doors=True) if new else LocalCluster.load(STATE)
    with _stopping(cluster):
        console.print("Starting the nodes")
        cluster.start()
        with Story(cluster, console) as story:
            if new:
                story.tell()
            else:
                story.tell_again()
        (STATE / COMPLETED).touch()
        _invite(cluster, console)
        with contextlib.suppress(KeyboardInterrupt):
            signal.pause()
        console.print("\nStopping the nodes. `make run` starts this cluster again.")
    return 0


@contextlib.contextmanager
def _stopping(cluster: LocalCluster) -> Iterator[None]:
    """Stop the nodes at the end. Further signals do not interrupt that."""
    try:
        yield
    finally:
        for number in ENDS:
            signal.signal(number, signal.SIG_IGN)
        cluster.stop()


def _invite(cluster: LocalCluster, console: Console) -> None:
    environment = write_environment(cluster)
    console.print("\n[bold]The cluster is ready.[/] Try it in another terminal:\n")
    console.print(
        f"    source {environment}\n"
        f"    .venv/bin/sparecode login {ADMINISTRATOR}"
        f" --password-file {cluster.password_file}\n"
        "    .venv/bin/sparecode cluster status\n"
        "    .venv/bin/sparecode emergency issue 000131415926 --expires 7d\n"
        "    .venv/bin/sparecode authenticate alice      (PIN 4719, then a code)\n",
        highlight=False,
        soft_wrap=True,
    )
    if cluster.radius_secret_file.exists():
        console.print(
            "The nodes also answer RADIUS. This sends one request, and explains the "
            "answer:\n\n"
            f"    .venv/bin/sparecode agents test {RADIUS_CLIENT} alice"
            f" --server {cluster.nodes[0].radius_address}"
            f" --secret-file {cluster.radius_secret_file}\n",
            highlight=False,
            soft_wrap=True,
        )
        console.print(
            "And HTTP, for programs with the agent's certificate:\n\n"
            '    curl --cacert "$SPARECODE_CA" --cert "$SPARECODE_AGENT_CERTIFICATE"'
            ' --key "$SPARECODE_AGENT_KEY" \\\n'
            """        --json '{"username": "alice", "passcode": "4719000000"}'"""
            ' "$SPARECODE_HTTP/v1/authenticate"\n',
            highlight=False,
            markup=False,
            soft_wrap=True,
        )
    if cluster.nodes[0].ports.console:
        console.print("Or open the Security Console of any node in a browser:\n")
        for node in cluster.nodes:
            console.print(f"    {node.console_url}  ({node.node_id})", highlight=False)
        console.print(
            f"\n    Sign in as {ADMINISTRATOR} with the password {cluster.password}\n"
            "    The browser warns about the certificate, because it does not know "
            "this\n    cluster's own authority:\n"
            f"    {cluster.members_ca}\n",
            highlight=False,
            soft_wrap=True,
        )
    console.print("Ctrl-C stops the nodes. `make reset` deletes this cluster.")


def demo(console: Console) -> int:
    """Run every step on a new cluster; the exit code tells whether all have passed."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="sparecode-demo-") as directory:
        cluster = set_up(Path(directory), doors=True)
        with _stopping(cluster):
            cluster.start()
            with Story(cluster, console) as story:
                story.tell()
    took = time.monotonic() - started
    console.print(f"\n[bold green]All steps have passed[/] ({took:.0f} s).")
    return 0


def reset(console: Console) -> int:
    """Delete the cluster of `make run`."""
    _forget()
    console.print("The cluster of `make run` is deleted.")
    return 0


def _forget() -> None:
    """Remove the cluster's folder, unless its nodes are running."""
    if (STATE / "cluster.json").exists():
        LocalCluster.load(STATE).check_ports()
    shutil.rmtree(STATE, ignore_errors=True)


class _Interruption:
    """A signal handler that interrupts once, and ignores repeated signals."""

    def __init__(self) -> None:
        self._last = float("-inf")

    def __call__(self, *_: object) -> None:
        before, self._last = self._last, time.monotonic()
        if self._last - before > IMPATIENCE_S:
            raise KeyboardInterrupt


def main() -> int:
    """Run the command that the argument names."""
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
