# SPDX-License-Identifier: Apache-2.0
"""Use cases: the authenticators (K). A seed goes in and never comes out."""

import asyncio
import functools
import uuid
from dataclasses import dataclass, replace

from sparecode_node.domain.ids import TokenSerial, UserId
from sparecode_node.domain.outcomes import Reason, Rejected
from sparecode_node.domain.pins import PinRule, pin_problem
from sparecode_node.domain.tokencodes import Algorithm, HashName
from sparecode_node.domain.users import fold
from sparecode_node.queries import policies, tokens
from sparecode_node.queries.state import LocalState, ReadTransaction
from sparecode_node.queries.tokens import TokenFilter
from sparecode_node.queries.views import Page, TokenView
from sparecode_node.replication.errors import OverloadedError
from sparecode_node.services import fields
from sparecode_node.services.ambient import Clock
from sparecode_node.services.authorization import Session
from sparecode_node.services.context import CallContext, Deadline, Read
from sparecode_node.services.errors import (
    InvalidFieldError,
    NotPermittedError,
    NotSignedInError,
    Refused,
)
from sparecode_node.services.kdf import Kdf, KdfInput, Lane, Secret
from sparecode_node.services.proposing import Proposer, applied
from sparecode_node.services.pskc_files import FileRow, FileToken, read_pskc
from sparecode_node.services.reading import Reader
from sparecode_node.services.sealing import FieldValue, Sealing
from sparecode_node.services.token_life import TokenLife
from sparecode_node.statemachine.commands import (
    AssignToken,
    EnrollToken,
    ReinstateToken,
    SetPin,
)
from sparecode_node.statemachine.results import Applied

ROWS_AT_ONCE = 32
"""So many rows of a file are proposed together, and share commits."""

