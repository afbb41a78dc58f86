# SPDX-License-Identifier: Apache-2.0
"""
What this node shows to other members, and which authorities it trusts, while it is down.

The authorities are those of its files and their successors (P6a): without these, the
tools would take members with certificates of a successor for unreachable ones.
"""

import datetime as dt

from sparecode_node.config import Config
from sparecode_node.domain.membership import AuthorityKind
from sparecode_node.membership.files import read
from sparecode_node.membership.preparation import StartError
from sparecode_node.membership.successors import trusted_pem
from sparecode_node.replication.links.tls import PeerTls
from sparecode_node.rpc.tls import TlsFileError, TlsFiles


def member_tls(config: Config, now: dt.datetime) -> PeerTls:
    """Return what this node shows to other members. Raises `TlsFileError`."""
    files = TlsFiles.read(
        certificate=config.peers.certificate,
        key=config.peers.key,
        ca=config.peers.ca,
        now=now,
    )
    try:
        ca = trusted_pem(config, AuthorityKind.MEMBERS, files.ca or b"")
    except (OSError, ValueError) as error:
        raise TlsFileError(f"[peers] its authorities: {error}") from error
    return PeerTls(certificate=files.certificate, key=files.key, ca=ca)


def members_authorities(config: Config) -> bytes:
    """Return the members' authorities that this node trusts, PEM. Raises `StartError`."""
    pem = read(config.peers.ca)
    try:
        return trusted_pem(config, AuthorityKind.MEMBERS, pem)
    except (OSError, ValueError) as error:
        raise StartError(f"{config.peers.ca}: {error}") from error
