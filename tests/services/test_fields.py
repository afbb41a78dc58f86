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


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("10.1.0.1/24", "must be IP addresses or networks"),
        ("fe80::1%eth0", "must be IP addresses or networks"),
        ("fe80::%\x1b[31m/64", "control characters (U+001B)"),
        ("fe80::%a\nb/64", "control characters (U+000A)"),
        ("fe80::1%" + "a" * 64, "must have at most 64 characters"),
        ("::ffff:10.0.0.0/104", "must name IPv4 networks as such: 10.0.0.0/8"),
        ("::ffff:192.0.2.7", "must name IPv4 networks as such: 192.0.2.7/32"),
    ],
)
def test_a_network_that_would_not_match_is_refused(value: str, words: str) -> None:
    """(D1) Python accepts any text as the zone of an IPv6 address."""
    with pytest.raises(InvalidFieldError) as refused:
        fields.networks(["192.0.2.7", value])
    assert words in str(refused.value)


def test_networks_have_one_spelling() -> None:
    values = ["2001:DB8::0/64", "10.0.0.7", "10.0.0.7/32", "::/0"]
    assert fields.networks(values) == ("10.0.0.7/32", "2001:db8::/64", "::/0")


@pytest.mark.parametrize(
    "value", ["", "a@b.example", "jörg@é.example", '"a,x"@b.example']
)
def test_an_email_address_is_kept_as_it_is(value: str) -> None:
    assert fields.email(value) == value


@pytest.mark.parametrize(
    "value",
    [
        "a",
        "a@",
        "a,b@b.example",
        # An AttributeError of the parser.
        "+ü@[@a",
        # It would be quoted twice.
        '"é,x"@b.example',
    ],
)
def test_what_is_no_email_address_is_refused(value: str) -> None:
    with pytest.raises(InvalidFieldError) as refused:
        fields.email(value)
    assert "must be an e-mail address" in str(refused.value)


@pytest.mark.parametrize("name", ["filter_id", "class_attribute"])
@pytest.mark.parametrize("value", [" staff", "staff "])
def test_an_attribute_begins_and_ends_with_no_blank(name: str, value: str) -> None:
    """The console cuts such blanks: a value with one could not be kept there."""
    none = {"filter_id": None, "class_attribute": None, "session_timeout_s": None}
    fields.check_attributes(**{**none, name: value.strip()})
    with pytest.raises(InvalidFieldError, match="must not begin or end with a blank"):
        fields.check_attributes(**{**none, name: value})
