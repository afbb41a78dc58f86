# SPDX-License-Identifier: Apache-2.0
"""`sparecode-node bundle`, `restore`, `recover` and `reset-administrator`."""

import asyncio
import datetime as dt
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from sparecode_node.config import Config
from sparecode_node.daemon import local_socket
from sparecode_node.daemon.local_socket import LocalSocketError
from sparecode_node.membership import bundle_files, recovery
from sparecode_node.membership.bundle_record import record_bundle
from sparecode_node.membership.preparation import StartError, ring_file
from sparecode_node.membership.recovery import NewCluster
from sparecode_node.replication.offline.refounding import SurvivingLog
from sparecode_node.replication.replicator import MemberStatus
from sparecode_node.services.ambient import SystemClock, SystemEntropy
from sparecode_node.services.cluster import bundles
from sparecode_node.services.cluster.bundles import (
    BUNDLE_BYTES_MAX,
    Bundle,
    BundleError,
)
from sparecode_node.services.files import age_files
from sparecode_node.services.files.age_files import AgeError
from sparecode_node.services.secrets.keyring import KeyRingError, write_private
from sparecode_node.tool.ownership import give_to_node
from sparecode_node.tool.recovery_report import print_missing_segments
from sparecode_node.tool.terminal import EXIT_USAGE, fail, loaded, read_password, tool

PASSPHRASE_CHARACTERS_MIN = 12
NEW_CLUSTER = "--make-this-node-a-new-cluster"

Recipients = Annotated[
    list[str] | None,
    typer.Option(
        "--recipient",
        help="Encrypt the bundle to this age public key (age1...). May repeat.",
        metavar="KEY",
    ),
]
PassphraseFile = Annotated[
    Path | None,
    typer.Option(
        help="Read the bundle's passphrase from FILE, mode 0600.", metavar="FILE"
    ),
]


def bundle(
    context: typer.Context,
    path: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="File to write, which must not exist."),
    ],
    recipient: Recipients = None,
    passphrase_file: PassphraseFile = None,
    also: Annotated[
        list[Path] | None,
        typer.Option(
            help="Also include this file. May repeat.",
            metavar="FILE",
        ),
    ] = None,
) -> None:
    """
    Export a recovery bundle, which a restore needs.

    The bundle holds the key ring, and the authorities' certificates and keys,
    encrypted. A restore needs it because backups contain no keys. Keep it offline,
    apart from the backups. Export a new one after each key rotation.

    An authority's key is included if it is in the folder of its certificate. Without
    --recipient, the bundle is encrypted with a passphrase of at least 12 characters.
    """
    config = loaded(context)
    export_bundle(
        config,
        path,
        recipients=recipient or (),
        passphrase_file=passphrase_file,
        also=also or (),
    )
    typer.echo(
        f"Exported the recovery bundle to {path}. Keep it offline, apart from backups."
    )


def export_bundle(
    config: Config,
    path: Path,
    *,
    recipients: Sequence[str],
    passphrase_file: Path | None,
    also: Sequence[Path] = (),
) -> None:
    """
    Write the key ring and other files, encrypted to keys or with a passphrase (P5).

    The authorities' certificates are included, and their keys if they are in the
    folders of the certificates.
    """
    if path.exists():
        fail(f"{path} exists; bundles are never overwritten: choose another name")
    for key in recipients:
        if problem := age_files.recipient_problem(key):
            fail(f"--recipient {key}: {problem}", EXIT_USAGE)
    try:
        ring = ring_file(config).load()
        files = bundle_files.authority_files(config)
        for each in also:
            if each.name in files:
                fail(f"--also {each}: the bundle has a {each.name} already; rename it")
            files[each.name] = each.read_bytes()
        text = bundles.to_bytes(Bundle(ring=ring, files=files))
        if recipients:
            ciphertext = age_files.encrypt_bytes(text, recipients)
        else:
            ciphertext = age_files.encrypt_with_passphrase(
                text, _new_passphrase(passphrase_file)
            )
        write_private(path, ciphertext)
        if config.node.data_dir.exists():
            record_bundle(config, ring)
            give_to_node(config)
    except OSError as error:
        fail(f"{error.filename}: {error.strerror}")
    except (AgeError, KeyRingError, StartError, ValueError) as error:
        fail(str(error))


