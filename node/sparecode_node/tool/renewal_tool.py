# SPDX-License-Identifier: Apache-2.0
"""`sparecode-node renew-certificate`: a new certificate from a member that can sign."""

import asyncio
import datetime as dt
from pathlib import Path
from typing import Annotated

import typer
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from sparecode_node.config import Config
from sparecode_node.domain.ids import NodeId
from sparecode_node.membership.authority import FileAuthority
from sparecode_node.membership.files import PUBLIC, listeners, put, read
from sparecode_node.membership.joiner import certificate_request
from sparecode_node.membership.preparation import JOURNAL, StartError, ring_file
from sparecode_node.replication.links.tls import PeerTls
from sparecode_node.replication.members import Member
from sparecode_node.replication.offline.inspection import is_in_use
from sparecode_node.rpc.authority_calls import AuthorityCalls, RelayedError
from sparecode_node.services.ambient import SystemClock
from sparecode_node.services.cluster.renewals import hosts_in
from sparecode_node.services.secrets.keyring import KeyRingError
from sparecode_node.tool.doctor.membership import other_members
from sparecode_node.tool.doctor.state import check_journal
from sparecode_node.tool.terminal import fail, loaded


def renew_certificate(
    context: typer.Context,
    *,
    new_authority: Annotated[
        bool,
        typer.Option(
            "--new-authority", help="Have the successor of the authority sign it."
        ),
    ] = False,
) -> None:
    """
    Renew this node's certificate, before it expires.

    Asks the other members until one with the key of the members' authority signs. The
    new certificate has the same key and the same names. Other members must be running,
    and must accept the present certificate: if it has expired, see
    docs/runbooks/expired-certificates.md.

    While the members' authority is replaced, --new-authority has its successor sign the
    certificate. First append the successor to the copies of agents and administrators:
    docs/runbooks/new-authority.md.
    """
    config = loaded(context)
    try:
        signer, certificate = _renew(config, new_authority=new_authority)
        written = _write(config, certificate)
    except (KeyRingError, RelayedError, StartError) as error:
        fail(str(error))
    for path in written:
        typer.echo(f"Wrote {path}, signed by {signer}.")
    typer.echo(
        "A running node loads it within a minute. To load it now, send the node SIGHUP: "
        "systemctl reload sparecode-node"
    )


def _renew(config: Config, *, new_authority: bool) -> tuple[NodeId, bytes]:
    """Return the member that signed, and the new certificate in PEM."""
    shown, key = read(config.peers.certificate), _key(config.peers.key)
    own = NodeId(config.node.id)
    authority = FileAuthority(config)
    try:
        now = dt.datetime.fromtimestamp(SystemClock().now_ms() / 1000, dt.UTC)
        if not new_authority and authority.can_sign():
            return own, authority.sign(own, key.public_key(), hosts_in(shown), now)
        ca = authority.members_ca()
        ended = x509.load_pem_x509_certificate(shown).not_valid_after_utc < now
    except (OSError, ValueError) as error:
        raise StartError(f"{config.peers.ca}: {error}") from error
    if ended:
        raise StartError(
            f"{config.peers.certificate} has expired, so the members refuse this node. "
            "Have it signed where the authority's key is: "
            "docs/runbooks/expired-certificates.md"
        )
    tls = PeerTls(certificate=shown, key=read(config.peers.key), ca=ca)
    members = [
        Member(node_id=node_id, address=address)
        for node_id, address in _members(config, own=new_authority).items()
    ]
    request = certificate_request(key, own)
    answer = asyncio.run(
        AuthorityCalls(lambda: tls).renew(request, members, new_authority=new_authority)
    )
    if answer is None:
        names = ", ".join(each.node_id for each in members) or "no other member"
        raise StartError(
            f"no certificate from {names}: none of them can be reached and has the key "
            "of the members' authority. Check that they run, or put the key on one of "
            "them: sparecode-node authority restore"
        )
    return answer


def _members(config: Config, *, own: bool) -> dict[NodeId, str]:
    """
    Return the other members, from the journal or else `node.toml`.

    *own*: this one as well. It runs, and only the cluster knows whether all members
    trust a successor.
    """
    path, ring = config.node.data_dir / JOURNAL, ring_file(config).load()
    try:
        running = is_in_use(path)
    except OSError:
        running = False
    journal, _ = check_journal(path, node_id=config.node.id, ring=ring, running=running)
    found = dict(other_members(config, journal, ring))
    if own and journal is not None:
        found |= {
            member.node_id: member.address
            for member in journal.configuration.members
            if member.address
        }
    return found


def _key(path: Path) -> ec.EllipticCurvePrivateKey:
    try:
        key = serialization.load_pem_private_key(read(path), None)
    except (TypeError, ValueError) as error:
        raise StartError(f"{path}: not a private key in PEM: {error}") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise StartError(f"{path}: not an EC key: renew its certificate yourself")
    return key


def _write(config: Config, certificate: bytes) -> tuple[Path, ...]:
    """Write the certificate for each listener with the same key; return the files."""
    own, written = read(config.peers.key), []
    for _, listener in listeners(config):
        if listener.certificate not in written and read(listener.key) == own:
            put(listener.certificate, certificate, PUBLIC)
            written.append(listener.certificate)
    return tuple(written)
