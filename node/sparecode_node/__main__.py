# SPDX-License-Identifier: Apache-2.0
"""
`sparecode-node`: the daemon, and the commands that set a node up.

Exit codes: 0 stopped as asked, 1 cannot start or refused, 2 wrong usage or
configuration, 70 the node found itself broken and stopped.
"""

import asyncio
import dataclasses
import datetime as dt
import gc
import json
import logging
import os
import resource
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer
import uvloop

# gRPC reads it when it is imported. Of a handshake that fails it tells at its
# default level alone; `grpc_lines` takes what it writes, so nobody is bothered.
os.environ.pop("GRPC_VERBOSITY", None)

from sparecode_node.config import Config, load_config
from sparecode_node.config_section import ConfigError
from sparecode_node.daemon.logs import set_up_logging
from sparecode_node.daemon.node import VERSION, Node
from sparecode_node.membership import preparation
from sparecode_node.membership.certificates import CertificatesError, write_certificates
from sparecode_node.membership.founder import make_authorities
from sparecode_node.replication.links.limits import raise_open_files
from sparecode_node.rpc.stderr import grpc_lines
from sparecode_node.services.ambient import SystemClock, SystemEntropy
from sparecode_node.services.errors import InvalidFieldError
from sparecode_node.tool import backup_tool, recovery_tool, setup
from sparecode_node.tool.doctor.examination import examine
from sparecode_node.tool.doctor.findings import Verdict, summary
from sparecode_node.tool.terminal import (
    EXIT_REFUSED,
    EXIT_USAGE,
    fail,
    loaded,
    read_password,
)

GARBAGE = (4000, 2, 100)
"""
After how many new objects to look for garbage among them; after how many such looks
among those that stayed, too; and after how many of these among all.

A look holds every thread for half a microsecond an object. gRPC leaves five objects
a call for it; most of what it goes through are calls that are being answered.
"""

log = logging.getLogger(__name__)

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
app.add_typer(backup_tool.app, name="backup")
app.command("draw-ring")(setup.draw_ring)
app.command("bundle")(recovery_tool.bundle)
app.command("restore")(recovery_tool.restore)
app.command("recover")(recovery_tool.recover)
app.command("reset-administrator")(recovery_tool.reset_administrator)


def show_version(value: bool) -> None:  # noqa: FBT001 - Typer calls it so.
    """Print the version."""
    if value:
        typer.echo(f"sparecode-node {VERSION}")
        raise typer.Exit


@app.callback(
    invoke_without_command=True,
    help="A node of a Sparecode cluster. Without a command it runs the node.",
)
def run(
    context: typer.Context,
    config: Annotated[
        Path | None,
        typer.Option(help="The node's node.toml.", metavar="FILE"),
    ] = None,
    *,
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version.", callback=show_version, is_eager=True
        ),
    ] = False,
) -> None:
    """Run the node, unless there is a command."""
    del version
    context.obj = config
    if context.invoked_subcommand is not None:
        return
    loaded_config = loaded(context)
    node = Node(loaded_config, clock=SystemClock(), entropy=SystemEntropy())
    with grpc_lines(node.security_log.grpc_line):
        set_up_logging(loaded_config.log, node=loaded_config.node.id)
        run_node(node, loaded_config)


def run_node(node: Node, config: Config) -> None:
    """Run the node, and end the process as it ends."""
    # What the node writes is for its owner; a core dump would hold the key ring.
    os.umask(0o077)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    raise_open_files()
    # What was imported stays: to look through it for garbage costs each call a part.
    gc.freeze()
    gc.set_threshold(*GARBAGE)
    try:
        # The same loop in C: a tenth less of a core for each call.
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            code = runner.run(serve(node, config))
    except preparation.StartError as error:
        fail(str(error), EXIT_REFUSED)
    if code:
        # The engine has given up; whatever threads are left must not hold us.
        logging.shutdown()
        os._exit(code)