NOT_OF_THE_ROW = frozenset(
    {Reason.REQUEST_ID_REUSED, Reason.REQUEST_TABLE_FULL, Reason.NOT_INITIALIZED}
)
"""Refusals that say nothing of the row: the import as a whole ends with them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportedRow:
    """What became of one key of a token file (K4)."""

    row: int
    """Its position in the file, from 1."""
    serial: str
    """Empty if it could not be read."""
    imported: bool
    problem: str = ""
    """Why not, in words."""
    reason: str = ""
    """Why not, as a `Reason`; empty when the row itself could not be read."""


class Tokens(TokenLife):
    """
    Manages tokens.

    Every method raises `InvalidFieldError`, `NotSignedInError`,
    `NotPermittedError`, `Refused` (`TOKEN_UNKNOWN` and the like) and
    `ProposeError`.
    """

    def __init__(
        self,
        *,
        proposer: Proposer,
        reader: Reader,
        state: LocalState,
        sealing: Sealing,
        kdf: Kdf,
        clock: Clock,
    ) -> None:
        super().__init__(proposer=proposer, state=state, sealing=sealing)
        self._reader = reader
        self._kdf = kdf
        self._clock = clock

    async def enroll(  # noqa: PLR0913 - one argument per field.
        self,
        context: CallContext,
        *,
        serial: str,
        algorithm: Algorithm,
        hash_name: HashName,
        digits: int,
        period_s: int,
        counter: int,
        seed: bytes,
        pin_rule: PinRule,
        expires_at_ms: int | None,
    ) -> Applied:
        """Add a token."""
        token = FileToken(
            serial=serial,
            algorithm=algorithm,
            hash_name=hash_name,
            digits=digits,
            period_s=period_s,
            counter=counter,
            seed=seed,
            pin_rule=pin_rule,
            expires_at_ms=expires_at_ms,
        )
        command = self._enrollment(token)
        return await self._proposer.change(context, command, _said(token))

    async def import_pskc(
        self,
        context: CallContext,
        *,
        content: bytes,
        password: str,
        key: bytes,
        default_pin_rule: PinRule | None,
    ) -> list[ImportedRow]:
        """
        Add the tokens of an RFC 6030 file; a result per key.

        A bad row never stops or half-applies the rest (K4). Raises
        `InvalidFieldError` on `content`, `password` or `key` when the file as a
        whole cannot be read; nothing was changed then. After any other
        exception a retry with the same request id goes on where it stopped.
        *default_pin_rule* is that of tokens whose file does not say; None: such
        a row is refused.
        """
        deadline = self._proposer.deadline(context)
        session = await self._proposer.begin(context, deadline)
        fields.secret("password", password, at_most=fields.PASSWORD_MAX)
        read = functools.partial(
            read_pskc,
            content,
            password=password,
            key=key,
            default_pin_rule=default_pin_rule,
            now_ms=self._clock.now_ms(),
        )
        try:
            async with asyncio.timeout(deadline.left_s()):
                rows = await asyncio.to_thread(read)
        except TimeoutError:
            raise OverloadedError("the file could not be read in time") from None
        first: dict[str, int] = {}
        for row in rows:
            first.setdefault(row.serial, row.row)
        imported: list[ImportedRow] = []
        for at in range(0, len(rows), ROWS_AT_ONCE):
            found = await asyncio.gather(
                *(
                    self._import(context, session, deadline, row, first[row.serial])
                    for row in rows[at : at + ROWS_AT_ONCE]
                ),
                return_exceptions=True,
            )
            for each in found:
                if isinstance(each, BaseException):
                    raise each
                imported.append(each)
        return imported

    async def get(
        self, context: CallContext, serial: str, *, stale_ok: bool = False
    ) -> Read[TokenView]:
        """Return one token."""
        key = fields.serial(serial)

        async def query(transaction: ReadTransaction, now_ms: int) -> TokenView:
            found = await tokens.get(transaction, key, now_ms=now_ms)
            if found is None:
                raise Refused(
                    Rejected(
                        Reason.TOKEN_UNKNOWN, f"there is no token {serial}", "serial"
                    )
                )
            return found

        return await self._reader.read(context, query, stale_ok=stale_ok)

    async def list(  # noqa: PLR0913 - one argument per field.
        self,
        context: CallContext,
        *,
        page_size: int = 0,
        page_token: str = "",
        serial_prefix: str = "",
        username: str = "",
        algorithm: Algorithm | None = None,
        enabled: bool | None = None,
        in_emergency_access: bool | None = None,
        search: str = "",
        stale_ok: bool = False,
    ) -> Read[Page[TokenView]]:
        """
        Return a page of tokens in the order of serials; all filters must hold.

        *search* is found anywhere in the serial, or in the user's names or e-mail.
        """
        size = fields.page_size(page_size)
        fields.text("search", search, at_most=fields.EMAIL_MAX)
        fields.text("serial_prefix", serial_prefix, at_most=fields.SERIAL_MAX)
        chosen = TokenFilter(
            serial_prefix=serial_prefix,
            name_key=fold(fields.username(username)) if username else None,
            algorithm=algorithm,
            enabled=enabled,
            in_emergency_access=in_emergency_access,
            search=fold(search),
        )

        async def query(transaction: ReadTransaction, now_ms: int) -> Page[TokenView]:
            return await tokens.page(
                transaction, chosen, size=size, page_token=page_token, now_ms=now_ms
            )

        return await self._reader.read(context, query, stale_ok=stale_ok)

    async def assign(
        self, context: CallContext, *, serial: str, username: str
    ) -> Applied:
        """Give a token to a user, who may have up to three."""
        command = AssignToken(
            serial=fields.serial(serial), name_key=fold(fields.username(username))
        )
        said = {"serial": serial, "username": username}
        return await self._proposer.change(context, command, said)

    async def set_pin(self, context: CallContext, *, serial: str, pin: str) -> Applied:
        """Set the PIN of an assigned token (K2)."""
        key = fields.serial(serial)
        deadline = self._proposer.deadline(context)
        session = await self._proposer.begin(context, deadline)

        async def prepare() -> SetPin:
            return await self._pin_setting(key, pin, deadline)

        said = {"serial": serial, "pin": pin}
        return applied(
            await self._proposer.settle(context, session, deadline, prepare, said)
        )

    async def reinstate(self, context: CallContext, *, serial: str) -> Applied:
        """Say that a lost token is its owner's again; its codes are void (R)."""
        command = ReinstateToken(serial=fields.serial(serial))
        return await self._proposer.change(context, command, {"serial": serial})

    def _enrollment(self, token: FileToken) -> EnrollToken:
        """Check a token's fields, and seal its seed."""
        serial = fields.serial(token.serial)
        fields.tokencode_form(
            token.algorithm,
            digits=token.digits,
            period_s=token.period_s,
            counter=token.counter,
        )
        if token.algorithm is Algorithm.SECURID:
            fields.securid(serial, token.seed)
        return EnrollToken(
            serial=serial,
            algorithm=token.algorithm,
            hash_name=token.hash_name,
            digits=token.digits,
            period_s=token.period_s,
            counter=token.counter,
            sealed_seed=self._sealing.seal_seed(serial, fields.seed(token.seed)),
            key_id=self._sealing.active_key,
            pin_rule=token.pin_rule,
            expires_at_ms=fields.time_ms("expire_time", token.expires_at_ms),
        )

    async def _import(
        self,
        context: CallContext,
        session: Session,
        deadline: Deadline,
        row: FileRow,
        first: int,
    ) -> ImportedRow:
        """Enroll the token of one row; *first*: the first row with its serial."""
        result = ImportedRow(row=row.row, serial=row.serial, imported=False)
        if row.token is None:
            return replace(result, problem=row.problem)
        if first != row.row:
            return replace(
                result,
                problem=f"row {first} of this file has the same serial",
                reason=Reason.TOKEN_EXISTS.value,
            )
        try:
            await self._proposer.propose(
                _of_row(context, row.row),
                session,
                deadline,
                self._enrollment(row.token),
                _said(row.token),
            )
        except InvalidFieldError as error:
            return replace(result, problem=str(error))
        except (NotSignedInError, NotPermittedError):
            raise
        except Refused as refused:
            reason, detail = refused.rejected.reason, refused.rejected.detail
            if reason in NOT_OF_THE_ROW:
                raise
            return replace(result, problem=detail, reason=reason.value)
        return replace(result, imported=True)

    async def _pin_setting(
        self, serial: TokenSerial, pin: str, deadline: Deadline
    ) -> SetPin:
        """Return the command, with the verifier for the token's user (T3)."""
        async with self._state.transaction() as transaction:
            policy = await policies.current(transaction)
            found = await tokens.find_with_user(transaction, serial)
        wrong = pin_problem(pin, policy)
        if wrong:
            raise InvalidFieldError("pin", wrong)
        user = found[1] if found else None
        if user is None:
            # Nobody's PIN: apply says why, or gives the answer of the first try.
            user_id, verifier = UserId(""), b""
        else:
            (hashed,) = await self._kdf.derive(
                [KdfInput(secret=Secret.PIN, salt=user.pin_salt, text=pin)],
                lane=Lane.ISSUING,
                timeout_s=deadline.left_s(),
            )
            user_id = user.user_id
            verifier = self._sealing.pin_verifier(hashed, user_id, serial)
        return SetPin(
            serial=serial,
            user_id=user_id,
            verifier=verifier,
            key_id=self._sealing.active_key,
            policy_version=policy.version,
        )


def _said(token: FileToken) -> dict[str, FieldValue]:
    """Return what the caller said of a token, for the request's tag (Q1)."""
    return {
        "serial": token.serial,
        "algorithm": token.algorithm.value,
        "hash": token.hash_name.value,
        "digits": token.digits,
        "period_seconds": token.period_s,
        "counter": token.counter,
        "seed": token.seed,
        "pin_rule": token.pin_rule.value,
        "expire_time": token.expires_at_ms,
    }


def _of_row(context: CallContext, row: int) -> CallContext:
    """
    Return the context of one row, with a request id of its own (Q1).

    A function of the file's, so that a retry of the import finds the answers of
    the rows that were decided, and goes on with the rest.
    """
    name = uuid.uuid5(uuid.UUID(context.request_id), f"row {row}")
    return replace(context, request_id=str(name))
