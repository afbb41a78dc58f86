# SPDX-License-Identifier: Apache-2.0
"""What a second factor is confirmed from; sealed, it is the caller's to keep."""

from dataclasses import dataclass, field

from sparecode_node.domain.ids import AdministratorName


@dataclass(frozen=True, slots=True, kw_only=True)
class SecondFactorDraft:
    """A second factor that is not in force until a code has confirmed it."""

    administrator: AdministratorName
    seed: bytes = field(repr=False)
    ends_at_ms: int