def _new_passphrase(path: Path | None) -> str:
    passphrase = _passphrase(path, confirm=True)
    if len(passphrase) < PASSPHRASE_CHARACTERS_MIN:
        fail(
            f"the passphrase has {len(passphrase)} characters; use at least "
            f"{PASSPHRASE_CHARACTERS_MIN}: anyone who guesses it has all keys"
        )
    return passphrase


def _passphrase(path: Path | None, *, confirm: bool = False) -> str:
    if path is not None:
        return read_password(path)
    if not sys.stdin.isatty():
        fail(
            "cannot prompt for the bundle's passphrase without a terminal: use "
            "--recipient KEY or --passphrase-file FILE"
            if confirm
            else "cannot prompt for the bundle's passphrase without a terminal: use "
            "--passphrase-file FILE, or --key FILE if it was encrypted to a key",
            EXIT_USAGE,
        )
    answer: str = typer.prompt(
        "Passphrase of the bundle", hide_input=True, confirmation_prompt=confirm
    )
    return answer


def restore(
    context: typer.Context,
    backup: Annotated[
        Path,
        typer.Argument(metavar="BACKUP", help="Output of `sparecode cluster backup`."),
    ],
    bundle_file: Annotated[
        Path,
        typer.Option(
            "--bundle", help="Recovery bundle of the cluster.", metavar="FILE"
        ),
    ],
    key: Annotated[
        Path,
        typer.Option(help="File with the secret key of a recipient.", metavar="FILE"),
    ],
    passphrase_file: PassphraseFile = None,
    host: Annotated[
        list[str] | None,
        typer.Option(
            help="Another name or address at which this node is reached, for its "
            "certificate. May repeat.",
            metavar="HOST",
        ),
    ] = None,
    *,
    new_authority: Annotated[
        bool,
        typer.Option(
            "--new-authority",
            help="Create new authorities, if the bundle does not have them: agents then "
            "need new certificates.",
        ),
    ] = False,
) -> None:
    """
    Restore a backup into a new cluster on this node.

    This node must have no data and no key ring. The authorities come from the bundle,
    with a certificate for this node; files that exist are kept.

    Everything that may be used only once becomes invalid: emergency codes, sessions,
    drafts and request ids. TOTP tokencodes up to the present moment are refused, and
    for one or two hours after the opening each sign-in takes two in a row. HOTP tokens
    must be resynchronized. Agents are not served until an operator has reviewed and
    opened the cluster.
    """
    restore_cluster(
        loaded(context),
        backup,
        bundle_file,
        key,
        passphrase_file=passphrase_file,
        hosts=host or (),
        new_authority=new_authority,
    )


def restore_cluster(
    config: Config,
    backup: Path,
    bundle_file: Path,
    key: Path,
    *,
    passphrase_file: Path | None,
    hosts: Sequence[str],
    new_authority: bool,
) -> None:
    """Restore a backup into a new cluster on this node, and print what to do next."""
    _refuse_others_files(config)
    clock = SystemClock()
    try:
        identities = age_files.read_identities(key)
        contents = open_bundle(bundle_file, identities, passphrase_file)
        now = dt.datetime.fromtimestamp(clock.now_ms() / 1000, dt.UTC)
        files_of = (
            bundle_files.new_files if new_authority else bundle_files.restored_files
        )
        files = files_of(config, contents, hosts=hosts, now=now)
        cluster, manifest = recovery.restore(
            config,
            backup,
            contents,
            identities=identities,
            files=files,
            clock=clock,
            entropy=SystemEntropy(),
        )
        others = bundle_files.keep_others(config, contents)
    except (AgeError, BundleError, StartError) as error:
        fail(str(error))
    give_to_node(config, files)
    typer.echo(
        f"Restored the state at log entry {cluster.index}, last changed "
        f"{_time(manifest.state_at_ms)}."
    )
    for each in files:
        typer.echo(f"Wrote {each.path}.")
    if others is not None:
        typer.echo(f"The other files of the bundle are in {others}.")
    print_next_steps(config, cluster)


