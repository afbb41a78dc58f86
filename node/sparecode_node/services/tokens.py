# SPDX-License-Identifier: Apache-2.0
"""Use cases: the authenticators (K). A seed goes in and never comes out."""

from dataclasses import dataclass

from sparecode_node.domain.pins import PinRule
from sparecode_node.domain.tokencodes import Algorithm, HashName
from sparecode_node.queries.views import Page, TokenView
from sparecode_node.services.ambient import Clock
from sparecode_node.services.context import CallContext, Read
from sparecode_node.services.kdf import Kdf
from sparecode_node.services.proposing import Proposer
from sparecode_node.services.reading import Reader
from sparecode_node.services.sealing import Sealing
from sparecode_node.statemachine.results import Applied


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


class Tokens:
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
        sealing: Sealing,
        kdf: Kdf,
        clock: Clock,
    ) -> None:
        self._proposer = proposer
        self._reader = reader
        self._sealing = sealing
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
        raise NotImplementedError

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
        raise NotImplementedError

    async def get(
        self, context: CallContext, serial: str, *, stale_ok: bool = False
    ) -> Read[TokenView]:
        """Return one token."""
        raise NotImplementedError

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
        stale_ok: bool = False,
    ) -> Read[Page[TokenView]]:
        """Return a page of tokens in the order of serials; all filters must hold."""
        raise NotImplementedError

    async def assign(
        self, context: CallContext, *, serial: str, username: str
    ) -> Applied:
        """Give a token to a user, who may have up to three."""
        raise NotImplementedError

    async def set_pin(self, context: CallContext, *, serial: str, pin: str) -> Applied:
        """Set the PIN of an assigned token (K2)."""
        raise NotImplementedError

    async def reinstate(self, context: CallContext, *, serial: str) -> Applied:
        """Say that a lost token is its owner's again; its codes are void (R)."""
        raise NotImplementedError
