# SPDX-License-Identifier: Apache-2.0
"""
One cluster of several: the real state machine, with two administrators.

A cluster counts as one machine here: `make sim` looks at its nodes. Each step is a commit,
so it survives the time in which the cluster has no quorum. A restore puts an earlier state
back, and begins a new epoch in it by the real command.
"""

import contextlib
import json
import sqlite3
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial

from sparecode_client.clusters.slots import slot_of
from sparecode_node.domain.administrators import Role
from sparecode_node.domain.ids import (
    AdministratorName,
    NodeId,
    RequestId,
    SessionId,
    TokenSerial,
    UserId,
)
from sparecode_node.domain.outcomes import Reason, Rejected
from sparecode_node.domain.policy import Policy
from sparecode_node.domain.tokens import Token
from sparecode_node.queries import review
from sparecode_node.statemachine.commands import Command, RequestKey, UnstampedCall
from sparecode_node.statemachine.commands.administrators import (
    ChangePassword,
    CreateAdministrator,
)
from sparecode_node.statemachine.commands.approvals import Approve
from sparecode_node.statemachine.commands.authentication import (
    Authenticate,
    ContinueAuthentication,
)
from sparecode_node.statemachine.commands.epochs import BeginEpoch, OpenCluster
from sparecode_node.statemachine.commands.sessions import OpenSession
from sparecode_node.statemachine.handlers import epochs
from sparecode_node.statemachine.handlers.policy import find_policy
from sparecode_node.statemachine.machine import StateMachine
from sparecode_node.statemachine.results import (
    ApprovalPending,
    Authenticated,
    Result,
)
from sparecode_node.statemachine.tables import meta
from sparecode_node.statemachine.tables import moves as move_tables
from sparecode_node.statemachine.tables import tokens as token_tables
from tests.simulation.groups.moves import (
    REMEMBERED_S,
    GroupMoves,
    MoveRefusedError,
    WaitingError,
    now_read,
)
from tests.simulation.groups.tokens import (
    RESYNCHRONIZED_STEPS,
    TOKEN_USERS,
    NextTry,
    TokencodeTry,
    at_ms,
    near,
    person,
    resynchronization,
)
from tests.simulation.people import (
    FOUNDING,
    KEY,
    IssuedSet,
    Try,
    beginning,
    call_of,
    open_session,
)

APPROVER = AdministratorName("eve")
NODE = NodeId("n1")
FAILURES = 50
"""Wrong passcodes in a row that lock a user: more than a user types in a run."""


