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
