# SPDX-License-Identifier: Apache-2.0
"""Where one can go: what a role may not do is not offered."""

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
            ("/keys", "Key", "ClusterService/GetStatus"),
        ),
    ),
)
"""Groups of address, words, and the method that its page calls."""

ROLES = {
    Role.SUPER_ADMIN: "Super administrator",
    Role.HELP_DESK: "Help desk",
    Role.AUDITOR: "Auditor",
    Role.OPERATOR: "Operator",
}


def navigation(may: May) -> list[tuple[str, list[Link]]]:
    """Return the groups of the navigation, without what the role may not see."""
    groups = [
        (group, [(address, words) for address, words, method in links if may(method)])
        for group, links in _NAVIGATION
    ]
    return [(group, links) for group, links in groups if links]


def role_words(role: str) -> str:
    """Return what a role is called."""
    return ROLES[Role(role)]


def kind_words(algorithm: Algorithm) -> str:
    """Return what a kind of token is called."""
    return "SecurID" if algorithm is Algorithm.SECURID else algorithm.value.upper()


def pin_words(token: TokenView) -> str:
    """Say what a passcode of a token is made of."""
    match token.pin_rule:
        case PinRule.NONE:
            return "Tokencode alone, without a PIN"
        case PinRule.PREPENDED:
            words = "PIN followed by the tokencode"
        case PinRule.PINPAD:
            words = "PIN folded into the tokencode"
    return words if token.pin_set else f"{words}; no PIN is set"


def code_words(token: TokenView) -> str:
    """Say how an emergency code of a token is typed (A1)."""
    if token.pin_rule is PinRule.NONE:
        return "The code alone, in place of the tokencode"
    return "PIN followed by the code"
