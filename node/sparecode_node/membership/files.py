# SPDX-License-Identifier: Apache-2.0
"""
The certificates and keys that `node.toml` names, those that are there and those not.

The key of an authority lies beside its certificate: `members-ca.pem`,
`members-ca.key`, as `sparecode-node certificates` has them. A node that has it can
sign; where it is nowhere, certificates come from the operator's own authority.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sparecode_node.config import Config, ListenerConfig
from sparecode_node.membership.certificates import write_file
from sparecode_node.membership.preparation import StartError

PRIVATE, PUBLIC = 0o600, 0o644


def listeners(config: Config) -> Iterator[tuple[str, ListenerConfig]]:
    """Yield the listeners that show a certificate, the peers' first."""
    yield "peers", config.peers
    yield "agents", config.agents
    yield "admin", config.admin
    if config.console is not None:
        yield "console", config.console


def key_beside(certificate: Path) -> Path:
    """Return where the key of an authority is, if it is here."""
    return certificate.with_suffix(".key")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A certificate's file and its key's."""

    certificate: Path
    key: Path


def missing_pairs(config: Config) -> tuple[Pair, ...]:
    """
    Return the pairs that are to be made, each once; the others are brought along.

    Raises `StartError` where one half is there and the other is not.
    """
    missing = []
    for name, listener in listeners(config):
        pair = Pair(certificate=listener.certificate, key=listener.key)
        there = [path for path in (pair.certificate, pair.key) if path.exists()]
        if there == [pair.certificate]:
            raise StartError(
                f"[{name}] {pair.certificate} is there and {pair.key} is not: bring "
                "both along, or neither"
            )
        if pair.certificate not in there and pair not in missing:
            missing.append(pair)
    return tuple(missing)


def put(path: Path, content: bytes, mode: int) -> None:
    """Put a file in place at once, and its folder if need be. Raises `StartError`."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_file(path, content, mode)
    except OSError as error:
        raise StartError(f"{path}: {error.strerror or error}") from error


def read(path: Path) -> bytes:
    """Return what is in a file. Raises `StartError`."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise StartError(f"{path}: {error.strerror or error}") from error
