# SPDX-License-Identifier: Apache-2.0
"""The command by which nodes say that sessions are used; see `commands`."""

from dataclasses import dataclass

from sparecode_node.domain.ids import SessionId


@dataclass(frozen=True, slots=True, kw_only=True)
class TouchSessions:
    """
    Say that these sessions are used now (P2).

    What has ended stays so. Nothing is decided, so it is neither remembered nor an
    event: an administrator at work would fill the audit log.
    """

    session_ids: tuple[SessionId, ...]
