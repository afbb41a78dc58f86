# SPDX-License-Identifier: Apache-2.0
"""
The command `sparecode-node`: runs a node, sets it up, checks and recovers it.

Exit codes: 0 stopped on request, 1 cannot start or refused, 2 wrong usage or
configuration, 70 the node detected that it is broken and stopped.
"""

import asyncio
import dataclasses
import datetime as dt
import gc
import importlib.metadata
import json
import logging
import os
import resource
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
import uvloop

# gRPC reads the variable on import. It reports failed handshakes only at its default
# level. `grpc_lines` consumes its output, so the log stays clean.
os.environ.pop("GRPC_VERBOSITY", None)

from sparecode_node.config import Config, load_config
from sparecode_node.config_section import ConfigError
from sparecode_node.daemon.logs import set_up_logging
from sparecode_node.daemon.memory import share_arenas
from sparecode_node.membership import founding_checks, preparation
from sparecode_node.membership.certificates import CertificatesError, write_certificates
from sparecode_node.membership.node_file import SYSTEM
from sparecode_node.replication.links.limits import raise_open_files
from sparecode_node.rpc.stderr import grpc_lines
from sparecode_node.services.ambient import SystemClock, SystemEntropy
from sparecode_node.services.errors import InvalidFieldError
from sparecode_node.tool import (
    authority_tool,
    backup_tool,
    new_node,
    recovery_tool,
    renewal_tool,
    ring_tool,
    setup,
    skip_tool,
)
from sparecode_node.tool.doctor.examination import examine
from sparecode_node.tool.doctor.findings import Verdict, summary
from sparecode_node.tool.terminal import (
    CONFIG_VARIABLE,
    EXIT_REFUSED,
    EXIT_USAGE,
    AsJson,
    Group,
    Output,
    OutputFormat,
    ask,
    fail,
    loaded,
    read_password,
    wants_json,
)

if TYPE_CHECKING:
    from sparecode_node.daemon.node import Node

GARBAGE = (4000, 2, 100)
"""
Thresholds of garbage collection, for `gc.set_threshold`.

Collect the youngest objects after this many new ones, the middle generation after
this many collections of the youngest, and all after this many of the middle one.
A collection holds every thread for half a microsecond per object. gRPC leaves five
objects per call to collect; most objects examined belong to calls in progress.
"""

log = logging.getLogger(__name__)

app = typer.Typer(
    cls=Group,
    add_completion=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,  # They show variables, which may be secrets.
    epilog="""\b
    Exit codes: 0 done, or stopped on request, 1 refused or cannot start, 2 wrong
    usage or configuration, 70 the node detected that it is broken and stopped.
    """,
)
app.command("setup")(new_node.set_up)
app.add_typer(backup_tool.app, name="backup")
app.add_typer(authority_tool.app, name="authority")
app.command("draw-ring")(setup.draw_ring)
app.command("rewrap-ring")(ring_tool.rewrap_ring)
app.command("renew-certificate")(renewal_tool.renew_certificate)
app.command("bundle")(recovery_tool.bundle)
app.command("restore")(recovery_tool.restore)
app.command("recover")(recovery_tool.recover)
app.command("skip-entry")(skip_tool.skip_entry)
app.command("reset-administrator")(recovery_tool.reset_administrator)


def show_version(value: bool) -> None:  # noqa: FBT001 - Typer calls it so.
    """Print the version and exit."""
    if value:
        typer.echo(f"sparecode-node {importlib.metadata.version('sparecode')}")
        raise typer.Exit


@app.callback(
    invoke_without_command=True,
    help="Run a node of a Sparecode cluster, or set it up, check or recover it.\n\n"
    "Without a command, runs the node until it is stopped.",
)
def run(
    context: typer.Context,
    config: Annotated[
        Path | None,
        typer.Option(
            help="The node's configuration, anywhere on the line. Commands default to "
            f"{SYSTEM.config}.",
            envvar=CONFIG_VARIABLE,
            metavar="FILE",
        ),
    ] = None,
    *,
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            help="Print the version and exit.",
            callback=show_version,
            is_eager=True,
        ),
    ] = False,
) -> None:
    """Run the node if no command is given."""
    del version
    context.obj = config
    if context.invoked_subcommand is not None:
        return
    if config is None:
        # A slip must not start a second node, as another user, on a packaged node's files.
        fail(
            f"name the configuration to run a node: --config FILE or {CONFIG_VARIABLE}",
            EXIT_USAGE,
        )
    loaded_config = loaded(context)
    # The other commands do not need it: they start in two thirds of the time.
    from sparecode_node.daemon.node import Node  # noqa: PLC0415

    node = Node(loaded_config, clock=SystemClock(), entropy=SystemEntropy())
    with grpc_lines(node.security_log.grpc_line):
        set_up_logging(loaded_config.log, node=loaded_config.node.id)
        run_node(node, loaded_config)


def run_node(node: "Node", config: Config) -> None:
    """Run the node; exit with its exit code unless that is 0."""
    # The node's files are for its owner only. A core dump would contain the key ring.
    os.umask(0o077)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    raise_open_files()
    share_arenas()
    # Imported objects stay: examining them for garbage would slow down every call.
    gc.freeze()
    gc.set_threshold(*GARBAGE)
    try:
        # The event loop in C: it takes a tenth less CPU per call.
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            code = runner.run(serve(node, config))
    except preparation.StartError as error:
        fail(str(error), EXIT_REFUSED)
    if code:
        # The engine has given up. Do not wait for the remaining threads.
        logging.shutdown()
        os._exit(code)


