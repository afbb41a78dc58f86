# SPDX-License-Identifier: Apache-2.0
"""A diff is applied exactly or refused."""

from pathlib import Path

import pytest

from tests.simulation.patches import PatchError, patched

BEFORE = "one\ntwo\nthree\n\ntwo\nfour\n"
DIFF = """Bug: two becomes 2

--- a/words.txt
+++ b/words.txt
@@ -{line},3 +{line},4 @@ class Words:
 two
-{old}
+{new}
+and more
"""


def apply(tree: Path, diff: str) -> str:
    (tree / "words.txt").write_text(BEFORE)
    (text,) = patched(diff, tree).values()
    return text


@pytest.mark.parametrize("line", [2, 1, 5, 40])
def test_the_only_match_is_replaced_wherever_it_moved(
    tmp_path: Path, line: int
) -> None:
    text = apply(tmp_path, DIFF.format(line=line, old="three", new="3"))
    assert text == "one\ntwo\n3\nand more\n\ntwo\nfour\n"


@pytest.mark.parametrize(
    ("line", "expected"),
    [(1, "one\n2\nthree\n\ntwo\nfour\n"), (6, "one\ntwo\nthree\n\n2\nfour\n")],
)
def test_the_nearest_of_several_matches_is_replaced(
    tmp_path: Path, line: int, expected: str
) -> None:
    diff = f"--- a/words.txt\n+++ b/words.txt\n@@ -{line} +{line} @@\n-two\n+2\n"
    assert apply(tmp_path, diff) == expected


def test_later_hunks_count_from_the_lines_of_the_old_file(tmp_path: Path) -> None:
    diff = (
        "--- a/words.txt\n+++ b/words.txt\n"
        "@@ -1 +1,3 @@\n one\n+a\n+b\n"
        "@@ -5 +7 @@\n-two\n+2\n"
    )
    assert apply(tmp_path, diff) == "one\na\nb\ntwo\nthree\n\n2\nfour\n"


@pytest.mark.parametrize(
    ("diff", "reason"),
    [
        (DIFF.format(line=2, old="Three", new="3"), "line 2 does not match"),
        ("--- a/words.txt\n+++ b/other.txt\n@@ -1 +1 @@\n-one\n+1\n", "renames"),
        ("--- a/gone.txt\n+++ b/gone.txt\n@@ -1 +1 @@\n-one\n+1\n", "no such file"),
        ("--- /dev/null\n+++ b/new.txt\n@@ -0,0 +1 @@\n+1\n", "names no file"),
        ("--- a/words.txt\n+++ b/words.txt\n", "no hunk"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path: Path, diff: str, reason: str) -> None:
    with pytest.raises(PatchError, match=reason):
        apply(tmp_path, diff)
    assert (tmp_path / "words.txt").read_text() == BEFORE
