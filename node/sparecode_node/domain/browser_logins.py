# SPDX-License-Identifier: Apache-2.0
"""
Sign-ins of programs that their administrator approves in a browser (P9).

The model is the Device Authorization Grant (RFC 8628). The program keeps a *device
code* and shows a *user code*. The administrator types the user code in the console and
approves; the program then collects its session with the device code. Other than in the
RFC, the request names its administrator, and no other one can approve it.
"""

import enum
import re
from dataclasses import dataclass

from sparecode_node.domain.ids import NO_SESSION, AdministratorName, SessionId
from sparecode_node.domain.policy import MINUTE_MS, SECOND_MS

USER_CODE_ALPHABET = "BCDFGHJKLMNPQRSTVWXZ"
"""Without vowels and digits: no words, and no letter looks like a digit (6.1)."""
USER_CODE_LENGTH = 8
"""With 20 letters, 34.6 bits (6.1)."""
BROWSER_LOGIN_MS = 5 * MINUTE_MS
"""How long a request waits for its approval and its collection."""
POLL_MS = 5 * SECOND_MS
"""The time between two polls (3.5)."""
CLIENT_NAME_MAX = 64

STRANGERS_MAX = 256
"""Waiting requests of all strangers together."""
OF_SOURCE_MAX = 8
"""Waiting requests of the strangers of one address."""
KNOWN_MAX = 4
"""Waiting requests from known devices of one administrator. The oldest makes room."""

_IGNORED = re.compile(r"[\s-]")


class LoginState(enum.StrEnum):
    """What its administrator has decided about a request. The values are in the tables."""

    WAITING = "waiting"
    APPROVED = "approved"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True, kw_only=True)
class BrowserLogin:
    """A request of a program to sign in."""

    login_id: str
    """A keyed hash of the device code."""
    code_tag: bytes
    """A keyed hash of the administrator's name and the user code."""
    administrator: AdministratorName
    device: str
    """The known device that asks; empty: a stranger (L7)."""
    address: str
    client_name: str
    """What the program calls its computer."""
    asked_at_ms: int
    ends_at_ms: int
    state: LoginState = LoginState.WAITING
    approver: SessionId = NO_SESSION
    """The session that approved it; empty: none has."""


def normalized_code(typed: str) -> str:
    """Return a user code in capital letters, without spaces and hyphens."""
    return _IGNORED.sub("", typed).upper()


def is_user_code(code: str) -> bool:
    """Return whether a normalized text can be a user code."""
    return len(code) == USER_CODE_LENGTH and set(code) <= set(USER_CODE_ALPHABET)


def shown_code(code: str) -> str:
    """Return a user code as people read it: two groups of four letters."""
    half = USER_CODE_LENGTH // 2
    return f"{code[:half]}-{code[half:]}"
