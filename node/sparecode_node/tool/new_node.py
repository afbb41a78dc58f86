# SPDX-License-Identifier: Apache-2.0
"""`sparecode-node setup`: from an installed package to a running node, in one command."""

import os
import pwd
import shutil
import socket
import string
import subprocess
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import typer

from sparecode_node.config import Config, load_config
from sparecode_node.config_section import Address, ConfigError, Section
from sparecode_node.membership import founding_checks, joiner
from sparecode_node.membership.certificates import CertificatesError, write_certificates
from sparecode_node.membership.files import PRIVATE, PUBLIC, key_beside, listeners, put
from sparecode_node.membership.node_file import (
    PORTS,
    SYSTEM,
    Places,
    Settings,
    listening_host,
    node_settings,
    node_toml,
    places_in,
)
from sparecode_node.membership.preparation import StartError
from sparecode_node.rpc.tickets import NotATicketError, from_text
from sparecode_node.services import fields
from sparecode_node.services.ambient import SystemClock, SystemEntropy
from sparecode_node.services.errors import InvalidFieldError
from sparecode_node.services.secrets.tickets import JoinTicket
from sparecode_node.tool import recovery_tool, setup
from sparecode_node.tool.terminal import EXIT_USAGE, ask, fail, read_password

UNIT = "sparecode-node.service"
UNIT_FOLDERS = (Path("/etc/systemd/system"), Path("/usr/lib/systemd/system"))
BOOTED = Path("/run/systemd/system")
"""It exists while systemd runs the machine; see sd_booted(3)."""
SERVICE_USER = "sparecode"
_HEADING = "Written by `sparecode-node setup`. deploy/node.toml explains every setting."
_PASSWORD_SYMBOLS = string.ascii_letters + string.digits
_PASSWORD_LENGTH = 20
"""119 bits."""


def set_up(  # noqa: PLR0913, PLR0917 - options.
    context: typer.Context,
    node: Annotated[
        str | None,
        typer.Argument(
            metavar="[NODE]",
            help="Id of this node, such as n1. Default: the ticket's, or prompt for it.",
        ),
    ] = None,
    address: Annotated[
        str | None,
        typer.Argument(
            metavar="[HOST[:PORT]]",
            help="Where the other nodes reach it; the default port is 7301. Default: the "
            "ticket's, or prompt for it.",
        ),
    ] = None,
    join: setup.Join = None,
    administrator: setup.Administrator = None,
    password_file: setup.PasswordFile = None,
    agent: Annotated[
        list[str] | None,
        typer.Option(
            help="Also create a certificate for the agent of this name. May repeat.",
            metavar="NAME",
        ),
    ] = None,
    host: setup.Hosts = None,
    restore: Annotated[
        Path | None,
        typer.Option(
            "--restore",
            help="Restore this backup into a new cluster; needs --bundle and --key.",
            metavar="BACKUP",
        ),
    ] = None,
    bundle: Annotated[
        Path | None,
        typer.Option(
            help="With --restore: recovery bundle of the cluster.", metavar="FILE"
        ),
    ] = None,
    key: Annotated[
        Path | None,
        typer.Option(
            help="With --restore: file with the secret key of a recipient.",
            metavar="FILE",
        ),
    ] = None,
    passphrase_file: recovery_tool.PassphraseFile = None,
    folder: Annotated[
        Path | None,
        typer.Option(
            help="Put all files into this folder. Default: those of the systemd unit if it "
            "is installed, such as /etc/sparecode; else a folder named after the node.",
            metavar="FOLDER",
        ),
    ] = None,
    *,
    start: Annotated[
        bool,
        typer.Option(
            "--start/--no-start",
            help="Start the systemd unit, and at every boot, if systemd runs here.",
        ),
    ] = True,
) -> None:
    """
    Set up this node from nothing, and start it.

    Prompts for what is not given. Writes node.toml, then does what `init` does:
    creates the authorities, a certificate, the key ring and the first administrator of a
    new cluster, or joins a cluster with a ticket, or restores a backup. Then starts the
    systemd unit, or prints the command that starts the node.

    If there is no password file, draws a password, and writes it there. A ticket brings
    its own host names.

    Certificates of your own authority are used if they are in place before. After an
    interruption, run the same command again.
    """
    if named_config(context):
        fail("setup writes node.toml: use --folder instead of --config", EXIT_USAGE)
    if join is not None and (administrator or password_file or agent or host):
        fail(
            "--join excludes --administrator, --password-file, --agent and --host: the "
            "cluster has them already",
            EXIT_USAGE,
        )
    if restore is not None or bundle is not None or key is not None:
        if join is not None or administrator or password_file or agent:
            fail(
                "--restore excludes --join, --administrator, --password-file and "
                "--agent: the backup has them already",
                EXIT_USAGE,
            )
        if restore is None or bundle is None or key is None:
            fail(
                "--restore BACKUP, --bundle FILE and --key FILE belong together",
                EXIT_USAGE,
            )
        config = _restore(
            restore,
            bundle,
            key,
            passphrase_file=passphrase_file,
            hosts=host or (),
            write_config=lambda: _write_config(None, node, address, folder),
        )
        _start(config, start=start)
        return
    try:
        ticket = None if join is None else setup.read_ticket(join)
        parsed = None if ticket is None else from_text(ticket)
        config = _write_config(parsed, node, address, folder)
        if ticket is None or parsed is None:
            administrator = _found(
                config, administrator, password_file, agent or (), host or ()
            )
        else:
            joined = joiner.join(
                config,
                ticket,
                hosts=parsed.hosts,
                clock=SystemClock(),
                entropy=SystemEntropy(),
            )
            typer.echo(setup.joined_words(config, joined))
    except (StartError, InvalidFieldError, CertificatesError, NotATicketError) as error:
        fail(str(error))
    _start(config, start=start)
    if administrator is not None:
        _say_next(config, administrator)
    else:
        typer.echo("To follow its progress: sparecode cluster members")


