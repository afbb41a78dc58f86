# SPDX-License-Identifier: Apache-2.0
"""
The slot table: which of several clusters has which users.

Each user name belongs to one of 4,096 slots, by a hash that never changes. The table
gives each slot to one cluster. To add a cluster, an operator moves some slots to it; all
other users stay where they are.
"""

import hashlib
import os
import re
import tomllib
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from sparecode_client.connection.channels import AGENTS_PORT, PathLike, addresses

SLOTS = 4096
"""The number of slots. It can never change: every cluster computes the same ones."""
_UNUSED_BITS = 4
"""A slot is the first 12 bits of a hash, so four of its first two bytes are not used."""
_RANGE = re.compile(r"(?P<first>\d{1,4})(-(?P<last>\d{1,4}))?")
_FILES = ("ca", "certificate", "key")
_FIELDS = {"nodes", "slots", *_FILES}


class SlotTableError(ValueError):
    """The slot table is wrong: the message names the cluster and the line's field."""


def canonical(username: str) -> str:
    """
    Return the form of a user name in which equal names are equal.

    Apply NFKC and casefold until neither changes anything, and strip spaces, as the nodes
    do: a name that is typed in another way must reach the same cluster.
    """
    name = username
    while (again := unicodedata.normalize("NFKC", name).casefold().strip()) != name:
        name = again
    return name


def slot_of(username: str) -> int:
    """Return the slot of a user name: the first 12 bits of the SHA-256 of its UTF-8."""
    # A lone surrogate has no UTF-8. No user has such a name, so any slot will do.
    encoded = canonical(username).encode(errors="surrogatepass")
    return int.from_bytes(hashlib.sha256(encoded).digest()[:2]) >> _UNUSED_BITS


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterAddress:
    """Where the agent listeners of one cluster are, and how an agent shows who it is."""

    name: str
    """What the slot table calls the cluster."""
    nodes: tuple[str, ...]
    ca: str
    certificate: str
    key: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotTable:
    """The clusters, and which of them has each slot."""

    version: int
    """Raised by each change: a client never goes back to an older table."""
    clusters: Mapping[str, ClusterAddress]
    owners: tuple[str, ...]
    """The name of the cluster of each slot."""

    def cluster_of(self, username: str) -> ClusterAddress:
        """Return the cluster that has the users of this name's slot."""
        return self.clusters[self.owners[slot_of(username)]]

    @classmethod
    def read(cls, path: PathLike) -> Self:
        """
        Return the table in a TOML file; relative names of files begin at its folder.

        Raises:
            OSError: The file cannot be read.
            SlotTableError: It is not a slot table, or a slot has no cluster, or two.
        """
        try:
            content = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        except ValueError as error:  # Also of the bytes: they are not UTF-8.
            raise SlotTableError(f"{os.fspath(path)}: {error}") from error
        try:
            return cls.of(content, folder=Path(path).parent)
        except SlotTableError as error:
            raise SlotTableError(f"{os.fspath(path)}: {error}") from None

    @classmethod
    def of(cls, content: Mapping[str, Any], *, folder: Path = Path()) -> Self:
        """Return the table of what a TOML file says. Raises `SlotTableError`."""
        if unknown := content.keys() - {"version", "clusters"}:
            raise SlotTableError(f"unknown: {', '.join(sorted(unknown))}")
        version = content.get("version")
        if type(version) is not int or version < 1:
            raise SlotTableError("version must be a whole number from 1 on")
        sections = content.get("clusters")
        if not isinstance(sections, Mapping) or not sections:
            raise SlotTableError("at least one [clusters.NAME] is needed")
        owners: dict[int, str] = {}
        clusters: dict[str, ClusterAddress] = {}
        for name, section in sections.items():
            where = f"clusters.{name}"
            clusters[name] = _cluster(name, section, where, folder)
            for slot in _slots(section["slots"], where):
                if slot in owners:
                    raise SlotTableError(
                        f"slot {slot} is given to {owners[slot]} and to {name}"
                    )
                owners[slot] = name
        missing = [slot for slot in range(SLOTS) if slot not in owners]
        if missing:
            raise SlotTableError(
                f"{len(missing)} slots have no cluster; the first is {missing[0]}"
            )
        return cls(
            version=version,
            clusters=clusters,
            owners=tuple(owners[slot] for slot in range(SLOTS)),
        )


def _cluster(name: str, section: object, where: str, folder: Path) -> ClusterAddress:
    if not isinstance(section, Mapping) or set(section) != _FIELDS:
        raise SlotTableError(f"{where} needs exactly {', '.join(sorted(_FIELDS))}")
    nodes = section["nodes"]
    if not isinstance(nodes, list) or not all(isinstance(each, str) for each in nodes):
        raise SlotTableError(f"{where}.nodes must be a list of addresses")
    for each in _FILES:
        if not isinstance(section[each], str) or not section[each]:
            raise SlotTableError(f"{where}.{each} must name a file")
    try:
        found = addresses(nodes, AGENTS_PORT)
    except ValueError as error:
        raise SlotTableError(f"{where}.nodes: {error}") from None
    files = {each: str(folder / section[each]) for each in _FILES}
    return ClusterAddress(name=name, nodes=tuple(found), **files)


def _slots(value: object, where: str) -> list[int]:
    """Return the slots of a list such as `["0-2047", "4000"]`."""
    if not isinstance(value, list):
        raise SlotTableError(f'{where}.slots must be a list such as ["0-2047", "4000"]')
    slots: list[int] = []
    for each in value:
        match = _RANGE.fullmatch(each) if isinstance(each, str) else None
        first = int(match["first"]) if match else SLOTS
        last = int(match["last"] or first) if match else SLOTS
        if not first <= last < SLOTS:
            raise SlotTableError(
                f"{where}.slots: {each!r} is not a slot from 0 to {SLOTS - 1}, "
                'or a range such as "0-2047"'
            )
        slots.extend(range(first, last + 1))
    return slots
