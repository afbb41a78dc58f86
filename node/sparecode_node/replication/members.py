# SPDX-License-Identifier: Apache-2.0
"""The members of a cluster: who they are, where they are reached, who counts."""

import enum
from dataclasses import dataclass

from sparecode_node.domain.ids import NodeId


class MemberRole(enum.StrEnum):
    """Whether a member counts."""

    VOTER = "voter"
    """Counts for every quorum, and may lead."""
    LEARNER = "learner"
    """Is sent everything, and counts for nothing: it is new, and catching up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One member, as the configuration of the cluster has it."""

    node_id: NodeId
    address: str
    """Where other members reach it: HOST:PORT."""
    role: MemberRole = MemberRole.VOTER
