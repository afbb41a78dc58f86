# SPDX-License-Identifier: Apache-2.0
"""What root on a node may order without a session; on disk for ever (P4)."""

from dataclasses import dataclass

from sparecode_node.domain.ids import AdministratorName, KeyId


@dataclass(frozen=True, slots=True, kw_only=True)
class ResetAdministrator:
    """
    Give an administrator who is locked out a temporary password, and let them in.

    Asked for on the node's local socket. Enabled again, without waits; the role
    stays, and their sessions end.
    """

    name: AdministratorName
    password_salt: bytes
    password_verifier: bytes
    key_id: KeyId
    uid: int
    """Of the process that has asked, as the node's kernel says."""