async def serve(node: Node, config: Config) -> int:
    """Run the node until it is told to stop; return the exit code."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, node.stop)
    loop.add_signal_handler(signal.SIGHUP, reload, node, config.path)
    return await node.run()


def reload(node: Node, path: Path) -> None:
    """Read the configuration again, and take of it what may change (SIGHUP)."""
    try:
        config = load_config(path)
    except ConfigError as error:
        log.error("configuration_refused", extra={"cause": str(error)})  # noqa: TRY400
        return
    set_up_logging(config.log, node=config.node.id)
    node.reload(config)


@app.command("check-config")
def check_config(context: typer.Context) -> None:
    """Read node.toml and say what is wrong with it."""
    config = loaded(context)
    typer.echo(f"{config.path}: node {config.node.id} of {', '.join(config.members)}")


@app.command()
def init(  # noqa: PLR0913, PLR0917 - options.
    context: typer.Context,
    administrator: Annotated[
        str | None,
        typer.Option(
            help="Name of the first administrator (default: ask).", metavar="NAME"
        ),
    ] = None,
    password_file: Annotated[
        Path | None,
        typer.Option(
            help="File of mode 0600 that holds the password (default: ask).",
            metavar="FILE",
        ),
    ] = None,
    bundle: Annotated[
        Path | None,
        typer.Option(
            "--bundle",
            help="Also export a recovery bundle into this file.",
            metavar="FILE",
        ),
    ] = None,
    bundle_recipient: recovery_tool.Recipients = None,
    bundle_passphrase_file: recovery_tool.PassphraseFile = None,
    join: Annotated[
        str | None,
        typer.Option(
            "--join",
            help="Join a cluster: a file with the ticket, - for stdin, or the ticket.",
            metavar="TICKET",
        ),
    ] = None,
    beside: setup.Beside = None,
    host: Annotated[
        list[str] | None,
        typer.Option(
            help="Another name or address of this node, for its certificate; may repeat.",
            metavar="HOST",
        ),
    ] = None,
    *,
    new_authority: Annotated[
        bool,
        typer.Option(
            "--new-authority",
            help="Also make the cluster's authorities, and this node's certificate.",
        ),
    ] = False,
) -> None:
    """
    Begin a new cluster, or join one.

    Without --join: data folder, key ring, first administrator. Run it on the first
    node only; the others join, each with a ticket of its own, which `sparecode
    cluster ticket NODE` makes. With --join the node gets its certificate, the
    authorities and the key ring from a member; then start it. With --beside it has
    them already, and was added by `sparecode cluster add`.
    """
    config = loaded(context)
    if join is not None:
        if administrator or password_file or new_authority:
            fail(
                "--join goes without --administrator, --password-file and "
                "--new-authority: the cluster has all of them already",
                EXIT_USAGE,
            )
        setup.join_cluster(config, join, host or [])
        return
    if beside:
        setup.begin_beside(config, beside)
        return
    if host and not new_authority:
        fail("--host goes with --new-authority or --join", EXIT_USAGE)
    try:
        preparation.refuse_existing(config)
        if administrator is None:
            administrator = prompt("Name of the first administrator")
        if password_file is None:
            password = prompt("Password (at least 12 characters)", secret=True)
        else:
            password = read_password(password_file)
        if new_authority:
            now = dt.datetime.fromtimestamp(SystemClock().now_ms() / 1000, dt.UTC)
            make_authorities(config, hosts=host or [], now=now)
        asyncio.run(
            preparation.initialize(
                config,
                administrator=administrator,
                password=password,
                entropy=SystemEntropy(),
            )
        )
    except (preparation.StartError, InvalidFieldError) as error:
        fail(str(error), EXIT_REFUSED)
    typer.echo(
        f"{setup.next_step(config)}\n"
        "Keep with the CA's certificate, for `sparecode audit verify --public-key`:\n"
        f"{preparation.audit_keys(config)}".rstrip()
    )
    if bundle is None:
        typer.echo(
            "Not exported yet: the recovery bundle (key ring and authorities' keys, "
            "encrypted).\nNo backup restores without it. Export it, and keep it offline:\n"
            f"sparecode-node --config {config.path} bundle FILE"
        )
        return
    recovery_tool.export_bundle(
        config,
        bundle,
        recipients=bundle_recipient or (),
        passphrase_file=bundle_passphrase_file,
    )
    typer.echo(f"{bundle}: the recovery bundle. Keep it offline, apart from backups.")


@app.command()
def doctor(
    context: typer.Context,
    *,
    as_json: Annotated[
        bool, typer.Option("--json", help="Write a JSON list, for programs.")
    ] = False,
) -> None:
    """
    Examine this node: its machine, its files, and what it holds.

    Disk and sync, ports, certificates, key ring and the age of its key, journal,
    state, audit chain, the last backup, the other members and their clocks. Run it
    as root or as the user that the node runs as; the node may run or not. The exit
    code is 1 if something has failed, and 0 if there are warnings only.
    """
    config = loaded(context)
    findings = asyncio.run(examine(config, SystemClock()))
    if as_json:
        typer.echo(
            json.dumps([dataclasses.asdict(each) for each in findings], indent=2)
        )
    else:
        for finding in findings:
            typer.echo(finding)
        typer.echo(summary(findings))
    if any(finding.verdict is Verdict.FAIL for finding in findings):
        raise typer.Exit(EXIT_REFUSED)


@app.command("audit-keys")
def audit_keys(context: typer.Context) -> None:
    """
    Print the public keys that checkpoints of the audit log are verified with.

    One for each key of the key ring, in PEM. They are no secret, but whoever
    verifies must have them from here, and not from who gave them the checkpoint.
    """
    config = loaded(context)
    try:
        typer.echo(preparation.audit_keys(config), nl=False)
    except preparation.StartError as error:
        fail(str(error), EXIT_REFUSED)


def prompt(question: str, *, secret: bool = False) -> str:
    """Ask at the terminal."""
    if not sys.stdin.isatty():
        fail(
            "no terminal to ask at: give --administrator NAME and --password-file FILE",
            EXIT_USAGE,
        )
    answer: str = typer.prompt(question, hide_input=secret, confirmation_prompt=secret)
    return answer


@app.command()
def certificates(
    directory: Annotated[Path, typer.Argument(help="Where the files go.")],
    member: Annotated[
        list[str] | None,
        typer.Option(help="A node's id; may repeat.", metavar="ID"),
    ] = None,
    agent: Annotated[
        list[str] | None,
        typer.Option(help="An agent's name; may repeat.", metavar="NAME"),
    ] = None,
    host: Annotated[
        list[str] | None,
        typer.Option(
            help="A name or address under which nodes are reached; may repeat.",
            metavar="HOST",
        ),
    ] = None,
    *,
    force: Annotated[
        bool, typer.Option("--force", help="Replace certificates that exist.")
    ] = False,
) -> None:
    """
    Make certificates for development, or for a single operator.

    Two authorities (members-ca, agents-ca), a certificate and key for every
    member and agent. The authorities' keys lie beside them, unencrypted: whoever
    reads the folder can be any node and any agent. Where more than one person
    operates, take certificates from your own authority.
    """
    now = dt.datetime.fromtimestamp(SystemClock().now_ms() / 1000, dt.UTC)
    try:
        paths = write_certificates(
            directory,
            members=member or (),
            agents=agent or (),
            hosts=host or (),
            force=force,
            now=now,
        )
    except CertificatesError as error:
        fail(str(error), EXIT_REFUSED)
    for path in paths:
        typer.echo(path)


def main() -> None:
    """Run `sparecode-node`."""
    app()


if __name__ == "__main__":
    main()
