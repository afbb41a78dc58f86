# SPDX-License-Identifier: Apache-2.0
"""Members of the cluster, and tickets for new ones."""

import enum
from dataclasses import dataclass, field
from datetime import datetime


class MemberStanding(enum.StrEnum):
    """How far a node has got on its way to being a voter."""

    VOTER = "voter"
    """Counts towards every quorum, and can be the primary."""
    LEARNER = "learner"
    """Receives the log, and becomes a voter when it has caught up."""
    ADMITTED = "admitted"
    """Was admitted, and will become a learner."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedMember:
    """A member, or a node that will become one."""

    node_id: str
    address: str
    """HOST:PORT of its peers listener."""
    standing: MemberStanding | None


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinTicket:
    """Admits one node, once."""

    ticket: str = field(repr=False)
    """For `sparecode-node init --join`. Keep it secret until it is used or expired."""
    end_time: datetime | None


@dataclass(frozen=True, slots=True)
class Removal:
    """What became of the keys that a removed member has had."""

    new_key_id: int | None
    """The key that is active now; None: no rotation was started."""
    rotation_problem: str
    """Why a rotation that was requested or required was not started."""
    due_authorities: tuple[str, ...] = ()
    """The authorities that are to be replaced: members, agents."""
