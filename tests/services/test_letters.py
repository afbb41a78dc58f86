# SPDX-License-Identifier: Apache-2.0
"""The texts of mails: complete, and every kind can be written (N6)."""

import pytest
from babel.messages.pofile import read_po

from sparecode_node.domain.audit import AuditEvent
from sparecode_node.domain.personal_kinds import PersonalKind
from sparecode_node.domain.personal_notices import PersonalNotice
from sparecode_node.services.notices import letters

EVENT = AuditEvent(
    sequence=7,
    at_ms=1_800_000_000_000,
    actor="administrator:ann",
    node="n1",
    action="SaveEmergencyAccess",
    target="000123456789",
    outcome="applied",
    reason="",
    detail="set 1: 10 codes",
)


def test_every_mail_is_complete_in_german():
    path = letters.CATALOGUES / "de" / "LC_MESSAGES" / "mail.po"
    with path.open("rb") as file:
        missing = [each.id for each in read_po(file, locale="de") if not each.string]
    assert missing == []


@pytest.mark.parametrize("kind", PersonalKind)
@pytest.mark.parametrize("language", ["en", "de"])
def test_every_kind_is_written_to_managers(kind, language):
    """(N6) Names are escaped, and the manager reads whom it is about."""
    personal = PersonalNotice(
        kind=kind,
        recipient="boss@example.com",
        person="<b>Ann</b>",
        language=language,
        is_last=False,
        to_manager=True,
    )
    letter = letters.write_letter(personal, EVENT, contact="Call <1>.")
    assert letter.text.count("<b>Ann</b>") == 3
    assert letter.html.count("&lt;b&gt;Ann&lt;/b&gt;") == 3
    assert "<b>Ann</b>" not in letter.html + letter.subject
    assert "\n\n\n" not in letter.text


@pytest.mark.parametrize("kind", PersonalKind)
@pytest.mark.parametrize("language", ["", "de", "ar"])
def test_every_kind_is_written_in_every_language(kind, language):
    """(N6) A language without a catalogue is written in English."""
    personal = PersonalNotice(
        kind=kind,
        recipient="a@example.com",
        person="<b>Ann</b>",
        language=language,
        is_last=True,
    )
    letter = letters.write_letter(personal, EVENT, contact="Call <1>.")
    english = letters.write_letter(
        PersonalNotice(
            kind=kind,
            recipient="a@example.com",
            person="<b>Ann</b>",
            language="en",
            is_last=True,
        ),
        EVENT,
        contact="Call <1>.",
    )
    assert (letter.subject == english.subject) == (language != "de")
    assert "<b>Ann</b>" in letter.text
    assert "&lt;b&gt;Ann&lt;/b&gt;" in letter.html
    assert "Call &lt;1&gt;." in letter.html
    assert letter.language == (language if language == "de" else "en")
    assert "\n\n\n" not in letter.text
