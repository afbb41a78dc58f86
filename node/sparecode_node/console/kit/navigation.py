# SPDX-License-Identifier: Apache-2.0
"""The navigation: links that the administrator's role may use."""

from collections.abc import Callable

from sparecode_node.console.kit import languages
from sparecode_node.console.kit.languages import N_
from sparecode_node.console.kit.languages import gettext as _
from sparecode_node.domain.administrators import Role
from sparecode_node.domain.pins import PinRule
from sparecode_node.domain.tokencodes import Algorithm
from sparecode_node.queries.views import TokenView

May = Callable[[str], bool]
Link = tuple[str, str]

_NAVIGATION: tuple[tuple[str, tuple[tuple[str, str, str], ...]], ...] = (
    ("", (("/", N_("Dashboard"), "SessionService/WhoAmI"),)),
    (
        N_("Authentication"),
        (
            ("/tokens", N_("SecurID Tokens"), "TokenService/ListTokens"),
            ("/users", N_("Users"), "UserService/ListUsers"),
        ),
    ),
    (
        N_("Access"),
        (
            ("/agents", N_("Agents"), "AgentService/ListAgents"),
            (
                "/denied-certificates",
                N_("Denied certificates"),
                "AgentService/ListDeniedCertificates",
            ),
        ),
    ),
    (
        N_("Administration"),
        (
            (
                "/administrators",
                N_("Administrators"),
                "AdministratorService/ListAdministrators",
            ),
            ("/approvals", N_("Approvals"), "AdministratorService/ListApprovals"),
            ("/policy", N_("Policy"), "PolicyService/GetPolicy"),
        ),
    ),
    (
        N_("System"),
        (
            ("/audit", N_("Audit log"), "AuditService/ListAuditEvents"),
            ("/channels", N_("Channels"), "NoticeService/ListChannels"),
            ("/cluster", N_("Cluster"), "ClusterService/GetStatus"),
            ("/backups", N_("Backups"), "ClusterService/GetStatus"),
            ("/keys", N_("Key ring"), "ClusterService/GetStatus"),
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
    "/channels": "inbox",
    "/cluster": "server",
    "/backups": "archive",
    "/keys": "key-round",
}
"""The icon of each link."""

ROLES = {
    Role.SUPER_ADMIN: N_("Super administrator"),
    Role.HELP_DESK: N_("Help desk"),
    Role.AUDITOR: N_("Auditor"),
    Role.OPERATOR: N_("Operator"),
}


_ENTRIES = {
    "/agent-keys/": "/agents",
    "/import/tokens": "/tokens",
    "/import/users": "/users",
    "/issue-codes": "/users",
    "/new/administrator": "/administrators",
    "/new/agent": "/agents",
    "/new/channel": "/channels",
    "/new/radius-client": "/agents",
    "/new/user": "/users",
    "/notices": "/channels",
    "/radius-clients/": "/agents",
    "/radius-secrets/": "/agents",
    "/selection": "/users",
}
"""The link that a page belongs to, if its address does not begin with that of the link."""


def entry_of(path: str) -> str:
    """Return the address of the link that a page belongs to; empty: none."""
    for beginning, address in _ENTRIES.items():
        if path == beginning or (beginning[-1] == "/" and path.startswith(beginning)):
            return address
    for _group, links in _NAVIGATION:
        for address, _words, _method in links:
            if path == address or (address != "/" and path.startswith(f"{address}/")):
                return address
    return ""


def navigation(may: May) -> list[tuple[str, list[Link]]]:
    """Return the navigation's groups, with the links that the role may use."""
    groups = [
        (
            _(group),
            [(address, _(words)) for address, words, method in links if may(method)],
        )
        for group, links in _NAVIGATION
    ]
    return [(group, links) for group, links in groups if links]


def role_words(role: str) -> str:
    """Return the label of a role."""
    return _(ROLES[Role(role)])


def role_in_sentence(role: str) -> str:
    """Return the label of a role within a sentence."""
    words = role_words(role)
    return words.lower() if languages.current() == languages.ENGLISH else words


def kind_words(algorithm: Algorithm) -> str:
    """Return the label of a token type."""
    return "SecurID" if algorithm is Algorithm.SECURID else algorithm.value.upper()


def pin_words(token: TokenView) -> str:
    """Return how a token's passcode is composed."""
    match token.pin_rule:
        case PinRule.NONE:
            return _("Tokencode alone, without a PIN")
        case PinRule.PREPENDED:
            words = _("PIN followed by the tokencode")
        case PinRule.PINPAD:
            words = _("PIN folded into the tokencode")
    return words if token.pin_set else f"{words}; {_('no PIN is set')}"


def code_words(token: TokenView) -> str:
    """Return how an emergency code of a token is entered (A1)."""
    if token.pin_rule is PinRule.NONE:
        return _("The code alone, in place of the tokencode")
    return _("PIN followed by the code")
