# SPDX-License-Identifier: Apache-2.0
"""
Previews: the mails of notices to people, written with example data.

They hold no data of anyone: the person, the token and the administrator are examples.
Only how to reach the help desk is that of the channel.
"""

from dataclasses import dataclass
from typing import Final

from sparecode_node.domain.audit import AuditEvent
from sparecode_node.domain.personal_kinds import KINDS_OF_USERS, PersonalKind
from sparecode_node.domain.personal_notices import PersonalNotice
from sparecode_node.queries import notices
from sparecode_node.queries.state import ReadTransaction
from sparecode_node.services import fields
from sparecode_node.services.context import CallContext, Read
from sparecode_node.services.errors import InvalidFieldError
from sparecode_node.services.notices.letter_words import WORDS, Fact
from sparecode_node.services.notices.letters import write_letter
from sparecode_node.services.reading import Reader

PERSON: Final = "Alex Example"
TOKEN: Final = "000123456789"
ACTOR: Final = "dora"
AGENT: Final = "vpn.example.com"
CONTACT: Final = "+1 555 0100"
"""Stands for how to reach the help desk where no channel says it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NoticePreview:
    """The mail of one kind of notice."""

    kind: PersonalKind
    language: str
    subject: str
    text: str
    html: str


class NoticePreviews:
    """Writes previews."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    async def write(
        self,
        context: CallContext,
        *,
        kind: str = "",
        language: str = "",
        to_manager: bool = False,
        stale_ok: bool = False,
    ) -> Read[tuple[NoticePreview, ...]]:
        """Return the mail of a kind of notice, or of all. Raises `InvalidFieldError`."""
        wanted = kind_of(kind)

        async def query(
            transaction: ReadTransaction, now_ms: int
        ) -> tuple[NoticePreview, ...]:
            known = await notices.channels(transaction)
            return previews(
                kind=wanted,
                language=language,
                to_manager=to_manager,
                contact=next((each.contact for each in known if each.contact), ""),
                now_ms=now_ms,
            )

        return await self._reader.read(context, query, stale_ok=stale_ok)


def kind_of(name: str) -> PersonalKind | None:
    """Return the kind of a name; None: no name. Raises `InvalidFieldError`."""
    if not name:
        return None
    if name not in set(PersonalKind):
        raise InvalidFieldError("kind", f"must be of {' '.join(PersonalKind)}")
    return PersonalKind(name)


def previews(
    *,
    kind: PersonalKind | None,
    language: str,
    to_manager: bool,
    contact: str,
    now_ms: int,
) -> tuple[NoticePreview, ...]:
    """Write the mail of a kind, or of all kinds. Raises `InvalidFieldError`."""
    fields.language(language)
    known = [*KINDS_OF_USERS] if to_manager else [*PersonalKind]
    if kind is not None and kind not in known:
        raise InvalidFieldError("kind", "must be one that managers can get")
    return tuple(
        _preview(
            each,
            language=language,
            to_manager=to_manager,
            contact=contact or CONTACT,
            now_ms=now_ms,
        )
        for each in ([kind] if kind else known)
    )


def _preview(
    kind: PersonalKind, *, language: str, to_manager: bool, contact: str, now_ms: int
) -> NoticePreview:
    facts = WORDS[kind].facts
    letter = write_letter(
        PersonalNotice(
            kind=kind,
            recipient="alex@example.com",
            person=PERSON,
            language=language,
            is_last=False,
            to_manager=to_manager,
        ),
        AuditEvent(
            sequence=0,
            at_ms=now_ms,
            actor=f"agent:{AGENT}" if Fact.AGENT in facts else f"administrator:{ACTOR}",
            node="",
            action="",
            target="lee" if Fact.ADMINISTRATOR in facts else TOKEN,
            outcome="",
            reason="",
            detail="",
        ),
        contact=contact,
    )
    return NoticePreview(
        kind=kind,
        language=letter.language,
        subject=letter.subject,
        text=letter.text,
        html=letter.html,
    )
