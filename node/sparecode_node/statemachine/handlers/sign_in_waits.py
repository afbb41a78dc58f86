# SPDX-License-Identifier: Apache-2.0
"""
The wait that a password is judged by: the client's own, or that of strangers (L7).

*client* is the id of a device whose cookie the called node has checked, or of the
calling session. Empty: a stranger. At feature level 1 every caller is a stranger.
"""

from sparecode_node.domain.administrators import Administrator
from sparecode_node.domain.sign_in_waits import CLIENTS_MAX, ClientWait
from sparecode_node.statemachine.applying import Applying
from sparecode_node.statemachine.feature_level import CLIENT_WAITS
from sparecode_node.statemachine.tables import administrators as administrator_tables
from sparecode_node.statemachine.tables import sign_in_waits as wait_tables


def blocks(applying: Applying, administrator: Administrator, client: str) -> bool:
    """Return whether a password is refused now without checking it."""
    wait = _own_wait(applying, administrator, client)
    if wait is None:
        return administrator.blocks(applying.now_ms)
    return wait.blocks(applying.now_ms)


def time_to_wait(applying: Applying) -> str:
    """Return the words of refusals for the longest wait, after "wait a"."""
    return "minute" if applying.feature_level < CLIENT_WAITS else "few minutes"


def charge(applying: Applying, administrator: Administrator, client: str) -> None:
    """Count a wrong password or a wrong code, although the call is refused."""
    wait = _own_wait(applying, administrator, client)
    if wait is None:
        administrator_tables.save_administrator(
            applying.db, administrator.failed(applying.now_ms)
        )
    else:
        wait_tables.save(
            applying.db, administrator.name, client, wait.failed(applying.now_ms)
        )
    applying.keep_writes = True


def succeeded(
    applying: Applying, administrator: Administrator, client: str
) -> Administrator:
    """Return the administrator after the right password of a client; reset its count."""
    if _own_wait(applying, administrator, client) is None:
        return administrator.succeeded()
    wait_tables.delete(applying.db, administrator.name, client)
    return administrator


def _own_wait(
    applying: Applying, administrator: Administrator, client: str
) -> ClientWait | None:
    """
    Return the client's own wait; None: it is counted as a stranger.

    The table is bounded. A full one evicts nothing: clients without a row count as
    strangers, so that no number of clients gains a guess.
    """
    if not client or applying.feature_level < CLIENT_WAITS:
        return None
    wait = wait_tables.find(applying.db, administrator.name, client)
    if (
        wait is None
        and wait_tables.count(applying.db, administrator.name) < CLIENTS_MAX
    ):
        return ClientWait()
    return wait
