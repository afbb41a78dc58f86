# SPDX-License-Identifier: Apache-2.0
"""The kinds of campaigns."""

from collections.abc import Container
from enum import Enum


class Kind(Enum):
    """What a run has. The value is the name of the option that asks for it."""

    ENGINES = "engines"
    """Engines alone, which no option asks for."""
    WHOLE = "whole"
    """Whole nodes, instead of their engines."""
    MIXED = "mixed"
    """Long runs of whole nodes, each with a mix of its own; in some the cluster is lost."""
    LOST = "lost"
    """Short runs of whole nodes, whose cluster is lost and begins again."""
    OUTBOX = "outbox"
    """Channels, and receivers of notices."""
    FILES = "files"
    """Simulated files under the real state machine."""
    GROUPS = "groups"
    """Several clusters that share users."""

    @classmethod
    def of(cls, options: Container[str]) -> "Kind":
        """Return the kind with these options: long runs are of whole nodes, too."""
        return [cls.ENGINES, *(kind for kind in cls if kind.value in options)][-1]

    @property
    def is_whole(self) -> bool:
        """Whether whole nodes run."""
        return self is Kind.WHOLE or self.is_mixed

    @property
    def is_mixed(self) -> bool:
        """Whether each run has a mix of its own."""
        return self in (Kind.MIXED, Kind.LOST)

    @property
    def target(self) -> str:
        """The target of `make`."""
        names = {Kind.ENGINES: "", Kind.WHOLE: "-nodes", Kind.FILES: "-disks"}
        return "sim" + names.get(self, f"-{self.value}")
