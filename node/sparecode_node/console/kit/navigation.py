# SPDX-License-Identifier: Apache-2.0
"""The navigation: links that the administrator's role may use."""

from collections.abc import Callable

from sparecode_node.domain.administrators import Role
from sparecode_node.domain.pins import PinRule
from sparecode_node.domain.tokencodes import Algorithm
from sparecode_node.queries.views import TokenView

May = Callable[[str], bool]
Link = tuple[str, str]

_NAVIGATION: tuple[tuple[str, tuple[tuple[str, str, str], ...]], ...] = (
    ("", (("/", "Dashboard", "SessionService/WhoAmI"),)),
    (
        "Authentication",
        (
            ("/tokens", "SecurID Tokens", "TokenService/ListTokens"),
            ("/users", "Users", "UserService/ListUsers"),
        ),
    ),
    (
        "Access",
        (
            ("/agents", "Agents", "AgentService/ListAgents"),
            (
                "/denied-certificates",
                "Denied certificates",
                "AgentService/ListDeniedCertificates",
            ),
        ),
    ),
    (
        "Administration",
        (
            (
                "/administrators",
                "Administrators",
                "AdministratorService/ListAdministrators",
            ),
            ("/approvals", "Approvals", "AdministratorService/ListApprovals"),
            ("/policy", "Policy", "PolicyService/GetPolicy"),
        ),
    ),
    (
        "System",
        (
            ("/audit", "Audit log", "AuditService/ListAuditEvents"),
            ("/cluster", "Cluster", "ClusterService/GetStatus"),
            ("/backups", "Backups", "ClusterService/GetStatus"),
            ("/keys", "Key ring", "ClusterService/GetStatus"),
        ),
    ),
)
"""Groups of links: address, label, and the method that the page calls."""

ICONS = {
    "/": "layout-dashboard",
    "/tokens": "rectangle-ellipsis",
    "/users": "users",
    "/agents": "plug",
    "/denied-certificates": "shield-ban",
    "/administrators": "user-cog",
    "/approvals": "clipboard-check",
    "/policy": "sliders-horizontal",
    "/audit": "scroll-text",
    "/cluster": "server",
    "/backups": "archive",
    "/keys": "key-round",
}
"""The icon of each link."""

ROLES = {
    Role.SUPER_ADMIN: "Super administrator",
    Role.HELP_DESK: "Help desk",
    Role.AUDITOR: "Auditor",
    Role.OPERATOR: "Operator",
}


def navigation(may: May) -> list[tuple[str, list[Link]]]:
    """Return the navigation's groups, with the links that the role may use."""
    groups = [
        (group, [(address, words) for address, words, method in links if may(method)])
        for group, links in _NAVIGATION
    ]
    return [(group, links) for group, links in groups if links]


def role_words(role: str) -> str:
    """Return the label of a role."""
    return ROLES[Role(role)]


def kind_words(algorithm: Algorithm) -> str:
    """Return the label of a token type."""
    return "SecurID" if algorithm is Algorithm.SECURID else algorithm.value.upper()


def pin_words(token: TokenView) -> str:
    """Return how a token's passcode is composed."""
    match token.pin_rule:
        case PinRule.NONE:
            return "Tokencode alone, without a PIN"
        case PinRule.PREPENDED:
            words = "PIN followed by the tokencode"
        case PinRule.PINPAD:
            words = "PIN folded into the tokencode"
    return words if token.pin_set else f"{words}; no PIN is set"


def code_words(token: TokenView) -> str:
    """Return how an emergency code of a token is entered (A1)."""
    if token.pin_rule is PinRule.NONE:
        return "The code alone, in place of the tokencode"
    return "PIN followed by the code"
