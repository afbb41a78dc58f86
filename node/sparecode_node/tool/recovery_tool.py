# SPDX-License-Identifier: Apache-2.0
"""`sparecode-node bundle`, `restore` and `recover`: for the worst day, and before it."""

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
from sparecode_node.membership import recovery
from sparecode_node.membership.files import key_beside
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
from sparecode_node.tool.terminal import EXIT_USAGE, fail, loaded, read_password

PASSPHRASE_CHARACTERS_MIN = 12
NEW_CLUSTER = "--make-this-node-a-new-cluster"

Recipients = Annotated[
    list[str] | None,
    typer.Option(
        "--recipient",
        help="An age public key (age1...) that opens the bundle; may repeat.",
        metavar="KEY",
    ),
]
PassphraseFile = Annotated[
    Path | None,
    typer.Option(
        help="File of mode 0600 that holds the bundle's passphrase.", metavar="FILE"
    ),
]


def bundle(
    context: typer.Context,
    path: Annotated[Path, typer.Argument(metavar="FILE", help="Must not exist yet.")],
    recipient: Recipients = None,
    passphrase_file: PassphraseFile = None,
    also: Annotated[
        list[Path] | None,
        typer.Option(
            help="Put this file in as well; may repeat.",
            metavar="FILE",
        ),
    ] = None,
) -> None:
    """
    Export a recovery bundle: the key ring and the authorities' keys, encrypted.

    An authority's key goes in where it lies beside its certificate. A restore needs it, for no backup holds a key. Keep it offline, apart from the
    backups. Export a new one after each rotation of keys.
    """
    config = loaded(context)
    export_bundle(
        config,
        path,
        recipients=recipient or (),
        passphrase_file=passphrase_file,
        also=also or (),
    )
    typer.echo(f"{path}: keep it offline, and apart from the backups.")


def export_bundle(
    config: Config,
    path: Path,
    *,
    recipients: Sequence[str],
    passphrase_file: Path | None,
    also: Sequence[Path] = (),
) -> None:
    """
    Write the key ring and other files, encrypted to keys or under a passphrase (P5).

    The keys of the authorities go in wherever they lie beside the certificates.
    """
    if path.exists():
        fail(f"{path} exists already; a bundle does not replace another one")
    for key in recipients:
        if problem := age_files.recipient_problem(key):
            fail(f"--recipient {key}: {problem}", EXIT_USAGE)
    try:
        text = bundles.to_bytes(
            Bundle(
                ring=ring_file(config).load(),
                files={
                    each.name: each.read_bytes()
                    for each in (*_authority_keys(config), *also)
                },
            )
        )
        if recipients:
            ciphertext = age_files.encrypt_bytes(text, recipients)
        else:
            ciphertext = age_files.encrypt_with_passphrase(
                text, _new_passphrase(passphrase_file)
            )
        write_private(path, ciphertext)
    except OSError as error:
        fail(f"{error.filename}: {error.strerror}")
    except (AgeError, KeyRingError) as error:
        fail(str(error))


def _authority_keys(config: Config) -> tuple[Path, ...]:
    keys = dict.fromkeys(map(key_beside, (config.peers.ca, config.agents.ca)))
    return tuple(key for key in keys if key.exists())


def _new_passphrase(path: Path | None) -> str:
    passphrase = _passphrase(path, confirm=True)
    if len(passphrase) < PASSPHRASE_CHARACTERS_MIN:
        fail(
            f"the passphrase has {len(passphrase)} characters; it must have at least "
            f"{PASSPHRASE_CHARACTERS_MIN}: whoever guesses it has all keys"
        )
    return passphrase


def _passphrase(path: Path | None, *, confirm: bool = False) -> str:
    if path is not None:
        return read_password(path)
    if not sys.stdin.isatty():
        fail(
            "no terminal to ask for the bundle's passphrase at: give --recipient KEY "
            "or --passphrase-file FILE"
            if confirm
            else "no terminal to ask for the bundle's passphrase at: give "
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
        typer.Argument(metavar="BACKUP", help="What `sparecode cluster backup` wrote."),
    ],
    bundle_file: Annotated[
        Path,
        typer.Option("--bundle", help="The recovery bundle.", metavar="FILE"),
    ],
    key: Annotated[
        Path,
        typer.Option(help="File with the secret key of a recipient.", metavar="FILE"),
    ],
    passphrase_file: PassphraseFile = None,
) -> None:
    """
    Make a new cluster of a backup, on this node. Its data folder must be empty.

    All emergency codes, sessions, drafts and request ids of before are void, TOTP
    takes no code up to now, HOTP tokens wait to be resynchronized, and agents are
    served only after an operator has reviewed and opened the cluster.
    """
    config = loaded(context)
    _refuse_others_files(config)
    try:
        identities = age_files.read_identities(key)
        contents = _open_bundle(bundle_file, identities, passphrase_file)
        cluster, manifest = recovery.restore(
            config,
            backup,
            contents,
            identities=identities,
            clock=SystemClock(),
            entropy=SystemEntropy(),
        )
    except (AgeError, BundleError, StartError) as error:
        fail(str(error))
    _give_to_node(config)
    typer.echo(
        f"Restored: the state at log entry {cluster.index}, of "
        f"{_time(manifest.state_at_ms)}."
    )
    if contents.files:
        typer.echo(
            f"The bundle's other files are in "
            f"{config.node.data_dir / recovery.RECOVERED}."
        )
    print_next_steps(cluster)


