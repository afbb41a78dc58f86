# SPDX-License-Identifier: Apache-2.0
"""The messages for fields that are out of bounds."""

import pytest

from sparecode_node.services import fields
from sparecode_node.services.errors import InvalidFieldError


@pytest.mark.parametrize(
    ("at_least", "at_most", "words"),
    [
        (0, 3, "must have at most 3 characters; has 4"),
        (1, 3, "must have 1 to 3 characters; has 4"),
        (3, 3, "must have 3 characters; has 4"),
    ],
)
def test_bounds_of_a_text_are_named_in_words(at_least: int, at_most: int, words: str):
    with pytest.raises(InvalidFieldError) as refused:
        fields.text("name", "four", at_least=at_least, at_most=at_most)
    assert words in str(refused.value)


@pytest.mark.parametrize(
    ("character", "words"),
    [
        ("\x1b", "control characters (U+001B)"),
        ("\u00a0", "spaces other than the ordinary one (U+00A0)"),
        ("\u2028", "line separators (U+2028)"),
        ("\u200b", "invisible characters (U+200B)"),
        ("\u0378", "characters that are not assigned in Unicode (U+0378)"),
        ("\ue000", "characters for private use (U+E000)"),
        ("\ud800", "half of a surrogate pair (U+D800)"),
    ],
)
def test_a_character_that_cannot_be_shown_is_named(character: str, words: str) -> None:
    with pytest.raises(InvalidFieldError) as refused:
        fields.username(f"alice{character}smith")
    assert str(refused.value).endswith(f"must not hold {words}")
