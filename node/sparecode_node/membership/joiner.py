# SPDX-License-Identifier: Apache-2.0
"""
`sparecode-node init --join` and `--beside`: the side of the joining node.

The ticket holds the members' addresses and their authorities, which must have signed
the certificate of the member that answers. A key derived from the ticket opens the
connection. The node's own key is created here and never leaves the machine. Before a
member admits the node, only that key is written, so an interrupted `init` can be run
again with the same ticket.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from sparecode_node.config import Config
from sparecode_node.domain.ids import NodeId
from sparecode_node.membership.files import (
    PRIVATE,
    PUBLIC,
    Pair,
    key_beside,
    missing_pairs,
    put,
    read,
)
from sparecode_node.membership.preparation import (
    MEMBERS,
    StartError,
    joined_record,
    make_data_dir,
    refuse_existing,
    ring_file,
)
from sparecode_node.rpc.join_client import JoinClient, NotAdmittedError
from sparecode_node.rpc.tickets import NotATicketError, from_text
from sparecode_node.services.ambient import Clock, Entropy
from sparecode_node.services.cluster.joining import Joiner, JoinGrant
from sparecode_node.services.secrets.keyring import KeyRing, KeyRingError
from sparecode_node.services.secrets.tickets import JoinTicket, der
from sparecode_node.services.secrets.wrapping import (
    CannotUnwrapError,
    MemberSecrets,
    unwrap,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinResult:
    """The cluster that was joined."""

    cluster_id: str
    by: NodeId
    """The member that admitted the node."""


def join(
    config: Config,
    ticket: str,
    *,
    hosts: Sequence[str],
    clock: Clock,
    entropy: Entropy,
) -> JoinResult:
    """
    Request admission, and write the files received to the paths in `node.toml`.

    Raises `StartError`, which says what is wrong and what to do about it.
    """
    refuse_existing(config)
    file = ring_file(config)
    if file.exists():
        raise StartError(
            f"{file.initial if not file.path.exists() else file.path} exists, but a node "
            "that joins gets the key ring from the cluster: if this node is not set up "
            "already, move the file away"
        )
    try:
        # Before the ticket is used up: the ring that it brings must be storable.
        file.prepare(entropy)
    except KeyRingError as error:
        raise StartError(str(error)) from error
    try:
        parsed = from_text(ticket)
    except NotATicketError as error:
        raise StartError(str(error)) from error
    _check_ticket(config, parsed)
    missing = missing_pairs(config)
    own = Pair(certificate=config.peers.certificate, key=config.peers.key)
    key = _own_key(own, make=own in missing)
    own_address = config.members[config.node.id]
    joiner = Joiner(
        ticket_certificate=b"",  # The TLS handshake presents it.
        request_id=entropy.uuid(),
        address=str(own_address),
        hosts=tuple(dict.fromkeys((own_address.host.strip("[]"), *hosts))),
    )
    if own in missing:
        put(own.key, _pem(key), PRIVATE)
        joiner = replace(
            joiner, certificate_request=certificate_request(key, config.node.id)
        )
    elif missing:
        raise StartError(
            f"{missing[0].certificate} is missing: the certificate of [peers] exists, "
            "so provide those of the other listeners too"
        )
    else:
        joiner = replace(joiner, certificate=der(read(own.certificate))[0])
    try:
        by, answer = JoinClient(parsed, clock).join(joiner)
    except NotAdmittedError as error:
        raise StartError(str(error)) from error
    secrets = _unwrapped_secrets(config, parsed, answer, key)
    _write_files(config, answer, secrets, missing, key)
    return JoinResult(cluster_id=answer.cluster_id, by=by)


def begin_beside(config: Config, members: Mapping[NodeId, str]) -> None:
    """
    Prepare this node to start as a learner in the cluster of its key ring.

    This is for a node that got its files without a ticket and is added by
    `AddMember`. Without this step it would begin a new cluster. Raises `StartError`.
    """
    refuse_existing(config)
    missing = missing_pairs(config)
    absent = [path for path in (config.peers.ca, config.agents.ca) if not path.exists()]
    if missing or absent:
        first = missing[0].certificate if missing else absent[0]
        raise StartError(f"{first} is missing: provide it, or join by a ticket")
    try:
        ring = ring_file(config).load()
    except KeyRingError as error:
        raise StartError(f"{error}; provide the key ring of the cluster") from error
    _write_members(config, ring.cluster_id, members)


def _write_members(
    config: Config, cluster_id: str, members: Mapping[NodeId, str]
) -> None:
    """Write the cluster and members to join; later the journal holds them."""
    make_data_dir(config.node.data_dir)
    written = {"cluster_id": cluster_id, "members": dict(members)}
    content = json.dumps(written, indent=2).encode() + b"\n"
    put(config.node.data_dir / MEMBERS, content, PRIVATE)
    put(joined_record(config), content, PUBLIC)


def _check_ticket(config: Config, ticket: JoinTicket) -> None:
    """Raise `StartError` if the ticket is for another node or another cluster."""
    if ticket.node_id != config.node.id:
        raise StartError(
            f"the ticket is for node {ticket.node_id}, but this is {config.node.id} "
            f"({config.path}): create another one with: sparecode cluster ticket "
            f"{config.node.id} {config.members[config.node.id]}"
        )
    if not config.peers.ca.exists():
        return
    known = der(read(config.peers.ca))
    if not set(ticket.authorities) <= set(known):
        raise StartError(
            f"{config.peers.ca} lacks an authority of the ticket, so the file is of "
            "another cluster: remove it, or create a ticket in its cluster"
        )


def _own_key(own: Pair, *, make: bool) -> ec.EllipticCurvePrivateKey:
    """Return this node's private key, a new one if *make* is set and none exists."""
    if make and not own.key.exists():
        return ec.generate_private_key(ec.SECP256R1())
    try:
        key = serialization.load_pem_private_key(read(own.key), None)
    except (ValueError, TypeError) as error:
        raise StartError(f"{own.key}: not a private key in PEM: {error}") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise StartError(
            f"{own.key}: not an EC key; use a key on the curve P-256, P-384 or P-521, "
            "which the key ring can be encrypted to"
        )
    return key


