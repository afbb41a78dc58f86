# SPDX-License-Identifier: Apache-2.0
"""
The authorities' files in a recovery bundle: which it holds, and their way back.

A bundle holds the certificate of every authority that `node.toml` names, and the keys
of those that sign members and agents, if they are on the node. With them, a machine
that has nothing else becomes the first node of the restored cluster: all members'
and agents' certificates stay valid, and it makes its own.
"""

import datetime as dt
from collections.abc import Iterator, Sequence
from pathlib import Path

from sparecode_node.config import Config
from sparecode_node.membership.authority import FileAuthority, authority_of_key
from sparecode_node.membership.certificates import Authority
from sparecode_node.membership.files import (
    PRIVATE,
    PUBLIC,
    NewFile,
    key_beside,
    missing_pairs,
    put,
    read,
)
from sparecode_node.membership.founder import new_authorities, own_certificates
from sparecode_node.membership.preparation import StartError
from sparecode_node.services.cluster.bundles import Bundle

MEMBERS_CA = "members-ca.pem"
AGENTS_CA = "agents-ca.pem"
RECOVERED = "recovered"
"""Folder for the other files of a bundle, in the data folder."""


def authority_files(config: Config) -> dict[str, bytes]:
    """Return the authorities' files of this node, by their names in a bundle."""
    result = {}
    for name, path in _authorities(config):
        if path.exists():
            result[name] = path.read_bytes()
        key = key_beside(path)
        if name in (MEMBERS_CA, AGENTS_CA) and key.exists():
            result[key_beside(Path(name)).name] = key.read_bytes()
    authority = FileAuthority(config)
    for name, content in (
        (MEMBERS_CA, authority.members_ca),
        (AGENTS_CA, authority.agents_ca),
    ):
        if name in result:  # Their successors sign certificates, too.
            result[name] = content()
    return result | authority.made.files()


def restored_files(
    config: Config, bundle: Bundle, *, hosts: Sequence[str], now: dt.datetime
) -> list[NewFile]:
    """
    Return the files that this node lacks: authorities, their keys, and a certificate.

    The certificate is valid for *hosts*, for the node's address, and for those on
    which its listeners listen. Files that exist are kept. Raises `StartError` if a
    file is missing that the bundle cannot replace.
    """
    files = []
    certificates: dict[Path, bytes] = {}
    for name, path in _authorities(config):
        if path.exists():
            certificates[path] = read(path)
        elif name in bundle.files:
            certificates[path] = bundle.files[name]
            files.append(NewFile(path, bundle.files[name], PUBLIC))
        else:
            raise StartError(
                f"{path} is missing, and the bundle does not have it: copy it from an "
                "agent or an administrator of the cluster"
                + (
                    ", or make new authorities with --new-authority"
                    if name in {MEMBERS_CA, AGENTS_CA}
                    else ""
                )
            )
    for path in dict.fromkeys((config.peers.ca, config.agents.ca)):
        key = key_in(bundle, certificates[path])
        if key is not None and not key_beside(path).exists():
            files.append(NewFile(key_beside(path), key, PRIVATE))
    if missing_pairs(config):
        authority = _authority(config, certificates[config.peers.ca], bundle)
        files += own_certificates(config, authority, hosts=hosts, now=now)
    return list(dict.fromkeys(files))


def new_files(
    config: Config, bundle: Bundle, *, hosts: Sequence[str], now: dt.datetime
) -> list[NewFile]:
    """
    Return new authorities and this node's certificate, in place of lost ones.

    Every agent and administrator needs new files then. So raises `StartError` if the
    bundle has what `restored_files` needs. For *hosts* see there.
    """
    members = bundle.files.get(MEMBERS_CA)
    if (
        members is not None
        and AGENTS_CA in bundle.files
        and key_in(bundle, members) is not None
    ):
        raise StartError(
            "the bundle has the cluster's authorities: omit --new-authority, and agents "
            "keep their certificates; to replace the authorities, open the cluster, then "
            "follow docs/runbooks/new-authority.md"
        )
    return new_authorities(config, hosts=hosts, now=now)


def key_in(bundle: Bundle, certificates: bytes) -> bytes | None:
    """Return the key in a bundle that belongs to one of these certificates (PEM)."""
    for content in bundle.files.values():
        try:
            authority_of_key(certificates, content)
        except (TypeError, ValueError):
            continue  # A certificate, another authority's key, or any other file.
        return content
    return None


def keep_others(config: Config, bundle: Bundle) -> Path | None:
    """
    Write the files of a bundle that have no place in `node.toml` to the data folder.

    Return their folder, or None if there are none. Raises `StartError`.
    """
    paths = [path for _, path in _authorities(config)]
    placed = [read(each) for each in (*paths, *map(key_beside, paths)) if each.exists()]
    folder = config.node.data_dir / RECOVERED
    others = {
        name: content for name, content in bundle.files.items() if content not in placed
    }
    for name, content in others.items():
        put(folder / name, content, PRIVATE)
    return folder if others else None


def _authorities(config: Config) -> Iterator[tuple[str, Path]]:
    """Yield the authorities that `node.toml` names, with their names in a bundle."""
    yield MEMBERS_CA, config.peers.ca
    yield AGENTS_CA, config.agents.ca
    if config.admin.ca is not None:
        yield "clients-ca.pem", config.admin.ca
    if config.metrics is not None and config.metrics.ca is not None:
        yield "metrics-ca.pem", config.metrics.ca


def _authority(config: Config, certificates: bytes, bundle: Bundle) -> Authority:
    """Return the members' authority. Raises `StartError` if its key is missing."""
    key = key_beside(config.peers.ca)
    content = read(key) if key.exists() else key_in(bundle, certificates)
    if content is None:
        raise StartError(
            f"{config.peers.certificate} is missing, and the bundle does not have the "
            f"key of {config.peers.ca}: have your authority sign a certificate for "
            f"{config.node.id}, or make new authorities with --new-authority"
        )
    try:
        return authority_of_key(certificates, content)
    except (TypeError, ValueError) as error:
        raise StartError(f"{key}: {error}") from None
