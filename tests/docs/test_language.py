# SPDX-License-Identifier: Apache-2.0
"""
Texts are plain English: phrases that a native reader has to translate are refused.

To list the places in some files or folders: python tests/docs/test_language.py PATH...
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

PHRASES = {
    "anew": "again",
    "anybody": "a caller, any user",
    "for ever": "forever",
    "of after": "later, after that",
    "of before": "earlier, previous",
    "of late": "recently",
    "nobody's": "not assigned, of no user",
    "somebody": "a caller, another user",
    "so many": "this many, the number of",
    "so much": "this much, the amount of",
    "take note": "record",
    "takes note": "records",
    "what is asked": "the request",
    "who asks": "the caller",
    "whoever": "the caller, anyone who",
    "whomever": "the caller, anyone whom",
}
"""Each phrase, and what to write instead. Letter case does not matter."""

EXACT = {
    '"""Have ': "Make ..., Let ..., or the verb itself",
    '"""Say ': "Return ..., Name ...",
    "Say whether": "Return whether",
    "Says whether": "Returns whether",
}
"""The same, with these letters."""

FOLDERS = ("client", "deploy", "docs", "examples", "node", "protos", "tests")
FILES = ("Makefile", "pyproject.toml", *(path.name for path in ROOT.glob("*.md")))
SUFFIXES = {
    *(".css", ".html", ".js", ".md", ".proto", ".py"),
    *(".service", ".timer", ".toml", ".yaml"),
}
NAMES = {"Makefile", "Dockerfile"}
GENERATED = re.compile(r"_pb2|\.min\.|__pycache__")

# Words may be apart by the end of a line, and the next line may begin as a comment.
GAP = r"(?:\s|#|//|<!--|> )+"


def _pattern(phrase: str) -> str:
    words = GAP.join(re.escape(word) for word in phrase.split())
    return rf"(?<!\w){words}" + ("" if phrase.endswith(" ") else r"(?!\w)")


PATTERNS = [
    *(
        (re.compile(_pattern(phrase), re.IGNORECASE), phrase, instead)
        for phrase, instead in PHRASES.items()
    ),
    *(
        (re.compile(_pattern(phrase)), phrase, instead)
        for phrase, instead in EXACT.items()
    ),
]


def texts(root: Path) -> Iterator[Path]:
    """Yield every file with text that a person wrote: one, or those in a folder."""
    for path in sorted(root.rglob("*")) if root.is_dir() else [root]:
        written = path.suffix in SUFFIXES or path.name in NAMES
        if GENERATED.search(path.as_posix()) or path == Path(__file__):
            continue
        if written and path.is_file():
            yield path


def matches(path: Path) -> list[str]:
    """Return each phrase of a file that is to be written in another way."""
    text = path.read_text()
    places = []
    for pattern, phrase, instead in PATTERNS:
        for match in pattern.finditer(text):
            line = text.count("\n", 0, match.start()) + 1
            where = path.relative_to(ROOT)
            places.append((line, f"{where}:{line}: {phrase.strip()} -> {instead}"))
    return [place for _, place in sorted(places)]


@pytest.mark.parametrize("root", [*FOLDERS, *FILES])
def test_texts_have_no_phrase_that_needs_two_readings(root: str) -> None:
    places = [place for path in texts(ROOT / root) for place in matches(path)]
    assert not places, "\n".join(places)


def test_phrases_are_seen_across_lines_and_in_comments(tmp_path: Path, monkeypatch):
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    page = tmp_path / "page.py"
    page.write_text('# It is kept for\n# ever.\n"""Say it."""\nreborn = "anew_1"\n')
    assert matches(page) == [
        "page.py:1: for ever -> forever",
        'page.py:3: """Say -> Return ..., Name ...',
    ]


def main(arguments: list[str]) -> int:
    """Print the places in these files and folders, or in all; return whether any."""
    roots = [Path(argument).resolve() for argument in arguments]
    roots = roots or [ROOT / each for each in (*FOLDERS, *FILES)]
    places = [
        place for root in roots for path in texts(root) for place in matches(path)
    ]
    print(*places, f"{len(places)} phrases to write in another way", sep="\n")
    return bool(places)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
