# SPDX-License-Identifier: Apache-2.0
"""`sparecode-node backup`: create keys for backups; show and verify backups."""

import dataclasses
import datetime as dt
import json
import tempfile
from pathlib import Path
from typing import Annotated

import typer
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from sparecode_node.domain.segments import in_words
from sparecode_node.services.files import age_files, backup_files
from sparecode_node.services.files.age_files import AgeError
from sparecode_node.services.files.backup_files import BackupFileError, SignedManifest
from sparecode_node.services.files.backup_verification import (
    missing_events,
    open_backup,
)
from sparecode_node.services.secrets.keyring import KeyRingError, write_private
from sparecode_node.tool.terminal import (
    AsJson,
    Output,
    OutputFormat,
    fail,
    wants_json,
)

PEM_END = b"-----END PUBLIC KEY-----"

app = typer.Typer(
    rich_markup_mode=None,
    no_args_is_help=True,
    help="Create keys for backups; show and verify backups. Needs no node.",
)

BackupFile = Annotated[
    Path,
    typer.Argument(metavar="BACKUP", help="Output of `sparecode cluster backup`."),
]


@app.command()
def keygen(
    path: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="File to write, which must not exist."),
    ],
) -> None:
    """
    Create a key pair for backups.

    Writes the secret key, which opens backups, to FILE. Keep two copies of it
    offline, not on a node. Prints the public key, for the policy's backup_recipients.
    """
    if path.exists():
        fail(f"{path} exists; keys are never overwritten: choose another name")
    secret, public = age_files.new_identity()
    try:
        write_private(path, f"# public key: {public}\n{secret}\n".encode())
    except KeyRingError as error:
        fail(str(error))
    typer.echo(public)
    typer.echo(
        f"Wrote the secret key to {path}.\n"
        "Keep two copies of it offline, not on a node. To encrypt backups to it:\n"
        f"    sparecode policy update --set backup_recipients={public}",
        err=True,
    )


@app.command()
def show(
    path: BackupFile,
    output: Output = OutputFormat.TEXT,
    *,
    as_json: AsJson = False,
) -> None:
    """
    Show the manifest of a backup, without verifying it.

    The manifest is not encrypted: no key is needed.
    """
    del output, as_json
    try:
        signed = backup_files.read_manifest(path)
    except BackupFileError as error:
        fail(str(error))
    print_manifest(signed)


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
            help="Output of `sparecode-node audit-keys`: also verify the signature.",
            metavar="FILE",
        ),
    ] = None,
    output: Output = OutputFormat.TEXT,
    *,
    as_json: AsJson = False,
) -> None:
    """
    Decrypt a backup, and verify everything in its manifest.

    Computes the size and SHA-256, the digest of the state, as replicas compare it,
    and every hash of the audit log. The decrypted state is in a temporary folder
    (TMPDIR), readable for its owner only, and is deleted afterwards.
    """
    del output, as_json

    def check_origin(signed: SignedManifest) -> None:
        if public_key and not any(map(signed.signed_by, read_keys(public_key))):
            fail(f"NOT VERIFIED: {path}: not signed by any of the keys in {public_key}")

    try:
        identities = age_files.read_identities(key)
        with tempfile.TemporaryDirectory(prefix="sparecode.") as folder:
            plain = Path(folder) / "state.db"
            signed = open_backup(path, plain, identities, check_origin)
            missing = missing_events(plain)
    except (AgeError, BackupFileError) as error:
        fail(f"NOT VERIFIED: {error}")
    print_manifest(signed)
    if not wants_json():
        typer.echo("")
        typer.echo(
            "Verified: it opens, and the state and the audit log match the manifest."
        )
        if missing:
            typer.echo(f"It lacks the sealed audit events {in_words(missing)}.")
        typer.echo(
            "Signed by the cluster."
            if public_key
            else "The signature was not verified: use --public-key, or restore it with "
            "a bundle."
        )


def read_keys(path: Path) -> list[bytes]:
    """Return the public keys of a PEM file."""
    try:
        blocks = path.read_bytes().split(PEM_END)[:-1]
        keys = [load_pem_public_key(block + PEM_END) for block in blocks]
    except OSError as error:
        fail(f"{path}: {error.strerror}")
    except ValueError:
        fail(f"{path}: not the output of `sparecode-node audit-keys`")
    return [key.public_bytes_raw() for key in keys if isinstance(key, Ed25519PublicKey)]


def print_manifest(signed: SignedManifest) -> None:
    """Print a manifest as a table, or as JSON."""
    manifest = signed.manifest
    if wants_json():
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
        ("Audit head", manifest.audit_head),
        ("Key", str(manifest.key_id)),
        ("Version", manifest.version),
        *(("Recipient", each) for each in manifest.recipients),
    ):
        typer.echo(f"{name:<12} {value}")


def _time(at_ms: int) -> str:
    return f"{dt.datetime.fromtimestamp(at_ms / 1000, dt.UTC):%Y-%m-%d %H:%M:%S} UTC"
