# SPDX-License-Identifier: Apache-2.0
"""`sparecode-node authority`: the keys of the authorities, from a recovery bundle."""

import os
import ssl
from pathlib import Path
from typing import Annotated

import typer

from sparecode_node.config import Config
from sparecode_node.domain.membership import AuthorityKind
from sparecode_node.membership.authority import FileAuthority
from sparecode_node.membership.bundle_files import key_in
from sparecode_node.membership.files import PRIVATE, PUBLIC, key_beside, put, read
from sparecode_node.membership.preparation import StartError, ring_file
from sparecode_node.membership.successors import SuccessorFiles, is_name
from sparecode_node.services.cluster.bundles import Bundle, BundleError
from sparecode_node.services.files import age_files
from sparecode_node.services.files.age_files import AgeError
from sparecode_node.services.secrets.keyring import KeyRingError
from sparecode_node.tool.recovery_tool import PassphraseFile, open_bundle
from sparecode_node.tool.terminal import fail, loaded, tool

app = typer.Typer(
    rich_markup_mode=None,
    no_args_is_help=True,
    help="The keys of the cluster's authorities on this node.",
)


@app.command()
def export(
    context: typer.Context,
    folder: Annotated[Path, typer.Argument(help="New folder.", metavar="FOLDER")],
) -> None:
    """
    Write the successors of this node's authorities to a folder.

    Agents and administrators append members-ca.pem to their copies. The keys are in the
    folder if this node has made the successors. `sparecode-node certificates FOLDER`
    signs new certificates of agents with them.
    """
    config = loaded(context)
    files = FileAuthority(config)
    written = []
    try:
        for kind in AuthorityKind:
            accepted = files.accepted(kind)
            waiting = [each for each in accepted if not each.sole] or accepted
            if not waiting:
                continue
            # Of two, the one that it has made: `cluster status` names the maker.
            successor = next(
                (each for each in waiting if files.made.authority(each)), waiting[0]
            )
            stem = folder / f"{kind}-ca"
            pem = ssl.DER_cert_to_PEM_cert(successor.certificate).encode()
            written.append(_new(stem.with_suffix(".pem"), pem, PUBLIC))
            made = files.made.authority(successor)
            if made is not None:
                written.append(_new(stem.with_suffix(".key"), made.key_pem, PRIVATE))
    except (OSError, StartError, ValueError) as error:
        fail(str(error))
    if not written:
        fail(
            "this node trusts no successor of an authority: sparecode cluster status "
            "shows what is due"
        )
    for path in written:
        typer.echo(f"Wrote {path}.")


def _new(path: Path, content: bytes, mode: int) -> Path:
    """Write a file that must not exist yet. Raises `StartError`."""
    if path.exists():
        raise StartError(f"{path} exists: use a new folder")
    put(path, content, mode)
    return path


@app.command()
def restore(
    context: typer.Context,
    bundle_file: Annotated[
        Path,
        typer.Option(
            "--bundle", help="Recovery bundle of the cluster.", metavar="FILE"
        ),
    ],
    key: Annotated[
        Path | None,
        typer.Option(
            help="File with the secret key that opens the bundle.", metavar="FILE"
        ),
    ] = None,
    passphrase_file: PassphraseFile = None,
) -> None:
    """
    Put the authorities' keys from a recovery bundle on this member.

    Use it when the machine that had them is lost. The node then signs the certificates
    of nodes that join; it need not be restarted. Export a new bundle afterwards, and
    keep the old one offline.

    The keys must be those of the authorities that this node trusts, and the bundle must
    be of this cluster. Anyone with these keys can make a certificate for any member and
    any agent: put them on no more machines than needed.
    """
    config = loaded(context)
    try:
        identities = age_files.read_identities(key) if key is not None else ()
        bundle = open_bundle(bundle_file, identities, passphrase_file)
        _check_cluster(config, bundle, bundle_file)
        restored = _restore(config, bundle, bundle_file)
    except (AgeError, BundleError, KeyRingError, StartError) as error:
        fail(str(error))
    for path in restored:
        typer.echo(f"Restored {path}.")
    typer.echo(
        "This node signs certificates for nodes that join. Check it:\n"
        f"    {tool(config)} doctor"
    )


def _check_cluster(config: Config, bundle: Bundle, path: Path) -> None:
    """Raise `StartError` if the bundle is of another cluster than this node."""
    own = ring_file(config).load().cluster_id
    if bundle.ring.cluster_id != own:
        raise StartError(
            f"{path} is of cluster {bundle.ring.cluster_id}, and this node is a member "
            f"of {own}: use the bundle of this cluster"
        )


def _restore(config: Config, bundle: Bundle, path: Path) -> tuple[Path, ...]:
    """Write the keys that belong to this node's authorities. Raises `StartError`."""
    keys = {}
    for certificate in dict.fromkeys((config.peers.ca, config.agents.ca)):
        content = key_in(bundle, read(certificate))
        if content is not None:
            keys[key_beside(certificate)] = content
    made = SuccessorFiles(config)
    successors = [name for name in bundle.files if is_name(name)]
    if key_beside(config.peers.ca) not in keys and not successors:
        raise StartError(
            f"{path} has no key that belongs to {config.peers.ca}: use a bundle that was "
            "exported on a node with the authority's key, after the authority was made"
        )
    for key, content in keys.items():
        if key.exists() and read(key) != content:
            raise StartError(
                f"{key} exists and is another key: move it away, if it is not needed"
            )
    for key, content in keys.items():
        put(key, content, PRIVATE)
        _give_to_owner(key, config.peers.key)
    for name in successors:
        path = made.put(name, bundle.files[name])
        _give_to_owner(path.parent, config.peers.key)
        _give_to_owner(path, config.peers.key)
        keys[path] = bundle.files[name]
    return tuple(keys)


def _give_to_owner(path: Path, like: Path) -> None:
    """Make the owner of the node's key the owner of a file that root wrote."""
    if os.geteuid() == 0:
        owner = like.stat()
        os.chown(path, owner.st_uid, owner.st_gid)
