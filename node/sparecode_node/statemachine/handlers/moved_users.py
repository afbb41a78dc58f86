# SPDX-License-Identifier: Apache-2.0
"""
Users who come from another cluster, row by row, and users who have gone to one.

The rows are JSON that the node has made of an opened export: everything in them is
sealed for this cluster's ring. The other cluster has signed them, but apply trusts no
form: what does not fit is refused, and stops no node.
"""

import base64
import json
import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

from sparecode_node.domain.authentication import Event
from sparecode_node.domain.emergency_access import (
    CodeState,
    EmergencyCode,
    EmergencyCodeSet,
    RecoveryPolicy,
    Use,
)
from sparecode_node.domain.ids import KeyId, Moment, NameKey, TokenSerial, UserId
from sparecode_node.domain.issuing import odds_problem
from sparecode_node.domain.lockout import Factor, Lockout
from sparecode_node.domain.moves import MoveTicket
from sparecode_node.domain.outcomes import Reason, Rejected
from sparecode_node.domain.personal_kinds import PersonalKind
from sparecode_node.domain.pins import PinRule
from sparecode_node.domain.slots import slot_of
from sparecode_node.domain.tokencodes import (
    Algorithm,
    HashName,
    parameters_of,
    parameters_problem,
)
from sparecode_node.domain.tokens import Token
from sparecode_node.domain.users import User
from sparecode_node.statemachine.applying import Applying
from sparecode_node.statemachine.handlers import known_secrets, set_ends
from sparecode_node.statemachine.handlers.moved_forms import check_form
from sparecode_node.statemachine.tables import administrators as administrator_tables
from sparecode_node.statemachine.tables import emergency_access as code_tables
from sparecode_node.statemachine.tables import former as former_tables
from sparecode_node.statemachine.tables import known_secrets as secret_tables
from sparecode_node.statemachine.tables import live_codes
from sparecode_node.statemachine.tables import moves as move_tables
from sparecode_node.statemachine.tables import seed_fingerprints as fingerprint_tables
from sparecode_node.statemachine.tables import tokens as token_tables
from sparecode_node.statemachine.tables import users as user_tables
from sparecode_node.statemachine.tables.allowance_counts import Allowance
from sparecode_node.statemachine.tables.known_secrets import KnownSecret

Row = Mapping[str, Any]


class _ConflictError(Exception):
    """This cluster has something of the same name already."""


class _PolicyError(Exception):
    """A code or PIN does not conform to the policy of this cluster."""


_OF_USERS: Final = {
    "group": ("user_groups", "user_id, group_key"),
    "address": ("former_addresses", "user_id, of_manager, email, ends_at_ms"),
    "alarm": (
        "alarms",
        "user_id, notice_id, kind, told_at_ms, raised_at_ms, ends_at_ms",
    ),
    "allowance": (
        "allowance_counts",
        "allowance, subject, minute_ms, uses, ends_at_ms",
    ),
}
"""Plain rows: their table and columns."""