class NotHere(Exception):  # noqa: N818  An answer, and not a failure.
    """The cluster does not decide about this slot now."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason.value)
        self.moved = reason is Reason.SLOT_MOVED
        """Whether it never will: it has not applied the attempt."""
        self.reason = reason.value


@dataclass(frozen=True, eq=False)
class GroupBackup:
    """The state of a cluster at a moment."""

    state: bytes
    index: int
    whole: frozenset[str]
    """The moves to the cluster of which it has all users."""


class Group:
    """One cluster."""

    def __init__(self, name: str, now_s: Callable[[], float]) -> None:
        self.name = name
        self.is_up = True
        self.is_lost = False
        """For good: nothing of it is left."""
        self.epoch = epochs.FIRST_EPOCH
        self._sessions_of = self.epoch
        """The epoch in which the administrators who call now have signed in."""
        self._homes: tuple[tuple[int, int, bool], frozenset[int]] | None = None
        self._now_s = now_s
        self._db = sqlite3.connect(":memory:", isolation_level=None)
        self._machine = StateMachine(self._db)
        self._index = 0
        self.moves = GroupMoves(name, self._db, self._step)
        self._admin(replace(FOUNDING, cluster_id=name))
        self._admin(open_session(self._session))
        [register, *self._people] = beginning()
        self._admin(register)

    def close(self) -> None:
        self._db.close()

    # --- Restores

    def back_up(self) -> GroupBackup:
        """Return a copy of the state."""
        return GroupBackup(
            state=self._db.serialize(), index=self._index, whole=self.moves.whole()
        )

    def restore(self, backup: GroupBackup, cause: str) -> None:
        """
        Go on in an earlier state, as a new cluster that is not open yet (E1, E2).

        `sparecode-node restore` and `recover` write such a state, and a log that goes on
        with this command.
        """
        self.epoch += 1
        self._db.close()
        self._db = sqlite3.connect(":memory:", isolation_level=None)
        self._db.deserialize(backup.state)
        self._machine = StateMachine(self._db)
        self._index = backup.index
        self.moves = self.moves.restored(f"{self.name}.{self.epoch}", self._db)
        began = BeginEpoch(
            cluster_id=self.moves.key.cluster_id,
            cause=cause,
            state_index=backup.index,
            state_at_ms=meta.read(self._db, "now_ms", 0),
        )
        request = RequestId(began.cluster_id)
        [result] = self._apply(UnstampedCall.of_node(NODE, began, request))
        assert not isinstance(result, Rejected), result
        self._sessions_of = self.epoch
        self._admin(open_session(self._session))
        self._sign_in(self._approver_session, b"hers", 2)

    @property
    def is_open(self) -> bool:
        """Whether it serves agents."""
        return epochs.is_open(self._db)

    def open(self, request: str) -> None:
        """Serve agents again, after the review. Raises `WaitingError`."""
        if not self.is_open:
            found = now_read(self._db, partial(review.find, names_users=True))
            self._step(OpenCluster(review=found.mark), request)

    @contextlib.contextmanager
    def calls_of(self, epoch: int) -> Iterator[None]:
        """Let calls arrive that administrators have sent in an earlier epoch."""
        self._sessions_of = epoch
        try:
            yield
        finally:
            self._sessions_of = self.epoch

    @property
    def _session(self) -> str:
        return f"open.{self._sessions_of}"

    @property
    def _approver_session(self) -> str:
        return f"open.approver.{self._sessions_of}"

    # --- Administrators

    def appoint(self) -> None:
        """
        Appoint a second administrator: from now on steps of moves need an approval.

        The policy remembers requests for a run's ten minutes. No command may say so.
        """
        policy = replace(
            self._policy(),
            # A passcode that arrives late is no guess, and people type many in a minute.
            lock_from_failures=FAILURES,
            next_tokencode_from_failures=0,
            resynchronize_window_steps=RESYNCHRONIZED_STEPS,
            request_retention_ms=int(REMEMBERED_S * 1000),
        )
        self._db.execute("UPDATE policy SET value = ?", (json.dumps(asdict(policy)),))
        self._admin(
            CreateAdministrator(
                name=APPROVER,
                role=Role.SUPER_ADMIN,
                user=None,
                password_salt=b"salt",
                password_verifier=b"temporary",
                key_id=KEY,
            )
        )
        self._sign_in("open.temporary", b"temporary", 1)
        self._as_approver(
            ChangePassword(
                name=APPROVER,
                candidate=b"temporary",
                administrator_version=1,
                key_id=KEY,
                password_salt=b"salt",
                password_verifier=b"hers",
            ),
            "change",
            session="open.temporary",
        )
        self._sign_in(self._approver_session, b"hers", 2)

    def _sign_in(self, session: str, candidate: bytes, version: int) -> None:
        self._as_approver(
            OpenSession(
                administrator=APPROVER,
                candidate=candidate,
                administrator_version=version,
                key_id=KEY,
                session_id=SessionId(session),
            ),
            session,
            session=session,
        )

    def approve(self, approval_id: int, request: str) -> None:
        """Approve a step. Raises `MoveRefusedError`."""
        result = self._as_approver(
            Approve(approval_id=approval_id), request, session=self._approver_session
        )
        if isinstance(result, Rejected):
            raise MoveRefusedError(result.detail)

    def _as_approver(self, command: Command, request: str, *, session: str) -> Result:
        call = UnstampedCall(
            command=command,
            request=RequestKey(
                caller=f"administrator:{APPROVER}",
                method=type(command).__name__,
                request_id=RequestId(request),
                tag=zlib.crc32(request.encode()),
            ),
            node_id=NODE,
            session_id=SessionId(session),
        )
        [result] = self._apply(call)
        return result

    def _step(self, command: Command, request: str) -> None:
        """Apply a step of a move. Raises `MoveRefusedError` and `WaitingError`."""
        call = call_of(command, request, content=request, session=self._session)
        [result] = self._apply(call)
        if isinstance(result, Rejected):
            raise MoveRefusedError(f"{result.reason}: {result.detail}")
        if isinstance(result, ApprovalPending):
            raise WaitingError(result.approval_id)

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

    def add_token_user(self, name: str) -> None:
        """Create a user who has a token and no codes."""
        for command in person(name):
            self._admin(command)

    def issue(self, codes: IssuedSet, request: str) -> None:
        """Issue codes to a user. Raises `MoveRefusedError`."""
        self._step(codes.command(self._version(codes.user)), request)

    def token(self, user: str) -> Token | None:
        """Return the token of a user, whether or not the user is served here."""
        return token_tables.find_token(self._db, TokenSerial(user))

    def resynchronize(self, user: str, first: int, request: str) -> None:
        """Learn the position of a token from two passcodes. Raises `MoveRefusedError`."""
        token = self.token(user)
        if token is None:
            raise MoveRefusedError(f"{user} is not here")
        self._step(
            resynchronization(token, self._policy(), first, self._now_s()), request
        )

    def positions(self) -> dict[str, Token]:
        """Return the tokens of the users of slots that are served here."""
        tokens = {user: self.token(user) for user in TOKEN_USERS}
        return {
            user: token
            for user, token in tokens.items()
            if token is not None and self.moves.serves(slot_of(user))
        }

    def has_users(self, slot: int) -> bool:
        return move_tables.has_users(self._db, slot, slot)

    def homes(self, slots: Sequence[int]) -> frozenset[int]:
        """Return the slots of which users can sign in here. Looked up once per entry."""
        at = (self.epoch, self._index, self.is_lost)
        if self._homes is None or self._homes[0] != at:
            found = frozenset(slot for slot in slots if self.is_home(slot))
            self._homes = (at, found)
        return self._homes[1]

    def is_home(self, slot: int) -> bool:
        """Return whether users of a slot can sign in here."""
        return (
            not self.is_lost
            and self.has_users(slot)
            and self.moves.serves(slot)
            and self.is_open
        )

    def used_codes(self) -> set[str]:
        """Return the used codes of the users of slots that are served here."""
        return self._codes("used")

    def live_codes(self) -> set[str]:
        """Return the codes that would be accepted here."""
        return self._codes("live")

    def _codes(self, state: str) -> set[str]:
        rows = self._db.execute(
            "SELECT set_id, ordinal, name_key FROM codes JOIN code_sets USING (set_id) "
            "JOIN tokens USING (serial) JOIN users USING (user_id) WHERE state = ?",
            (state,),
        )
        return {
            f"{set_id}/{ordinal}"
            for set_id, ordinal, name in rows
            if self.moves.serves(slot_of(name))
        }

    # --- Attempts

    def decide(self, wanted: Try, request_id: str) -> Authenticated:
        """
        Return the decision on an attempt, with the index at which it was made.

        A request id that is remembered gets its first answer, also while its slot moves:
        only so a caller learns an outcome that was unknown. Raises `NotHere`.
        """
        command = self._command(wanted, request_id)
        content = f"{wanted.user} {wanted.what}"
        [result] = self._apply(call_of(command, request_id, content=content))
        if isinstance(result, Rejected):
            raise NotHere(result.reason)
        assert isinstance(result, Authenticated), result
        return result

    def _command(
        self, wanted: Try, request_id: str
    ) -> Authenticate | ContinueAuthentication:
        version = self._version(wanted.user)
        token = self.token(wanted.user) if isinstance(wanted, TokencodeTry) else None
        if isinstance(wanted, NextTry):
            return wanted.answer(token, version, self.moves.key.cluster_id)
        command = replace(
            wanted.command(version),
            authentication_id=request_id,
            slot=slot_of(wanted.user) + 1,
        )
        if not version:
            return replace(command, user_id=UserId(""), readings=())
        if isinstance(wanted, TokencodeTry) and token is not None:
            window = near(token, self._policy(), self._now_s())
            return wanted.seen_by(command, window)
        return command

    def _policy(self) -> Policy:
        return find_policy(self._db) or Policy()

    def _version(self, name: str) -> int:
        row = self._db.execute(
            "SELECT auth_version FROM users WHERE user_id = ?", (name,)
        ).fetchone()
        return int(row[0]) if row else 0

    def _admin(self, command: Command) -> None:
        name = f"{self._index}"
        [result] = self._apply(
            call_of(command, name, content=name, session=self._session)
        )
        assert not hasattr(result, "reason"), result

    def _apply(self, call: UnstampedCall) -> tuple[Result, ...]:
        self._index += 1
        return self._machine.apply(self._index, [call.stamped(at_ms(self._now_s()))])
