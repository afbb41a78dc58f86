# SPDX-License-Identifier: Apache-2.0
"""Progress of a key rotation."""

import enum
from dataclasses import dataclass
from datetime import datetime


class RotationPhase(enum.StrEnum):
    """Phase of a key rotation."""

    HANDING_OUT = "handing_out"
    RESEALING = "resealing"
    RETIRING = "retiring"
    """Nothing is sealed with the old key, which is removed at `retire_time`."""
    DONE = "done"


@dataclass(frozen=True, slots=True, kw_only=True)
class UnopenedSeal:
    """A sealed value that its key does not open."""

    kind: str
    """`seed`, `pin`, `codes`, `password`, `second_factor`, `pending_change`."""
    row: str
    """Serial, set id, name of the administrator, or number of the approval."""
    serial: str
    """For codes: the serial of their token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RotationProgress:
    """Progress of a rotation, as a node last reported it."""

    phase: RotationPhase | None
    """None: a phase that this release does not know."""
    key_id: int
    """Number of the active key."""
    done: int
    total: int
    """Members that hold the new key, or values sealed with it: *done* of *total*."""
    retire_time: datetime | None
    """When the old key is removed; None: it is gone, or the new key is not active yet."""
    resumed: bool
    """The rotation was already running when it was requested."""
    unopened: tuple[UnopenedSeal, ...] = ()
    """Values that cannot be sealed with the new key; at most 100 are listed."""
    stopped: bool = False
    """Only *unopened* values remain: the old key stays until they are replaced or deleted."""
