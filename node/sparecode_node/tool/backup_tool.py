# SPDX-License-Identifier: Apache-2.0
"""`sparecode-node backup`: keys for backups, and what a backup is worth."""

import dataclasses
import datetime as dt
import json
import tempfile
from pathlib import Path
from typing import Annotated

import typer
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from sparecode_node.services.files import age_files, backup_files
from sparecode_node.services.files.age_files import AgeError
from sparecode_node.services.files.backup_files import BackupFileError, SignedManifest
from sparecode_node.services.files.backup_verification import open_backup
from sparecode_node.services.secrets.keyring import KeyRingError, write_private
from sparecode_node.tool.terminal import fail

PEM_END = b"-----END PUBLIC KEY-----"

app = typer.Typer(
    no_args_is_help=True,
    help="Make keys for backups, and examine backups. Needs no node and no cluster.",
)

BackupFile = Annotated[
    Path,
    typer.Argument(metavar="BACKUP", help="What `sparecode cluster backup` wrote."),
]


@app.command()
def keygen(
    path: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="Of the secret key; must not exist yet."),
    ],
) -> None:
    """
    Make a key that opens backups.

    The secret key goes into FILE: keep it off the nodes, offline, twice. The public
    key is printed, for the policy's backup_recipients.
    """
    if path.exists():
        fail(f"{path} exists already; a key is not written over another one")
    secret, public = age_files.new_identity()
    try:
        write_private(path, f"# public key: {public}\n{secret}\n".encode())
    except KeyRingError as error:
        fail(str(error))
    typer.echo(public)
    typer.echo(
        f"{path} holds the secret key.\n"
        "Keep it where no node is, and twice. To have backups for it:\n"
        f"    sparecode policy update --set backup_recipients={public}",
        err=True,
    )


@app.command()
def show(
    path: BackupFile,
    *,
    as_json: Annotated[
        bool, typer.Option("--json", help="Write JSON, for programs.")
    ] = False,
) -> None:
    """Show what a backup says of itself. That is not encrypted, and not verified here."""
    try:
        signed = backup_files.read_manifest(path)
    except BackupFileError as error:
        fail(str(error))
    print_manifest(signed, as_json=as_json)


@app.command()
def verify(
    path: BackupFile,
    key: Annotated[
        Path,
        typer.Option(help="File with the secret key of a recipient.", metavar="FILE"),
    ],
    public_key: Annotated[
        Path | None,
        typer.Option(
            help="What `sparecode-node audit-keys` prints: also verify who signed it.",
            metavar="FILE",
        ),
    ] = None,
    *,
    as_json: Annotated[
        bool, typer.Option("--json", help="Write JSON, for programs.")
    ] = False,
) -> None:
    """
    Open a backup, and compute everything anew that its manifest says.

    Size and SHA-256, the digest of the state as replicas compare it, and every hash
    of the audit log. What is decrypted goes into a temporary folder (TMPDIR), for
    its owner alone, and is removed.
    """
    try:
        identities = age_files.read_identities(key)
        with tempfile.TemporaryDirectory(prefix="sparecode.") as folder:
            signed = open_backup(path, Path(folder) / "state.db", identities)
    except (AgeError, BackupFileError) as error:
        fail(f"NOT VERIFIED: {error}")
    if public_key is not None and not any(map(signed.signed_by, read_keys(public_key))):
        fail(f"NOT VERIFIED: {path}: none of the keys in {public_key} has signed it")
    print_manifest(signed, as_json=as_json)
    if not as_json:
        typer.echo("")
        typer.echo(
            "Verified: it opens, and the state and the audit log are what it says."
        )
        typer.echo(
            "Signed by the cluster."
            if public_key
            else "Who signed it was not verified: see --public-key, or restore it with a "
            "bundle."
        )


def read_keys(path: Path) -> list[bytes]:
    """Return the public keys of a PEM file."""
    try:
        blocks = path.read_bytes().split(PEM_END)[:-1]
        keys = [load_pem_public_key(block + PEM_END) for block in blocks]
    except OSError as error:
        fail(f"{path}: {error.strerror}")
    except ValueError:
        fail(f"{path}: not what `sparecode-node audit-keys` prints")
    return [key.public_bytes_raw() for key in keys if isinstance(key, Ed25519PublicKey)]


def print_manifest(signed: SignedManifest, *, as_json: bool) -> None:
    """Write a manifest for people, or for programs."""
    manifest = signed.manifest
    if as_json:
        typer.echo(json.dumps(dataclasses.asdict(manifest), indent=2))
        return
    for name, value in (
        ("Cluster", manifest.cluster_id),
        ("Epoch", str(manifest.epoch)),
        ("Taken", f"{_time(manifest.taken_at_ms)} on node {manifest.node_id}"),
        ("Log entry", f"{manifest.index} (term {manifest.term})"),
        ("Last change", _time(manifest.state_at_ms)),
        ("Digest", manifest.digest),
        ("Audit log", f"{manifest.audit_sequence} events"),
        ("", manifest.audit_head),
        ("Key", str(manifest.key_id)),
        ("Version", manifest.version),
        *(("Recipient", each) for each in manifest.recipients),
    ):
        typer.echo(f"{name:<12} {value}")


def _time(at_ms: int) -> str:
    return f"{dt.datetime.fromtimestamp(at_ms / 1000, dt.UTC):%Y-%m-%d %H:%M:%S} UTC"