class _Import:
    """The import of one piece."""

    def __init__(self, applying: Applying, key_id: KeyId, ticket: MoveTicket) -> None:
        self._applying = applying
        self._db = applying.db
        self._key_id = key_id
        self._slots = range(ticket.first_slot, ticket.last_slot + 1)
        self._same_administrators = ticket.same_administrators
        self._administrators = move_tables.administrators_of(self._db, ticket.move_id)
        """Who is vouched to have the same name in the other cluster (I10)."""
        self.users = 0
        self._add: Mapping[str, Callable[[Row], None]] = {
            "user": self._add_user,
            "lockout": self._add_lockout,
            "token": self._add_token,
            "creator": self._add_creator,
            "secret": self._add_secret,
            "set": self._add_set,
            "codes": self._add_codes,
            "former": self._add_former,
        }

    def add(self, kind: str, row: Row) -> None:
        """Add one row. Raises `ValueError` and the like for a row that does not fit."""
        check_form(row)
        if kind in _OF_USERS:
            if kind == "allowance":
                self._user(row["subject"])
                if Allowance(row["allowance"]) is not Allowance.UNLOCK:
                    raise ValueError(kind)
            else:
                self._user(row["user_id"])
            if kind == "alarm":
                PersonalKind(row["kind"])
            self._add_plain(*_OF_USERS[kind], row)
        else:
            self._add[kind](row)

    def _user(self, user_id: str) -> User:
        user = user_tables.find_user(self._db, UserId(user_id))
        if user is None or slot_of(user.name_key) not in self._slots:
            raise ValueError("a row of a user who is not in this move")
        return user

    def _token(self, serial: str) -> Token:
        token = token_tables.find_token(self._db, TokenSerial(serial))
        if token is None or token.user_id is None:
            raise ValueError("a row of a token that is not in this move")
        self._user(token.user_id)
        return token

    def _add_plain(self, table: str, columns: str, row: Row) -> None:
        names = columns.split(", ")
        marks = ", ".join("?" * len(names))
        self._db.execute(
            f"INSERT INTO {table} ({columns}) VALUES ({marks})",
            tuple(row[name] for name in names),
        )

    def _add_user(self, row: Row) -> None:
        # A former user of the source may have had this name, and only the source knows.
        is_new = self._same_administrators and bool(row["is_new"])
        user = User(
            user_id=UserId(_text(row["user_id"])),
            username=_text(row["username"]),
            # Not folded here: what folding does depends on the release of Python.
            name_key=NameKey(_text(row["name_key"])),
            name_tag=_bytes(row["name_tag"]),
            display_name=row["display_name"],
            email=row["email"],
            enabled=bool(row["enabled"]),
            auth_version=int(row["auth_version"]) + (not is_new),
            pin_salt=_bytes(row["pin_salt"]),
            code_salt=_bytes(row["code_salt"]),
            tag_key_id=self._key_id,
            language=row["language"],
            manager_email=row["manager_email"],
            email_since_ms=row["email_since_ms"],
            manager_since_ms=row["manager_since_ms"],
        )
        if slot_of(user.name_key) not in self._slots:
            raise ValueError("a user whose slot is not in this move")
        if (
            user_tables.find_user(self._db, user.user_id)
            or user_tables.find_user_by_name(self._db, user.name_key)
            or user_tables.find_user_by_tag(self._db, user.name_tag)
        ):
            raise _ConflictError(f"user {user.username} exists in this cluster")
        user_tables.save_user(self._db, user)
        self.users += 1
        self._tell("USER_ARRIVED", user.name_key)

    def _add_lockout(self, row: Row) -> None:
        user_tables.save_lockout(
            self._db,
            self._user(row["user_id"]).user_id,
            Factor(row["factor"]),
            Lockout(
                failures=row["failures"],
                rung=row["rung"],
                blocked_until_ms=row["blocked_until_ms"],
                failed_at_ms=row["failed_at_ms"],
                off=bool(row["off"]),
            ),
        )

    def _add_token(self, row: Row) -> None:
        serial = TokenSerial(_text(row["serial"]))
        if token_tables.find_token(self._db, serial):
            raise _ConflictError(f"token {serial} exists in this cluster")
        seals = {int(key): _bytes(value) for key, value in row["fingerprints"]}
        if not all(each.key_id in seals for each in self._applying.keys.in_use):
            raise _StaleError
        other = fingerprint_tables.find_serial(self._db, seals.values())
        if other is not None:
            raise _ConflictError(
                f"token {other} of this cluster has the seed of token {serial}"
            )
        parameters = parameters_of(
            serial,
            algorithm=Algorithm(row["algorithm"]),
            hash_name=HashName(row["hash_name"]),
            digits=row["digits"],
            period_s=row["period_s"],
        )
        if problem := parameters_problem(parameters, 0):
            raise ValueError(problem)
        if row["pin_lettered"] and not self._applying.policy.pin_letters:
            raise _PolicyError(
                f"the PIN of token {serial} has letters: allow pin_letters"
            )
        token = Token(
            serial=serial,
            parameters=parameters,
            sealed_seed=_bytes(row["sealed_seed"]),
            key_id=self._key_id,
            pin_rule=PinRule(row["pin_rule"]),
            expires_at_ms=row["expires_at_ms"],
            enabled=bool(row["enabled"]),
            user_id=self._user(row["user_id"]).user_id,
            pin_verifier=_bytes(row["pin_verifier"]),
            pin_key_id=self._key_id,
            spent=Moment(row["spent"]),
            drift=row["drift"],
            lost=bool(row["lost"]),
            recovery=RecoveryPolicy(row["recovery"]),
            sealed_pin=_bytes(row["sealed_pin"]),
            out_of_step=bool(row["out_of_step"]),
            pin_lettered=bool(row["pin_lettered"]),
            maybe_spent=Moment(row["maybe_spent"]),
        )
        before = former_tables.spent_before(
            self._db,
            parameters,
            serial=serial,
            sealed_seed=token.sealed_seed,
            key_id=self._key_id,
            fingerprints=tuple(seals.values()),
        )
        token_tables.save_token(
            self._db, replace(token, spent=max(token.spent, before))
        )
        fingerprint_tables.save(self._db, serial, self._key_id, seals[self._key_id])
        self._tell("TOKEN_ARRIVED", serial)

    def _add_creator(self, row: Row) -> None:
        user, name = self._user(row["user_id"]), row["administrator"]
        if name in self._administrators:
            secret_tables.save_creator(self._db, user.user_id, name)

    def _add_secret(self, row: Row) -> None:
        serial, name = self._token(row["serial"]).serial, row["administrator"]
        secret = KnownSecret(row["secret"])
        if name in self._administrators and secret in secret_tables.ARRIVING:
            secret_tables.add(self._db, serial, name, secret)
        else:
            secret_tables.add_elsewhere(self._db, serial, secret)

    def _add_set(self, row: Row) -> None:
        if code_tables.has_set(self._db, row["set_id"]):
            raise _ConflictError("a set of codes exists in this cluster")
        token = self._token(row["serial"])
        codes = EmergencyCodeSet(
            set_id=row["set_id"],
            serial=token.serial,
            key_id=self._key_id,
            code_length=row["code_length"],
            issuer=row["issuer"],
            node_id=row["node_id"],
            issued_at_ms=row["issued_at_ms"],
            issued_index=row["issued_index"],
            ends_at_ms=row["ends_at_ms"],
            voided=bool(row["voided"]),
            fixed=bool(row["fixed"]),
        )
        code_tables.add_set(self._db, codes)
        if row["issued_elsewhere"] or codes.issuer not in self._administrators:
            secret_tables.add_set_elsewhere(self._db, codes.set_id)
        if row["untold"]:
            set_ends.follow_untold(self._applying, codes, token)

    def _add_codes(self, row: Row) -> None:
        known = code_tables.find_set(self._db, row["set_id"])
        if known is None:
            raise ValueError("codes without their set")
        token = self._token(known.serial)
        codes = tuple(_code(each) for each in row["codes"])
        code_tables.add_codes(self._db, known.set_id, codes)
        # For an end that has passed, `_add_set` knows whether the other cluster told it.
        arrived = replace(known, codes=known.codes + codes)
        if not arrived.expired(self._applying.now_ms, token.expires_at_ms):
            set_ends.follow(self._applying, arrived, token)
        if any(each.state is CodeState.LIVE for each in codes):
            self._check_live_codes(token)

    def _check_live_codes(self, token: Token) -> None:
        """
        Refuse live codes that the policy would not let an administrator issue (I6, T4).

        Changes of the policy trust that all live codes conform to it.
        """
        policy = self._applying.policy
        lengths = live_codes.lengths_of(self._db, token.serial, self._applying.now_ms)
        if others := lengths.keys() - {*policy.code_lengths}:
            raise _PolicyError(
                f"token {token.serial} has codes of length {min(others)}: add it to "
                "further_code_lengths"
            )
        problem = odds_problem(
            lengths,
            token.pin_rule,
            policy,
            f"token {token.serial} arrives with these live codes: lower "
            "factor_off_at_failures, or cancel the move",
            "factor_off_at_failures",
        )
        if problem is not None:
            raise _PolicyError(problem.detail)

    def _add_former(self, row: Row) -> None:
        # As of now: former codes are kept in the order of their times.
        self._db.execute(
            "INSERT INTO former_codes (user_id, serial, key_id, since_ms, tags) "
            "VALUES (?, ?, ?, ?, ?)",
            (
                self._user(row["user_id"]).user_id,
                _text(row["serial"]),
                self._key_id,
                self._applying.now_ms,
                _bytes(row["tags"]),
            ),
        )

    def _tell(self, action: str, target: str) -> None:
        self._applying.events.append(
            Event(
                action=action,
                serial=TokenSerial(target),
                outcome="applied",
                cause=f"move {getattr(self._applying.call.command, 'move_id', '')}",
            )
        )