def open_bundle(
    path: Path, identities: Sequence[str], passphrase_file: Path | None
) -> Bundle:
    """
    Open a bundle with the key, or with its passphrase if the key does not fit.

    Raises `AgeError`.
    """
    try:
        with path.open("rb") as file:
            ciphertext = file.read(BUNDLE_BYTES_MAX)
    except OSError as error:
        fail(f"{path}: {error.strerror}")
    if passphrase_file is None:
        try:
            return bundles.from_bytes(
                age_files.decrypt_bytes(ciphertext, identities=identities)
            )
        except AgeError as error:
            if not sys.stdin.isatty():
                raise AgeError(
                    f"{path}: {error}; if it has a passphrase, use --passphrase-file"
                ) from None
    passphrase = _passphrase(passphrase_file)
    try:
        return bundles.from_bytes(
            age_files.decrypt_bytes(ciphertext, passphrase=passphrase)
        )
    except (AgeError, BundleError) as error:
        raise AgeError(f"{path}: {error}") from None


def recover(
    context: typer.Context,
    *,
    confirmed: Annotated[
        bool,
        typer.Option(
            NEW_CLUSTER,
            help="Confirm: void all codes, drop the other nodes, begin a new cluster.",
        ),
    ] = False,
) -> None:
    """
    Make a new cluster after a quorum is lost for good.

    This node becomes the new cluster, with the data that it has. Stop the node first. Without the option, shows how much of the log each node has
    and what would happen, and changes nothing.

    The other nodes can never come back to the new cluster. Changes that this node
    does not have are lost. As after a restore, codes and sessions are void, and
    agents are not served until an operator has reviewed and opened the cluster.
    """
    # Hide log lines of replication: this command prints what matters itself.
    logging.getLogger("sparecode_node").addHandler(logging.NullHandler())
    config = loaded(context)
    _refuse_others_files(config)
    clock = SystemClock()
    try:
        if recovery.was_interrupted(config):
            recovery.move(config)
            give_to_node(config)
            typer.echo("Finished an interrupted recovery. Start the node.")
            return
        own = recovery.surviving_log(config)
        others = asyncio.run(recovery.ask_others(config, own, clock))
        print_logs(own, others)
        print_missing_segments(own, recovery.missing(config))
        if objection := recovery.objection(own, others):
            fail(f"refused: {objection}")
        if not confirmed:
            print_consequences(config, own)
            raise typer.Exit(1)
        cluster = recovery.recover(config, clock=clock, entropy=SystemEntropy())
        give_to_node(config)
    except (KeyRingError, OSError, StartError) as error:
        fail(str(error))
    typer.echo(f"Recovered the state at log entry {cluster.index}.")
    if cluster.kept_in is not None:
        typer.echo(
            "This node's earlier files, and the old key ring, are in\n"
            f"    {cluster.kept_in}"
        )
    print_next_steps(config, cluster)