def _restore(
    backup: Path,
    bundle: Path,
    key: Path,
    *,
    passphrase_file: Path | None,
    hosts: Sequence[str],
    write_config: Callable[[], Config],
) -> Config:
    """Restore a backup into a new cluster on this machine; return its configuration."""
    for path in (backup, bundle, key):
        if not path.exists():
            fail(f"{path} does not exist")
    try:
        config = write_config()
    except (StartError, InvalidFieldError) as error:
        fail(str(error))
    recovery_tool.restore_cluster(
        config,
        backup,
        bundle,
        key,
        passphrase_file=passphrase_file,
        hosts=hosts,
        new_authority=False,
    )
    return config


def named_config(context: typer.Context) -> bool:
    """Return whether `--config` is on the command line; the environment may have it."""
    if context.parent is None:
        return False
    source = context.parent.get_parameter_source("config")
    return source is not None and source.name == "COMMANDLINE"


def _write_config(
    ticket: JoinTicket | None,
    node: str | None,
    address: str | None,
    folder: Path | None,
) -> Config:
    """Write `node.toml`, unless it is there already, and return it. Raises `StartError`."""
    name = socket.gethostname()
    node_id = fields.node_id(
        "NODE",
        node
        or (ticket and ticket.node_id)
        or ask("Id of this node", "NODE", default=name.partition(".")[0].lower()),
    )
    reached = read_address(
        address
        or (ticket and ticket.address)
        or ask("Where the other nodes reach it", "HOST[:PORT]", default=name)
    )
    places = _places(folder, node_id)
    listen = listening_host(reached.host)
    settings = node_settings(places, node_id, reached, listen)
    if not places.config.exists():
        put(places.config, node_toml(settings, heading=_HEADING).encode(), PUBLIC)
        typer.echo(f"Wrote {places.config}: {node_id}, reached at {reached}.")
    elif not _has(places.config, settings):
        raise StartError(
            f"{places.config} exists with other settings: to use it, run "
            f"`sparecode-node --config {places.config} init`; else move it away"
        )
    try:
        return load_config(places.config)
    except ConfigError as error:
        places.config.unlink()
        raise StartError(str(error)) from error


def _has(config: Path, settings: Settings) -> bool:
    """Return whether `node.toml` has these settings and no others, in any spelling."""
    try:
        return tomllib.loads(config.read_text()) == settings
    except (tomllib.TOMLDecodeError, UnicodeDecodeError):
        return False


def read_address(text: str) -> Address:
    """Return HOST:PORT, with the default port if there is none. Raises `StartError`."""
    has_port = text.rpartition("]")[2].count(":") == 1
    value = text if has_port else f"{text}:{PORTS['peers']}"
    try:
        return Section(Path("address"), "setup", {"HOST:PORT": value}).address(
            "HOST:PORT"
        )
    except ConfigError:
        raise StartError(f"{text} is not HOST or HOST:PORT") from None


