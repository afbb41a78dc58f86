# SPDX-License-Identifier: Apache-2.0
"""Agents: programs that check passcodes, and the kind of resource each protects."""

import enum
from dataclasses import dataclass

from sparecode_node.domain.ids import AgentIdentity


class Protects(enum.StrEnum):
    """What an agent protects. Emergency codes do not cover `CLOUD` (A4)."""

    AUTHENTICATION_MANAGER = "authentication_manager"
    CLOUD = "cloud"


@dataclass(frozen=True, slots=True, kw_only=True)
class Agent:
    """A program that checks passcodes, known by its certificate."""

    name: str
    identity: AgentIdentity
    protects: Protects
    enabled: bool = True

    @property
    def covers_emergency_codes(self) -> bool:
        """Emergency codes open only what this system protects itself (A4)."""
        return self.protects is not Protects.CLOUD
