# SPDX-License-Identifier: Apache-2.0
"""Commands on the second factor of an administrator."""

from dataclasses import dataclass

from sparecode_node.domain.ids import AdministratorName, KeyId, Moment


@dataclass(frozen=True, slots=True, kw_only=True)
class SetSecondFactor:
    """
    Turn on the caller's second factor if this code is right.

    Each sign-in then needs a code.
    """

    name: AdministratorName
    sealed_seed: bytes
    key_id: KeyId
    draft_ends_at_ms: int
    moments: tuple[Moment, ...] = ()
    """Time steps at which the typed code is right; filled in by the primary (T1)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveSecondFactor:
    """Remove the second factor of another administrator, and end their sessions."""

    name: AdministratorName