def _open_bundle(
    path: Path, identities: Sequence[str], passphrase_file: Path | None
) -> Bundle:
    """Open a bundle with the key, or else with its passphrase. Raises `AgeError`."""
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
                    f"{path}: {error}; if it has a passphrase, give --passphrase-file"
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
            help="Do it: void all codes, forget the other nodes, begin a new cluster.",
        ),
    ] = False,
) -> None:
    """
    Make this node a new cluster, when a quorum is lost for good.

    Stop the node first. Without the option it only says how much this node has, and
    what would happen. The other nodes of before can never come back: what they had
    and this one has not is lost. As after a restore, codes and sessions are void,
    and agents are served only after a review.
    """
    # What replication would log of the journal is said here in words, or no matter.
    logging.getLogger("sparecode_node").addHandler(logging.NullHandler())
    config = loaded(context)
    _refuse_others_files(config)
    clock = SystemClock()
    try:
        if recovery.was_interrupted(config):
            recovery.move(config)
            _give_to_node(config)
            typer.echo("An interrupted recovery is finished; start the node.")
            return
        own = recovery.surviving_log(config)
        others = asyncio.run(recovery.ask_others(config, own, clock))
        print_logs(own, others)
        if objection := recovery.objection(own, others):
            fail(f"refused: {objection}")
        if not confirmed:
            print_consequences(own)
            raise typer.Exit(1)
        cluster = recovery.recover(config, clock=clock, entropy=SystemEntropy())
        _give_to_node(config)
    except (KeyRingError, OSError, StartError) as error:
        fail(str(error))
    typer.echo(f"Recovered: the state at log entry {cluster.index}.")
    if cluster.kept_in is not None:
        typer.echo(
            "What this node had before, with the old key ring, is in\n"
            f"    {cluster.kept_in}"
        )
    print_next_steps(cluster)


def reset_administrator(
    context: typer.Context,
    administrator: Annotated[
        str, typer.Argument(metavar="NAME", help="Of the administrator.")
    ],
    password_file: Annotated[
        Path | None,
        typer.Option(
            help="File of mode 0600 that holds the temporary password (default: ask).",
            metavar="FILE",
        ),
    ] = None,
) -> None:
    """
    Give an administrator who has lost the password a temporary one.

    For root on a machine whose node runs, on the node's local socket. It goes
    through the log, and is in the audit log. The administrator is enabled, and has
    to choose a password at once; the role stays as it is.
    """
    config = loaded(context)
    if password_file is not None:
        password = read_password(password_file)
    elif sys.stdin.isatty():
        password = typer.prompt(
            "Temporary password (at least 12 characters)",
            hide_input=True,
            confirmation_prompt=True,
        )
    else:
        fail("no terminal to ask at: give --password-file FILE", EXIT_USAGE)
    try:
        local_socket.reset_administrator(config.node.data_dir, administrator, password)
    except LocalSocketError as error:
        fail(str(error))
    typer.echo(
        f"{administrator} has the temporary password, which is for choosing another:\n"
        f"    sparecode login {administrator}\n"
        "    sparecode admins password"
    )


def print_logs(own: SurvivingLog, others: Sequence[MemberStatus]) -> None:
    """Say who has how much of the log."""
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
            + ("has too much to do to answer" if each.busy else "cannot be reached")
        )


def print_consequences(own: SurvivingLog) -> None:
    """Say what would happen, and how to have it."""
    lost = ", ".join(
        each.node_id for each in own.members if each.node_id != own.node_id
    )
    typer.echo(
        f"""
Nothing was changed. This would make {own.node_id} a new cluster of one node:
  - with a new id: {lost or "nobody else"} can never come back to it, even if they
    have something that {own.node_id} has not. That would be lost.
  - all emergency codes, drafts, sessions and request ids are void; TOTP takes
    no code up to now, and HOTP tokens wait to be resynchronized.
  - no agent is served until an operator has reviewed and opened it.
Do it only if the others are lost for good. Look first, on each that is left,
which has the most of the log, and recover there. Then:
    sparecode-node --config node.toml recover \\
        {NEW_CLUSTER}"""
    )


def print_next_steps(cluster: NewCluster) -> None:
    """Say what to do now."""
    typer.echo(
        f"""This node is the new cluster {cluster.cluster_id}. Next:
  1. Start the node.
  2. Review it, put right what is of the past, and open it:
         sparecode cluster review
         sparecode cluster open
  3. Have others join, each with an empty data folder and without a key ring:
         sparecode cluster ticket n2 > n2.ticket
         sparecode-node --config node.toml init --join n2.ticket
  4. Export a new recovery bundle, and take a backup."""
    )


def _refuse_others_files(config: Config) -> None:
    """Refuse to write files that the node could not read: root can give them to it."""
    folder = config.node.data_dir
    if folder.exists() and folder.stat().st_uid != os.geteuid() != 0:
        fail(f"{folder} is another user's: run this as that user, or as root")


def _give_to_node(config: Config) -> None:
    """Let whoever owns the data folder own what root has written there."""
    if os.geteuid() != 0:
        return
    owner = config.node.data_dir.stat()
    for path in config.node.data_dir.rglob("*"):
        os.chown(path, owner.st_uid, owner.st_gid)


def _time(at_ms: int) -> str:
    return f"{dt.datetime.fromtimestamp(at_ms / 1000, dt.UTC):%Y-%m-%d %H:%M:%S} UTC"
