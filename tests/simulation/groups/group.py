# SPDX-License-Identifier: Apache-2.0
"""
One cluster of several: the real state machine, and its part of the moves of slots.

A cluster counts as one machine here: `make sim` looks at its nodes. Each step is a commit,
so it survives the time in which the cluster has no quorum.
"""

import random
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, replace

from sparecode_client.clusters.slots import slot_of
from sparecode_node.domain.emergency_access import CodeState, EmergencyCodeSet
from sparecode_node.domain.ids import NameKey, UserId
from sparecode_node.domain.lockout import Factor, Lockout
from sparecode_node.domain.tokens import Token
from sparecode_node.domain.users import User
from sparecode_node.statemachine.commands import Command, UnstampedCall
from sparecode_node.statemachine.machine import StateMachine
from sparecode_node.statemachine.results import Authenticated, Decision, Result
from sparecode_node.statemachine.tables import emergency_access as code_tables
from sparecode_node.statemachine.tables import tokens as token_tables
from sparecode_node.statemachine.tables import users as user_tables
from tests.simulation.groups.moves import SlotLedger, Standing
from tests.simulation.people import (
    FOUNDING,
    IssuedSet,
    Try,
    beginning,
    call_of,
    open_session,
)

BEGAN_MS = 1_800_000_000_000
SESSION = "open.first"


@dataclass(frozen=True)
class MovedUser:
    """All rows of a user that decide about passcodes: what an export contains."""

    user: User
    lockouts: tuple[tuple[Factor, Lockout], ...]
    tokens: tuple[Token, ...]
    sets: tuple[EmergencyCodeSet, ...]


class NotHere(Exception):  # noqa: N818  An answer, and not a failure.
    """The cluster does not decide about this slot now."""

    def __init__(self, standing: Standing) -> None:
        super().__init__(standing.value)
        self.moved = standing is Standing.GONE
        """Whether it never will: it has not applied the attempt."""


class Group:
    """One cluster."""

    def __init__(
        self, name: str, rng: random.Random, now_s: Callable[[], float]
    ) -> None:
        self.name = name
        self.is_up = True
        self.slots = SlotLedger(name, rng)
        self._now_s = now_s
        self._db = sqlite3.connect(":memory:", isolation_level=None)
        self._machine = StateMachine(self._db)
        self._index = 0
        self._admin(FOUNDING)
        self._admin(open_session(SESSION))
        [register, *self._people] = beginning()
        self._admin(register)

    def close(self) -> None:
        self._db.close()

    # --- Users

    def add_user(self, name: str, codes: IssuedSet) -> None:
        """Create one of the people, with a token and codes."""
        for command in self._people:
            named = {
                getattr(command, field, None)
                for field in ("user_id", "serial", "name_key")
            }
            if name in named:
                self._admin(command)
        self._admin(codes.command(self._version(name)))

    def has_users(self, slot: int) -> bool:
        return bool(self._names(slot))

    def users(self, slot: int) -> tuple[MovedUser, ...]:
        """Return the users of a slot with all that is spent, in order of their names."""
        return tuple(self._user(name) for name in self._names(slot))

    def _names(self, slot: int) -> list[NameKey]:
        rows = self._db.execute("SELECT name_key FROM users ORDER BY name_key")
        return [NameKey(name) for (name,) in rows if slot_of(name) == slot]

    def _user(self, name: NameKey) -> MovedUser:
        user = user_tables.find_user_by_name(self._db, name)
        assert user is not None
        tokens = tuple(token_tables.find_tokens_of(self._db, user.user_id))
        return MovedUser(
            user=user,
            lockouts=tuple(
                sorted(user_tables.find_lockouts(self._db, user.user_id).items())
            ),
            tokens=tokens,
            sets=tuple(
                each
                for token in tokens
                # Oldest first: the order in which they are added again.
                for each in reversed(code_tables.find_sets(self._db, token.serial))
            ),
        )

    def save(self, moved: object) -> None:
        """Keep an imported user. One who exists is left as they are."""
        assert isinstance(moved, MovedUser)
        if user_tables.find_user(self._db, moved.user.user_id) is not None:
            return
        user_tables.save_user(self._db, moved.user)
        for factor, lockout in moved.lockouts:
            user_tables.save_lockout(self._db, moved.user.user_id, factor, lockout)
        for token in moved.tokens:
            token_tables.save_token(self._db, token)
        for each in moved.sets:
            live = replace(
                each, codes=tuple(replace(c, state=CodeState.LIVE) for c in each.codes)
            )
            code_tables.add_set(self._db, live)
            unused = replace(
                live, codes=tuple(replace(code, use=None) for code in live.codes)
            )
            code_tables.update_set(self._db, unused, each)

    def delete(self, slot: int) -> None:
        """Delete the users of a slot: the move was canceled, or is long over."""
        for moved in self.users(slot):
            for token in moved.tokens:
                token_tables.delete_token(self._db, token.serial)
            user_tables.delete_user(self._db, moved.user.user_id)

    def used_codes(self) -> set[str]:
        """Return the used codes of the users of slots that are served here."""
        return self._codes(used=True)

    def live_codes(self) -> set[str]:
        """Return the codes that would be accepted here."""
        return self._codes(used=False)

    def _codes(self, *, used: bool) -> set[str]:
        rows = self._db.execute(
            "SELECT set_id, ordinal, name_key FROM codes JOIN code_sets USING (set_id) "
            "JOIN tokens USING (serial) JOIN users USING (user_id) "
            "WHERE (used_index IS NOT NULL) = ?",
            (used,),
        )
        return {
            f"{set_id}/{ordinal}"
            for set_id, ordinal, name in rows
            if self.slots.serves(slot_of(name))
        }

    # --- Attempts

    def decide(self, wanted: Try, request_id: str) -> tuple[Decision, int]:
        """
        Return the decision on an attempt, and the index at which it was made.

        A request id that is remembered gets its first answer, also while its slot moves:
        only so a caller learns an outcome that was unknown. Raises `NotHere`.
        """
        row = self._db.execute(
            "SELECT 1 FROM requests WHERE request_id = ?", (request_id,)
        ).fetchone()
        slot = slot_of(wanted.user)
        if row is None and not self.slots.serves(slot):
            raise NotHere(self.slots.of(slot))
        version = self._version(wanted.user)
        command = wanted.command(version)
        if not version:
            command = replace(command, user_id=UserId(""), readings=())
        content = f"{wanted.user} {wanted.what}"
        [result] = self._apply(call_of(command, request_id, content=content))
        assert isinstance(result, Authenticated), result
        return result.decision, result.index

    def _version(self, name: str) -> int:
        row = self._db.execute(
            "SELECT auth_version FROM users WHERE user_id = ?", (name,)
        ).fetchone()
        return int(row[0]) if row else 0

    def _admin(self, command: Command) -> None:
        name = f"{self._index}"
        [result] = self._apply(call_of(command, name, content=name, session=SESSION))
        assert not hasattr(result, "reason"), result

    def _apply(self, call: UnstampedCall) -> tuple[Result, ...]:
        self._index += 1
        at_ms = BEGAN_MS + int(self._now_s() * 1000)
        return self._machine.apply(self._index, [call.stamped(at_ms)])
