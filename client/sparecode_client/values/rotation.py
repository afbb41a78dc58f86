# SPDX-License-Identifier: Apache-2.0
"""How far a rotation of the cluster's key has got."""

import enum
from dataclasses import dataclass
from datetime import datetime


class RotationPhase(enum.StrEnum):
    """Where a rotation is."""

    HANDING_OUT = "handing_out"
    RESEALING = "resealing"
    RETIRING = "retiring"
    """Nothing is sealed with the old key, which goes at `retire_time`."""
    DONE = "done"


@dataclass(frozen=True, slots=True, kw_only=True)
class UnopenedSeal:
    """A value that does not open with the key that it was sealed with."""

    kind: str
    """`seed`, `pin`, `codes`, `password`, `second_factor`, `pending_change`."""
    row: str
    """Serial, id of the set, name of the administrator, or number of the approval."""
    serial: str
    """Of codes: the serial of their token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RotationProgress:
    """What a node has told of it last."""

    phase: RotationPhase | None
    """None: of a newer version, and not known here."""
    key_id: int
    """The number of the active key."""
    done: int
    total: int
    """Members that hold the key; or values that are sealed with it, of so many."""
    retire_time: datetime | None
    """When the old key goes; None: it is gone, or the new one is not active yet."""
    resumed: bool
    """It was under way when it was asked for."""
    unopened: tuple[UnopenedSeal, ...] = ()
    """What cannot be sealed anew; at most 100 are told."""
    stopped: bool = False
    """Only those are left: the old key stays until they are replaced or deleted."""