class _StaleError(Exception):
    """The keys of the ring have changed since the rows were made."""


def import_rows(
    applying: Applying, rows: bytes, *, key_id: KeyId, ticket: MoveTicket
) -> int | Rejected:
    """Add the rows of one piece; return the number of users in it."""
    piece = _Import(applying, key_id, ticket)
    try:
        for kind, row in json.loads(rows):
            piece.add(kind, row)
    except _StaleError:
        return Rejected(Reason.STALE_PARAMETERS)
    except _ConflictError as error:
        return Rejected(Reason.MOVE_CONFLICT, str(error))
    except _PolicyError as error:
        return Rejected(Reason.MOVE_EXPORT, f"the policy refuses it: {error}")
    except (
        ArithmeticError,
        AttributeError,
        LookupError,
        RecursionError,
        TypeError,
        ValueError,
        sqlite3.IntegrityError,
        sqlite3.DataError,
        sqlite3.ProgrammingError,
        sqlite3.InterfaceError,
    ):
        return Rejected(
            Reason.MOVE_EXPORT, "a row of the export does not fit this release"
        )
    return piece.users


def delete_user(applying: Applying, user_id: UserId, *, with_history: bool) -> None:
    """
    Delete a user with their tokens and codes.

    *with_history*: what the tokens have spent is kept, in case they are enrolled again
    (K1), and so is the name (I10). A canceled import leaves nothing behind.
    """
    db = applying.db
    user = user_tables.find_user(db, user_id)
    if user is None:
        raise LookupError(user_id)
    for token in token_tables.find_tokens_of(db, user_id):
        if with_history:
            former_tables.remember_spent(db, token)
            # Former users of the token keep theirs; those of this user go with them.
            former_tables.keep_sets(db, token, tagged=True)
        token_tables.delete_token(db, token.serial)
        applying.events.append(_gone("TOKEN_GONE", token.serial))
    if with_history:
        known_secrets.forget_user(applying, user)
    names = administrator_tables.administrators_of(db, user_id)
    db.execute("UPDATE administrators SET user_id = NULL WHERE user_id = ?", (user_id,))
    user_tables.delete_user(db, user_id)
    words = f"; no longer linked to {', '.join(names)}" if names else ""
    applying.events.append(_gone("USER_GONE", user.name_key, words))


def _gone(action: str, target: str, words: str = "") -> Event:
    return Event(
        action=action,
        serial=TokenSerial(target),
        outcome="applied",
        cause=f"moved away{words}",
    )


def _code(row: list[Any]) -> EmergencyCode:
    ordinal, verifier, state, at_ms, agent, node_id, index = row
    return EmergencyCode(
        ordinal=ordinal,
        verifier=_bytes(verifier),
        state=CodeState(state),
        use=None
        if at_ms is None
        else Use(at_ms=at_ms, agent=agent, node_id=node_id, index=index),
    )


def _text(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError("an empty name")
    return value


def _bytes(value: str) -> bytes:
    return base64.b64decode(value, validate=True)
