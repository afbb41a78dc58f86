# SPDX-License-Identifier: Apache-2.0
"""Scripts of directives with recorded output, in the manner of cockroachdb/datadriven."""

import shlex
from collections.abc import Callable, Iterator
from pathlib import Path

Handler = Callable[[str, dict[str, str]], str]
SEPARATOR = "\n----"


def directives(path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield the directives of the script at *path*, with their arguments."""
    for block in path.read_text().strip().split("\n\n"):
        head, separator, _ = block.partition(SEPARATOR)
        if separator:
            yield directive_of(head)


def directive_of(head: str) -> tuple[str, dict[str, str]]:
    """Return the directive and the arguments in the first line of a block."""
    directive, *words = shlex.split(head)
    return directive, dict((*word.split("=", 1), "yes")[:2] for word in words)


def run_script(path: Path, handle: Handler, *, rewrite: bool) -> None:
    """
    Run every block of the script at *path* and compare, or rewrite, its output.

    A block is `directive key=value flag ...`, a line `----`, the output, and a blank
    line. A block without the line is a comment.
    """
    recorded = path.read_text()
    blocks = []
    for block in recorded.strip().split("\n\n"):
        head, separator, _ = block.partition(SEPARATOR)
        if not separator:
            blocks.append(block)
            continue
        directive, arguments = directive_of(head)
        blocks.append(f"{head}{SEPARATOR}\n{handle(directive, arguments)}")
    replayed = "\n\n".join(blocks) + "\n"
    if rewrite:
        path.write_text(replayed)
    else:
        assert replayed == recorded
