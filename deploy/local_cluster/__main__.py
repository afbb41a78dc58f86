# SPDX-License-Identifier: Apache-2.0
"""`make run`, `make demo` and `make reset`: python -m local_cluster COMMAND."""

import shutil
import signal
import sys
import tempfile
import time
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
    new = not (STATE / "cluster.json").exists()
    if new:
        console.print("Setting up three nodes: certificates, keys, first administrator")
        shutil.rmtree(STATE, ignore_errors=True)
    cluster = set_up(STATE) if new else LocalCluster.load(STATE)
    try:
        console.print("Starting the nodes")
        cluster.start()
        with Story(cluster, console) as story:
            if new:
                story.tell()
            else:
                story.tell_again()
        _invite(cluster, console)
        _wait_for_end()
        console.print("\nStopping the nodes; `make run` continues this cluster")
    finally:
        cluster.stop()
    return 0


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
    console.print("Ctrl-C stops the nodes. `make reset` forgets them.")


def _wait_for_end() -> None:
    """Wait for Ctrl-C or a polite kill."""
    ended = False

    def end(*_: object) -> None:
        nonlocal ended
        ended = True

    signal.signal(signal.SIGINT, end)
    signal.signal(signal.SIGTERM, end)
    while not ended:
        time.sleep(0.2)


def demo(console: Console) -> int:
    """Tell the story with fresh state; the exit code says whether it is true."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="sparecode-demo-") as directory:
        cluster = set_up(Path(directory))
        try:
            cluster.start()
            with Story(cluster, console) as story:
                story.tell()
        finally:
            cluster.stop()
    took = time.monotonic() - started
    console.print(f"\n[bold green]Every step came out as promised[/] ({took:.0f} s).")
    return 0


def reset(console: Console) -> int:
    """Forget the cluster of `make run`."""
    shutil.rmtree(STATE, ignore_errors=True)
    console.print("The cluster of `make run` is forgotten.")
    return 0


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
    console = Console()
    try:
        return command(console)
    except (NotAsPromisedError, LocalClusterError, SparecodeError) as error:
        console.print(f"\n[bold red]{error}[/]", highlight=False)
        return 1


if __name__ == "__main__":
    sys.exit(main())
