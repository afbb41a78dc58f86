# SPDX-License-Identifier: Apache-2.0
"""`sparecode-node init --new-authority`: creates the cluster's authorities."""

import datetime as dt
from collections.abc import Sequence

from sparecode_node.config import Config
from sparecode_node.membership.certificates import Authority, CertificatesError
from sparecode_node.membership.files import (
    PRIVATE,
    PUBLIC,
    key_beside,
    listening_hosts,
    missing_pairs,
    put,
)
from sparecode_node.membership.preparation import StartError


def make_authorities(config: Config, *, hosts: Sequence[str], now: dt.datetime) -> None:
    """
    Create the members' and the agents' authority, and this node's certificate.

    Writes the files that `node.toml` names, and keeps existing files of this node. The
    certificate is valid for *hosts*, for the node's address, and for those on which its
    listeners with this certificate listen.
    Raises `StartError`, and then nothing was written.
    """
    missing = missing_pairs(config)
    for path in (config.peers.ca, config.agents.ca):
        for each in (path, key_beside(path)):
            if each.exists():
                raise StartError(
                    f"{each} exists: the cluster has an authority already; to use it, "
                    "omit --new-authority"
                )
    members = Authority.create("Sparecode members", now=now)
    agents = members
    if config.agents.ca != config.peers.ca:
        agents = Authority.create("Sparecode agents", now=now)
    try:
        issued = members.issue_member(
            config.node.id,
            hosts=(
                config.members[config.node.id].host.strip("[]"),
                *listening_hosts(config, missing),
                *hosts,
            ),
            now=now,
        )
    except CertificatesError as error:
        raise StartError(str(error)) from error
    for ca, authority in ((config.peers.ca, members), (config.agents.ca, agents)):
        put(key_beside(ca), authority.key_pem, PRIVATE)
        put(ca, authority.pem, PUBLIC)
    for pair in missing:
        put(pair.key, issued.key, PRIVATE)
        put(pair.certificate, issued.certificate, PUBLIC)
