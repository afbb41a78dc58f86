# SPDX-License-Identifier: Apache-2.0
"""What administrators and operators call: one module per subject."""

from datetime import timedelta

from sparecode_client.admin.administrators import Administrators
from sparecode_client.admin.agents import Agents
from sparecode_client.admin.approvals import Approvals
from sparecode_client.admin.audit import AuditLog
from sparecode_client.admin.backup import Backups
from sparecode_client.admin.bulk_issue import BulkIssues
from sparecode_client.admin.cluster import Cluster
from sparecode_client.admin.emergency_access import EmergencyAccesses
from sparecode_client.admin.membership import Memberships
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
    Cluster,
    Memberships,
    Backups,
    ClusterReviews,
    KeyRotation,
    AuditLog,
    Policies,
    Administrators,
    Approvals,
):
    """
    An administrator or operator, on any node of the cluster.

    *nodes* are the addresses of the listeners for administrators (port 7304),
    tried in this order at first. Call `login`, or give the *session* that an
    earlier `login` returned.

    What changes something takes a *request_id*: give the one of an
    `OutcomeUnknown` to learn what became of it. Every method takes *within*, its
    own time-out.
    """

    def __init__(
        self,
        nodes: Nodes,
        *,
        ca: PathLike,
        session: str = "",
        timeout: timedelta = DEFAULT_TIMEOUT,
    ) -> None:
        self._client = Client(
            addresses(nodes, ADMIN_PORT), TlsConnect(ca), timeout=timeout
        )
        self._client.session = session
