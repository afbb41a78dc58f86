# SPDX-License-Identifier: Apache-2.0
"""Commands on local resets of administrators (P4)."""

from dataclasses import dataclass

from sparecode_node.domain.ids import AdministratorName, KeyId


@dataclass(frozen=True, slots=True, kw_only=True)
class ResetAdministrator:
    """
    Request a temporary password for an administrator who is locked out.

    Called on the node's local socket. At feature level 1 it takes effect at once, from
    level 2 on after the policy's `reset_delay`, unless it is canceled (P4). Then it
    enables the administrator, clears waits and ends all sessions. The role stays.
    """

    name: AdministratorName
    password_salt: bytes
    password_verifier: bytes
    key_id: KeyId
    uid: int
    """User id of the calling process, as told by the node's kernel."""
    second_factor: bool = False
    """Also remove the second factor. At feature level 1 every reset removes it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelReset:
    """Cancel a requested reset of an administrator, before it is in force."""

    name: AdministratorName
