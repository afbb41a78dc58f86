# SPDX-License-Identifier: Apache-2.0
"""What each notice to a person says, in English; the catalogues have the rest."""

import enum
from collections.abc import Mapping
from dataclasses import dataclass

from sparecode_node.domain.personal_notices import PersonalKind


def N_(message: str) -> str:  # noqa: N802 - The name that extraction knows.
    """Mark a constant as a text; it is translated where it is used."""
    return message


class Fact(enum.Enum):
    """What a letter names beside the time."""

    TOKEN = enum.auto()
    ACTOR = enum.auto()


FACTS: Mapping[Fact, str] = {
    Fact.TOKEN: N_("Token"),
    Fact.ACTOR: N_("By"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """The words of one kind of notice."""

    subject: str
    happened: str
    advice: str
    facts: tuple[Fact, ...] = (Fact.TOKEN, Fact.ACTOR)


WORDS: Mapping[PersonalKind, Words] = {
    PersonalKind.CODES_ISSUED: Words(
        subject=N_("Emergency codes were issued for you"),
        happened=N_(
            "New emergency codes were issued for your token. Each stands in for the "
            "token once."
        ),
        advice=N_(
            "Anyone who has such a code and your PIN can sign in as you. You need not "
            "do anything if you asked for them."
        ),
    ),
    PersonalKind.TEST: Words(
        subject=N_("A test of notices by mail"),
        happened=N_("An administrator tests whether mails arrive. Nothing happened."),
        advice=N_("You need not do anything."),
        facts=(Fact.ACTOR,),
    ),
}