async def serve(node: "Node", config: Config) -> int:
    """Run the node until a signal or a fault stops it; return the exit code."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, node.stop)
    loop.add_signal_handler(signal.SIGHUP, reload, node, config.path)
    return await node.run()


def reload(node: "Node", path: Path) -> None:
    """Read the configuration again and apply what may change at run time (SIGHUP)."""
    try:
        config = load_config(path)
    except ConfigError as error:
        log.error("configuration_refused", extra={"cause": str(error)})  # noqa: TRY400
        return
    set_up_logging(config.log, node=config.node.id)
    node.reload(config)


@app.command("check-config")
def check_config(context: typer.Context) -> None:
    """
    Check node.toml.

    Prints OK with the node and the members, or the first error. The exit code is 2 if
    there is an error. Reads no other file and contacts no other node.
    """
    config = loaded(context)
    typer.echo(
        f"{config.path}: OK, node {config.node.id} of {', '.join(config.members)}"
    )


@app.command()
def init(  # noqa: PLR0913, PLR0917 - options.
    context: typer.Context,
    administrator: setup.Administrator = None,
    password_file: setup.PasswordFile = None,
    bundle: Annotated[
        Path | None,
        typer.Option(
            "--bundle",
            help="Also export a recovery bundle to FILE.",
            metavar="FILE",
        ),
    ] = None,
    bundle_recipient: recovery_tool.Recipients = None,
    bundle_passphrase_file: recovery_tool.PassphraseFile = None,
    join: setup.Join = None,
    beside: setup.Beside = None,
    host: setup.Hosts = None,
    *,
    new_authority: Annotated[
        bool,
        typer.Option(
            "--new-authority",
            help="Also create the cluster's authorities and this node's certificate.",
        ),
    ] = False,
) -> None:
    """
    Set up this node as the first or as a new member.

    Without --join or --beside, creates the data folder, the key ring and the first
    administrator of a new cluster. Run it on the first node only. Every other node
    joins with its own ticket, which `sparecode cluster ticket NODE HOST:PORT` creates.

    With --join, a member sends the node its certificate, the authorities and the
    key ring. Then start the node. The ticket must name each --host.

    With --beside, the node has these files already. Then add it with `sparecode
    cluster add`, and start it.
    """
    config = loaded(context)
    if join is not None:
        if administrator or password_file or new_authority:
            fail(
                "--join excludes --administrator, --password-file and "
                "--new-authority: the cluster has them already",
                EXIT_USAGE,
            )
        setup.join_cluster(config, join, host or [])
        return
    if beside:
        setup.begin_beside(config, beside)
        return
    if host and not new_authority:
        fail("--host needs --new-authority or --join", EXIT_USAGE)
    wanted = "--administrator NAME and --password-file FILE"
    try:
        founding_checks.refuse_founding(config, SystemClock())
        if administrator is None:
            administrator = ask("Name of the first administrator", wanted)
        if password_file is None:
            password = ask("Password (at least 15 characters)", wanted, secret=True)
        else:
            password = read_password(password_file)
        setup.found_cluster(
            config,
            administrator=administrator,
            password=password,
            new_authority=new_authority,
            hosts=host or (),
        )
    except (preparation.StartError, InvalidFieldError) as error:
        fail(str(error), EXIT_REFUSED)
    typer.echo(f"{setup.next_step(config)}\n{setup.audit_words(config)}")
    if bundle is None:
        typer.echo(setup.bundle_words(config))
        return
    recovery_tool.export_bundle(
        config,
        bundle,
        recipients=bundle_recipient or (),
        passphrase_file=bundle_passphrase_file,
    )
    typer.echo(
        f"Exported the recovery bundle to {bundle}. Keep it offline, apart from backups."
    )


@app.command()
def doctor(
    context: typer.Context,
    output: Output = OutputFormat.TEXT,
    *,
    as_json: AsJson = False,
) -> None:
    """
    Check this node: machine, files, data and members.

    Checks the disk and its sync time, how fast the machine hashes, ports, certificates,
    the key ring and the age of its key, the journal, the state, the audit chain, the
    last backup, and the other members and their clocks.

    Run it as root or as the node's user, while the node runs or not. The exit code
    is 1 if a check failed, and 0 if there are only warnings.
    """
    del output, as_json
    config = loaded(context)
    findings = asyncio.run(examine(config, SystemClock()))
    if wants_json():
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
    Print the public keys that verify audit checkpoints.

    Prints one key (PEM) for each key of the key ring. The keys are not secret.
    Verifiers must get them from here, not from the source of the checkpoint: a forger
    can sign with a key of their own.
    """
    config = loaded(context)
    try:
        typer.echo(preparation.audit_keys(config), nl=False)
    except preparation.StartError as error:
        fail(str(error), EXIT_REFUSED)


@app.command()
def certificates(
    directory: Annotated[
        Path, typer.Argument(metavar="DIRECTORY", help="Folder to write the files to.")
    ],
    member: Annotated[
        list[str] | None,
        typer.Option(
            help="Id of a node to certify. May repeat.",
            metavar="ID",
        ),
    ] = None,
    agent: Annotated[
        list[str] | None,
        typer.Option(
            help="Name of an agent to certify. May repeat.",
            metavar="NAME",
        ),
    ] = None,
    host: Annotated[
        list[str] | None,
        typer.Option(
            help="Name or address at which the nodes are reached. May repeat.",
            metavar="HOST",
        ),
    ] = None,
    *,
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            help="Replace existing certificates of nodes, which keep their keys, and of "
            "agents.",
        ),
    ] = False,
) -> None:
    """
    Create certificates for development or one operator.

    Creates two authorities (members-ca, agents-ca) unless they exist, and a
    certificate and key for each member and agent. The authorities' keys are in the
    same folder, unencrypted: anyone who can read the folder can act as any node and
    any agent. If several people operate the cluster, use your own authority.
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
