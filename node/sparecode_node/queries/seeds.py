# SPDX-License-Identifier: Apache-2.0
"""
The primary reads here what it stamps calls with: sealed seeds, to match tokencodes (T1).

Reads are synchronous: the primary stamps calls on the engine's thread or a worker
thread, without an event loop, and reads the state that it has applied by then.
"""

import sqlite3
import threading
from pathlib import Path

from sparecode_node.domain.administrators import Administrator
from sparecode_node.domain.ids import AdministratorName, TokenSerial, UserId
from sparecode_node.domain.policy import Policy
from sparecode_node.domain.tokens import Token
from sparecode_node.queries.policy import parsed
from sparecode_node.statemachine import feature_level
from sparecode_node.statemachine.requests import MONOTONIC
from sparecode_node.statemachine.tables import administrators as administrator_tables
from sparecode_node.statemachine.tables import meta
from sparecode_node.statemachine.tables import tokens as token_tables
from sparecode_node.statemachine.tables import users as user_tables
from sparecode_node.statemachine.tables.schema import read_only_uri


class SeedReader:
    """Reads through its own read-only connection, for one thread at a time."""

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(
            read_only_uri(path), uri=True, isolation_level=None, check_same_thread=False
        )
        self._db.execute("PRAGMA query_only = ON")
        self._lock = threading.Lock()

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            self._db.close()

    def policy(self) -> Policy:
        """Return the current policy."""
        with self._lock:
            row = self._db.execute(
                "SELECT value FROM policy ORDER BY version DESC LIMIT 1"
            ).fetchone()
        return parsed(row[0]) if row else Policy()

    def monotonic_ms(self) -> int | None:
        """Return the monotonic time of the state; None: its level has none."""
        with self._lock:
            if feature_level.read(self._db) < feature_level.STEADY_REQUESTS:
                return None
            known: int = meta.read(self._db, MONOTONIC, 0)
            return known

    def token(self, serial: TokenSerial) -> Token | None:
        """Return the token with this serial."""
        with self._lock:
            return token_tables.find_token(self._db, serial)

    def administrator(self, name: AdministratorName) -> Administrator | None:
        """Return an administrator, to match the second factor."""
        with self._lock:
            return administrator_tables.find_administrator(self._db, name)

    def auth_version(self, user_id: UserId) -> int:
        """Return the version of a user's PINs, tokens and codes; 0: unknown user."""
        with self._lock:
            user = user_tables.find_user(self._db, user_id)
        return user.auth_version if user else 0

    def tokens_of(self, user_id: UserId) -> list[Token]:
        """Return the user's tokens, ordered by serial."""
        with self._lock:
            return token_tables.find_tokens_of(self._db, user_id)
