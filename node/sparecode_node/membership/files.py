# SPDX-License-Identifier: Apache-2.0
"""
The certificates and keys that `node.toml` names, and which of them are missing.

The key of an authority is in the folder of its certificate: `members-ca.pem` and
`members-ca.key`, as `sparecode-node certificates` writes them. A node with the key
can sign certificates. If no node has it, certificates come from the operator's own
authority.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sparecode_node.config import Config, ListenerConfig
from sparecode_node.durable_files import sync_directory, write_file
from sparecode_node.membership.preparation import StartError

PRIVATE, PUBLIC = 0o600, 0o644
EVERYWHERE = ("0.0.0.0", "::")  # noqa: S104 - such a listener has no address of its own.


@dataclass(frozen=True, slots=True)
class NewFile:
    """A file to write."""

    path: Path
    content: bytes = field(repr=False)
    mode: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """The files of a certificate and its key."""

    certificate: Path
    key: Path


def listeners(config: Config) -> Iterator[tuple[str, ListenerConfig]]:
    """Yield the listeners that have a certificate, the peers listener first."""
    yield "peers", config.peers
    yield "agents", config.agents
    yield "admin", config.admin
    if config.console is not None:
        yield "console", config.console
    if config.http is not None:
        yield "http", config.http


def listening_hosts(config: Config, pairs: Sequence[Pair]) -> tuple[str, ...]:
    """Return the addresses of the listeners with these certificates, each once."""
    hosts = [
        listener.listen.host.strip("[]")
        for _, listener in listeners(config)
        if Pair(certificate=listener.certificate, key=listener.key) in pairs
    ]
    return tuple(dict.fromkeys(each for each in hosts if each not in EVERYWHERE))


def key_beside(certificate: Path) -> Path:
    """Return the path of an authority's key; the file may not exist."""
    return certificate.with_suffix(".key")


def missing_pairs(config: Config) -> tuple[Pair, ...]:
    """
    Return the pairs of files to create, each once; the operator provided the others.

    Raises `StartError` if a certificate exists without its key.
    """
    missing = []
    for name, listener in listeners(config):
        pair = Pair(certificate=listener.certificate, key=listener.key)
        there = [path for path in (pair.certificate, pair.key) if path.exists()]
        if there == [pair.certificate]:
            raise StartError(
                f"[{name}] {pair.certificate} exists, but {pair.key} does not: provide "
                "both files, or neither"
            )
        if pair.certificate not in there and pair not in missing:
            missing.append(pair)
    return tuple(missing)


def put(path: Path, content: bytes, mode: int) -> None:
    """
    Write a file atomically and durably; create its folder if missing.

    Raises `StartError`.
    """
    try:
        _create(path.parent)
        write_file(path, content, mode)
    except OSError as error:
        raise StartError(f"{path}: {error.strerror or error}") from error


def _create(folder: Path) -> None:
    """Create a folder if it is missing, so that a power cut does not take it away."""
    if folder.exists():
        return
    _create(folder.parent)
    folder.mkdir(mode=0o700, exist_ok=True)
    sync_directory(folder.parent)


def read(path: Path) -> bytes:
    """Return the content of a file. Raises `StartError`."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise StartError(f"{path}: {error.strerror or error}") from error