def _places(folder: Path | None, node_id: str) -> Places:
    if folder is not None:
        return places_in(folder)
    if not any((each / UNIT).exists() for each in UNIT_FOLDERS):
        return places_in(Path(node_id))
    if os.geteuid() != 0:
        raise StartError(
            f"{UNIT} is installed: run this command as root, or name another folder with "
            "--folder"
        )
    return SYSTEM


def _found(
    config: Config,
    administrator: str | None,
    password_file: Path | None,
    agents: Sequence[str],
    hosts: Sequence[str],
) -> str:
    """
    Create a cluster of this node alone; return the name of its administrator.

    Raises `StartError` and others.
    """
    founding_checks.refuse_founding(config, SystemClock())
    name = administrator or ask(
        "Name of the first administrator", "--administrator NAME", default="admin"
    )
    if password_file is None:
        password = ask(
            "Password (at least 15 characters)", "--password-file FILE", secret=True
        )
    else:
        if not password_file.exists():
            drawn = SystemEntropy().choices(_PASSWORD_SYMBOLS, _PASSWORD_LENGTH)
            put(password_file, f"{drawn}\n".encode(), PRIVATE)
            typer.echo(f"Drew a password for {name}, into {password_file}.")
        password = read_password(password_file)
    setup.found_cluster(
        config,
        administrator=name,
        password=password,
        # Authorities that are there are the operator's, or of an interrupted run.
        new_authority=not config.peers.ca.exists(),
        hosts=hosts,
    )
    for each in agents:
        folder = config.agents.ca.parent
        if (folder / f"{each}.pem").exists():
            continue
        write_certificates(folder, agents=[each], now=setup.now())
        typer.echo(
            f"Wrote {folder / each}.pem and .key, for the agent {each}. Register it: "
            f"sparecode agents add {each}"
        )
    return name


def _start(config: Config, *, start: bool) -> None:
    """Start the unit if the files are at its places and systemd runs; else tell how."""
    systemctl = shutil.which("systemctl")
    if config.path != SYSTEM.config:
        typer.echo(f"Start it:\nsparecode-node --config {config.path}")
        return
    _give_to_service(config)
    if not start or systemctl is None or not BOOTED.is_dir():
        typer.echo(f"Start it, now and at every boot:\nsystemctl enable --now {UNIT}")
        return
    # The unit is of the type notify: this returns when the listeners are open.
    done = subprocess.run([systemctl, "enable", "--now", UNIT], check=False)  # noqa: S603  With fixed arguments.
    if done.returncode:
        fail(f"{UNIT} did not start: journalctl -u {UNIT} tells why")
    typer.echo(f"Started {UNIT}, now and at every boot.")


def _give_to_service(config: Config) -> None:
    """Give the service's user what the node reads and writes, as docs/deploy.md says."""
    try:
        user = pwd.getpwnam(SERVICE_USER)
    except KeyError:
        fail(
            f"there is no user {SERVICE_USER}, who runs {UNIT}: run `systemd-sysusers` "
            f"with deploy/systemd/sparecode.sysusers installed, then run this again"
        )
    os.chown(config.path.parent, -1, user.pw_gid)
    config.path.parent.chmod(0o750)
    keys = {
        *(listener.key for _, listener in listeners(config)),
        *(key_beside(ca) for ca in (config.peers.ca, config.agents.ca)),
    }
    for folder in (config.node.data_dir, config.keys_file.parent):
        # What a link leads to stays root's.
        keys.update(
            (folder, *(each for each in folder.rglob("*") if not each.is_symlink()))
        )
    for path in filter(Path.exists, keys):
        os.chown(path, user.pw_uid, user.pw_gid)


def _say_next(config: Config, administrator: str) -> None:
    reached = config.members[config.node.id].host
    typer.echo(
        f"Then sign in, from any machine with a copy of {config.peers.ca.name}:\n"
        f"sparecode login {administrator} --node {reached} --ca {config.peers.ca}\n"
        "For each further node, create a ticket, and set the node up with it:\n"
        "sparecode cluster ticket n2 HOST | ssh root@HOST sparecode-node setup --join -"
    )
    typer.echo(setup.audit_words(config))
    typer.echo(setup.bundle_words(config))
