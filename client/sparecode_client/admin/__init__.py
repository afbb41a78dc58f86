# SPDX-License-Identifier: Apache-2.0
"""The calls of administrators and operators: one module per subject."""

from datetime import timedelta

from sparecode_client.admin.administrators import Administrators
from sparecode_client.admin.agents import Agents
from sparecode_client.admin.approvals import Approvals
from sparecode_client.admin.audit import AuditLog
from sparecode_client.admin.backups import Backups
from sparecode_client.admin.bulk_issue import BulkIssues
from sparecode_client.admin.cluster import Cluster
from sparecode_client.admin.emergency_access import EmergencyAccesses
from sparecode_client.admin.membership import Memberships
from sparecode_client.admin.moves import UserMoves
from sparecode_client.admin.notices import Notices
from sparecode_client.admin.policy import Policies
from sparecode_client.admin.review import ClusterReviews
from sparecode_client.admin.rotation import KeyRotation
from sparecode_client.admin.sessions import Sessions
from sparecode_client.admin.token_import import TokenImport
from sparecode_client.admin.tokens import Tokens
from sparecode_client.admin.user_import import UserImport
from sparecode_client.admin.users import Users
from sparecode_client.connection.channels import (
    ADMIN_PORT,
    Nodes,
    PathLike,
    TlsConnect,
    addresses,
)
from sparecode_client.connection.client import DEFAULT_TIMEOUT, Client

__all__ = ["AsyncAdmin"]


class AsyncAdmin(
    Sessions,
    Users,
    UserImport,
    Tokens,
    TokenImport,
    EmergencyAccesses,
    BulkIssues,
    Agents,
    Notices,
    Cluster,
    Memberships,
    UserMoves,
    Backups,
    ClusterReviews,
    KeyRotation,
    AuditLog,
    Policies,
    Administrators,
    Approvals,
):
    """
    The client of an administrator or operator.

    *nodes* are the addresses of the nodes' administrator listeners (port 7304). The
    first call tries them in this order. Call `login`, or pass the *session* that an
    earlier `login` returned. The *certificate* and *key* of the client are for nodes that
    demand them (`client_authority`); a session works with one certificate alone.

    Methods that change something take a *request_id*. Pass the one from an
    `OutcomeUnknown` to learn the outcome. Every method takes *within*, the timeout of
    the call.

    Raises:
        OSError: A file cannot be read.
        ValueError: An address or a file is wrong.
    """

    def __init__(
        self,
        nodes: Nodes,
        *,
        ca: PathLike,
        session: str = "",
        certificate: PathLike | None = None,
        key: PathLike | None = None,
        timeout: timedelta = DEFAULT_TIMEOUT,
    ) -> None:
        self._client = Client(
            addresses(nodes, ADMIN_PORT),
            TlsConnect(ca, certificate=certificate, key=key),
            timeout=timeout,
        )
        self._client.session = session