def certificate_request(key: ec.EllipticCurvePrivateKey, node_id: str) -> bytes:
    """Return a certificate request, DER; its names are never used."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, node_id)])
    request = x509.CertificateSigningRequestBuilder().subject_name(name)
    return request.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def _unwrapped_secrets(
    config: Config,
    ticket: JoinTicket,
    answer: JoinGrant,
    key: ec.EllipticCurvePrivateKey,
) -> MemberSecrets:
    """Decrypt the secrets in an answer. Raises `StartError`."""
    if answer.cluster_id != ticket.cluster_id:
        raise StartError(
            f"the ticket is for cluster {ticket.cluster_id}, but cluster "
            f"{answer.cluster_id} answered: create a new ticket"
        )
    try:
        return unwrap(
            answer.wrapped,
            key,
            cluster_id=answer.cluster_id,
            node_id=NodeId(config.node.id),
        )
    except CannotUnwrapError as error:
        raise StartError(str(error)) from error


def _write_files(
    config: Config,
    answer: JoinGrant,
    secrets: MemberSecrets,
    missing: tuple[Pair, ...],
    key: ec.EllipticCurvePrivateKey,
) -> None:
    """Write a member's files, and the key ring last: it shows that all are there."""
    file = ring_file(config)
    for ca, content, ca_key in (
        (config.peers.ca, answer.members_ca, secrets.members_ca_key),
        (config.agents.ca, answer.agents_ca, secrets.agents_ca_key),
    ):
        if not ca.exists():
            put(ca, content, PUBLIC)
            if ca_key:
                put(key_beside(ca), ca_key.encode(), PRIVATE)
    for pair in missing:
        put(pair.key, _pem(key), PRIVATE)
        put(pair.certificate, answer.certificate, PUBLIC)
    _write_members(config, answer.cluster_id, dict(answer.members))
    try:
        file.save(KeyRing.from_bytes(secrets.key_ring.encode()))
    except KeyRingError as error:
        raise StartError(str(error)) from error
    except ValueError as error:
        raise StartError(f"the member sent an invalid key ring: {error}") from None


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
