# SPDX-License-Identifier: Apache-2.0
"""`sparecode-node init --new-authority`: the first node makes the cluster's authorities."""

import datetime as dt
from collections.abc import Sequence

from sparecode_node.config import Config
from sparecode_node.membership.certificates import Authority, CertificatesError
from sparecode_node.membership.files import (
    PRIVATE,
    PUBLIC,
    key_beside,
    missing_pairs,
    put,
)
from sparecode_node.membership.preparation import StartError


def make_authorities(config: Config, *, hosts: Sequence[str], now: dt.datetime) -> None:
    """
    Make the members' authority, the agents', and this node's certificate.

    The files are those that `node.toml` names; those of this node that are there
    already stay. Raises `StartError`, with nothing written.
    """
    missing = missing_pairs(config)
    for path in (config.peers.ca, config.agents.ca):
        for each in (path, key_beside(path)):
            if each.exists():
                raise StartError(
                    f"{each} exists: there is an authority already; leave "
                    "--new-authority out to use it"
                )
    members = Authority.create("Sparecode members", now=now)
    agents = members
    if config.agents.ca != config.peers.ca:
        agents = Authority.create("Sparecode agents", now=now)
    try:
        issued = members.issue_member(
            config.node.id,
            hosts=(config.members[config.node.id].host.strip("[]"), *hosts),
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
