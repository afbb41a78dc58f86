# SPDX-License-Identifier: Apache-2.0
"""Page tokens and prefixes, against SQLite itself."""

import sqlite3

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparecode_node.queries.pages import (
    PageTokenError,
    decode,
    encode,
    page,
    prefix_range,
)

KEYS = st.text(max_size=6)
EDGES = st.text(
    st.sampled_from("aA%_*?[\\'\0\u007f\ud7ff\ue000\uffff\U0010ffff"), max_size=3
)


@given(KEYS | EDGES)
def test_page_token_holds_the_key(key: str) -> None:
    assert decode(encode(key)) == key


@pytest.mark.parametrize(
    "token", ["!", "YQ==", "YR", "_w", "Y Q", "\u00e9", "A" * 5000]
)
def test_forged_page_token_is_refused(token: str) -> None:
    with pytest.raises(PageTokenError):
        decode(token)


@given(EDGES | KEYS, st.lists(EDGES | KEYS, max_size=8))
def test_prefix_is_a_range_of_the_index(prefix: str, keys: list[str]) -> None:
    """None of its characters is special to SQLite."""
    keys += [prefix, prefix + "a", prefix + "\U0010ffff" * 2, "z" + prefix]
    db = sqlite3.connect(":memory:")
    db.execute("CREATE TABLE names (name TEXT PRIMARY KEY)")
    db.executemany("INSERT OR IGNORE INTO names VALUES (?)", [(key,) for key in keys])
    rows = db.execute(
        "SELECT name FROM names WHERE name >= ? AND name < ?", prefix_range(prefix)
    )
    names = {name for (name,) in rows}
    db.close()
    assert names == {key for key in keys if key.startswith(prefix)}


def test_last_page_has_no_token() -> None:
    full, last = page("abc", 2, str), page("ab", 2, str)
    assert full.items == last.items == ("a", "b")
    assert decode(full.next_page_token) == "b"
    assert last.next_page_token == ""
    assert page("", 2, str).next_page_token == ""
