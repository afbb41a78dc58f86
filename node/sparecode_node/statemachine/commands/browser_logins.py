# SPDX-License-Identifier: Apache-2.0
"""Commands on sign-ins that are approved in a browser (P9)."""

from dataclasses import dataclass

from sparecode_node.domain.ids import AdministratorName, SessionId


@dataclass(frozen=True, slots=True, kw_only=True)
class StartBrowserLogin:
    """
    Keep a program's request to sign in until its administrator decides.

    Strangers send it. It gives no power, so it is neither deduplicated nor audited: a
    stranger could otherwise fill the table of requests and the audit log.
    """

    login_id: str
    """A keyed hash of the device code."""
    code_tag: bytes
    """A keyed hash of the administrator's name and the user code."""
    administrator: AdministratorName
    """`unknown TAG` for a name that does not exist."""
    device: str
    """The device whose cookie the called node has checked; empty: a stranger (L7)."""
    address: str
    client_name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ApproveBrowserLogin:
    """Let a program sign in as the calling administrator."""

    login_id: str
    """Empty: the called node found no such request."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RefuseBrowserLogin:
    """Refuse a program's request to sign in as the calling administrator."""

    login_id: str
    """Empty: the called node found no such request."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectBrowserLogin:
    """Open the session of an approved request, once."""

    login_id: str
    administrator: AdministratorName
    session_id: SessionId
    address: str