def reset_administrator(
    context: typer.Context,
    administrator: Annotated[
        str, typer.Argument(metavar="NAME", help="Name of the administrator.")
    ],
    password_file: Annotated[
        Path | None,
        typer.Option(
            help="Read the temporary password from FILE, mode 0600. Default: prompt for it.",
            metavar="FILE",
        ),
    ] = None,
    *,
    second_factor: Annotated[
        bool,
        typer.Option(
            "--second-factor",
            help="Also remove the second factor. The announcement says so.",
        ),
    ] = False,
) -> None:
    """
    Request a temporary password for an administrator.

    Use it if no administrator can sign in. Run it as root, or as the node's user, on the
    machine of a running node that has been a member for a day: it uses the node's local
    socket.

    The request takes effect after the policy's `reset_delay`, one hour by default. Until
    then the console, `sparecode cluster status`, the audit log and an alert announce it.
    A super administrator who signs in cancels it, and can also cancel it with
    `sparecode admins cancel-reset`. Then the administrator is enabled, keeps their role,
    and must choose a new password at the next sign-in.
    """
    config = loaded(context)
    if password_file is not None:
        password = read_password(password_file)
    elif sys.stdin.isatty():
        password = typer.prompt(
            "Temporary password (at least 15 characters)",
            hide_input=True,
            confirmation_prompt=True,
        )
    else:
        fail("cannot prompt without a terminal: use --password-file FILE", EXIT_USAGE)
    try:
        due_at_ms = local_socket.reset_administrator(
            config.node.data_dir, administrator, password, second_factor=second_factor
        )
    except LocalSocketError as error:
        fail(str(error))
    typer.echo(
        f"Requested a temporary password for {administrator}"
        f"{' and the removal of the second factor' if second_factor else ''}. "
        "If the administrator is disabled, the reset enables them. "
        + (
            f"It takes effect at {_time(due_at_ms)}, unless a super administrator signs "
            "in first. Then"
            if due_at_ms
            else "It is in force. Now"
        )
        + f" {administrator} signs in with it and chooses a new one:\n"
        f"    sparecode login {administrator}\n"
        "    sparecode admins change-password"
    )


def print_logs(own: SurvivingLog, others: Sequence[MemberStatus]) -> None:
    """Print how much of the log each node has."""
    names = ", ".join(each.node_id for each in own.members)
    typer.echo(f"Cluster {own.cluster_id}, members {names}.")
    typer.echo(
        f"  {own.node_id}: entry {own.last_index} of term {own.last_term}, "
        f"applied {own.applied_index} (this node)"
    )
    for each in others:
        term, index = each.last_entry
        typer.echo(
            f"  {each.node_id}: entry {index} of term {term}, applied "
            f"{each.applied_index}"
            if each.reachable
            else f"  {each.node_id}: "
            + ("too busy to answer" if each.busy else "cannot be reached")
        )


def print_consequences(config: Config, own: SurvivingLog) -> None:
    """Print what a recovery would change, and how to confirm it."""
    lost = ", ".join(
        each.node_id for each in own.members if each.node_id != own.node_id
    )
    typer.echo(
        f"""
Nothing was changed. This would make {own.node_id} a new cluster of one node:
  - {lost or "No other node"} can never come back to the new cluster. Changes that
    {own.node_id} does not have would be lost.
  - Emergency codes, drafts, sessions and request ids become void. TOTP
    tokencodes up to the present moment are refused, and for one or two hours
    after the opening each sign-in takes two in a row. HOTP tokens must be
    resynchronized.
  - Agents are not served until an operator has reviewed and opened the cluster.
Do it only if the other nodes are lost permanently. First run this command on
every node that is left, and recover on the one with the most of the log:
    {tool(config)} recover \\
        {NEW_CLUSTER}"""
    )


def print_next_steps(config: Config, cluster: NewCluster) -> None:
    """Print what to do after a restore or a recovery."""
    typer.echo(
        f"""This node is the new cluster {cluster.cluster_id}. Next:
  1. Export a new recovery bundle, and start the node:
         {tool(config)} bundle FILE
  2. Review the cluster, correct what is out of date, and open it:
         sparecode cluster review
         sparecode cluster open
  3. Let other nodes join, with ids that no node has had and empty folders:
         sparecode cluster ticket NODE HOST > the.ticket
         sparecode-node setup --join the.ticket
  4. Take a backup."""
    )


def _refuse_others_files(config: Config) -> None:
    """Fail if the node could not read the files written. Root can change their owner."""
    folder = config.node.data_dir
    if folder.exists() and folder.stat().st_uid != os.geteuid() != 0:
        fail(f"{folder} is owned by another user: run this as that user, or as root")


def _time(at_ms: int) -> str:
    return f"{dt.datetime.fromtimestamp(at_ms / 1000, dt.UTC):%Y-%m-%d %H:%M:%S} UTC"
