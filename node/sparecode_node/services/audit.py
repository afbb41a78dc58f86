# SPDX-License-Identifier: Apache-2.0
"""Use cases: the audit log, which everybody who may see it sees alike (U)."""

from sparecode_node.queries import audit
from sparecode_node.queries.audit import AuditFilter, AuditRecord
from sparecode_node.queries.state import ReadTransaction
from sparecode_node.queries.views import Page
from sparecode_node.services import fields
from sparecode_node.services.context import CallContext, Read
from sparecode_node.services.errors import InvalidFieldError
from sparecode_node.services.reading import Reader

WANTED_MAX = 512
"""Longer is no field of any event."""


class Audit:
    """
    Shows the audit log.

    Every method raises `InvalidFieldError`, `NotSignedInError`,
    `NotPermittedError` and `ProposeError`.
    """

    def __init__(self, *, reader: Reader) -> None:
        self._reader = reader

    async def list(
        self,
        context: CallContext,
        *,
        wanted: AuditFilter,
        from_sequence: int = 0,
        page_size: int = 0,
        page_token: str = "",
        stale_ok: bool = False,
    ) -> Read[Page[AuditRecord]]:
        """Return a page of events: the newest first, or from a sequence on."""
        size = fields.page_size(page_size)
        _check(wanted)
        if not 0 <= from_sequence <= audit.SEQUENCE_MAX:
            raise InvalidFieldError("from_sequence", "must not be negative")

        async def query(transaction: ReadTransaction, _: int) -> Page[AuditRecord]:
            return await audit.page(
                transaction,
                size=size,
                page_token=page_token,
                wanted=wanted,
                from_sequence=from_sequence,
            )

        return await self._reader.read(context, query, stale_ok=stale_ok)


def _check(wanted: AuditFilter) -> None:
    """Raise `InvalidFieldError` for what no event could be."""
    for name in ("actor", "action", "target", "outcome", "reason"):
        fields.text(f"filter.{name}", getattr(wanted, name), at_most=WANTED_MAX)
    if (
        wanted.start_ms is not None
        and wanted.end_ms is not None
        and wanted.end_ms <= wanted.start_ms
    ):
        raise InvalidFieldError("filter.end_time", "must be after start_time")
