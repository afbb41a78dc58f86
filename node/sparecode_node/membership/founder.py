# SPDX-License-Identifier: Apache-2.0
"""`--new-authority`: creates the cluster's authorities, and the node's certificate."""

import datetime as dt
from collections.abc import Sequence

from sparecode_node.config import Config
from sparecode_node.membership.certificates import Authority, CertificatesError
from sparecode_node.membership.files import (
    PRIVATE,
    PUBLIC,
    NewFile,
    key_beside,
    listening_hosts,
    missing_pairs,
    put,
)
from sparecode_node.membership.preparation import StartError


def make_authorities(config: Config, *, hosts: Sequence[str], now: dt.datetime) -> None:
    """
    Create the members' and the agents' authority, and this node's certificate.

    Writes the files of `new_authorities`.
    Raises `StartError`, and then nothing was written.
    """
    for each in new_authorities(config, hosts=hosts, now=now):
        put(each.path, each.content, each.mode)


def new_authorities(
    config: Config, *, hosts: Sequence[str], now: dt.datetime
) -> list[NewFile]:
    """
    Return new authorities and this node's certificate, for the paths in `node.toml`.

    Existing files of this node are kept. For *hosts* see `own_certificates`.
    Raises `StartError`.
    """
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
    return [
        NewFile(key_beside(config.peers.ca), members.key_pem, PRIVATE),
        NewFile(config.peers.ca, members.pem, PUBLIC),
        NewFile(key_beside(config.agents.ca), agents.key_pem, PRIVATE),
        NewFile(config.agents.ca, agents.pem, PUBLIC),
        *own_certificates(config, members, hosts=hosts, now=now),
    ]


def own_certificates(
    config: Config, authority: Authority, *, hosts: Sequence[str], now: dt.datetime
) -> list[NewFile]:
    """
    Return a key and a certificate for this node, for each place that lacks them.

    The certificate is valid for *hosts*, for the node's address, and for those on which
    its listeners with this certificate listen. Raises `StartError`.
    """
    missing = missing_pairs(config)
    try:
        issued = authority.issue_member(
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
    return [
        each
        for pair in missing
        for each in (
            NewFile(pair.key, issued.key, PRIVATE),
            NewFile(pair.certificate, issued.certificate, PUBLIC),
        )
    ]
