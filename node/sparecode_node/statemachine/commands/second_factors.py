# SPDX-License-Identifier: Apache-2.0
"""Commands on the second factor of an administrator."""

from dataclasses import dataclass

from sparecode_node.domain.ids import AdministratorName, KeyId, Moment
from sparecode_node.domain.passkeys import PasskeyAnswer


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
    """
    Remove the second factor of another administrator, and end their sessions.

    Code and passkeys go together: this is for an administrator who has lost them.
    """

    name: AdministratorName


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisterPasskey:
    """Add a passkey of the caller (P8). The called node has checked the answer."""

    name: AdministratorName
    label: str
    domain: str
    """The policy's domain that the answer was checked for."""
    public_key: bytes
    answer: PasskeyAnswer


@dataclass(frozen=True, slots=True, kw_only=True)
class RemovePasskey:
    """Remove a passkey of the caller, if another second factor remains (P8)."""

    name: AdministratorName
    credential_id: bytes
