# SPDX-License-Identifier: Apache-2.0
"""One-time tokencodes: drawn without bias, and grouped for reading aloud (I5)."""

from sparecode_node.services.ambient import Entropy

GROUP = 4


def draw_codes(
    entropy: Entropy, *, alphabet: str, length: int, count: int
) -> tuple[str, ...]:
    """
    Return *count* distinct codes, each with a letter if the alphabet has one.

    What has no letter, or was drawn before, is drawn again: so every code that
    is left is as likely as every other.
    """
    lettered = any(symbol.isalpha() for symbol in alphabet)
    codes: dict[str, None] = {}
    while len(codes) < count:
        code = entropy.choices(alphabet, length)
        if not lettered or any(symbol.isalpha() for symbol in code):
            codes[code] = None
    return tuple(codes)


def grouped(code: str) -> str:
    """Return a code as it is shown: `K7PM-4XQ2`. Hyphens are not part of it."""
    groups = [code[at : at + GROUP] for at in range(0, len(code), GROUP)]
    return "-".join(groups)
