# SPDX-License-Identifier: Apache-2.0
"""Members that come and go, as values."""

import enum
from dataclasses import dataclass, field
from datetime import datetime


class MemberStanding(enum.StrEnum):
    """How far a node is on its way."""

    VOTER = "voter"
    """Counts for every quorum, and may lead."""
    LEARNER = "learner"
    """Is sent everything; votes as soon as it has caught up."""
    ADMITTED = "admitted"
    """Was admitted, and is about to become a learner."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedMember:
    """A member, or a node that is about to become one."""

    node_id: str
    address: str
    """HOST:PORT of its peers listener."""
    standing: MemberStanding | None


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinTicket:
    """Lets one node be admitted, once."""

    ticket: str = field(repr=False)
    """For `sparecode-node init --join`. A secret until it is used or has ended."""
    end_time: datetime | None
