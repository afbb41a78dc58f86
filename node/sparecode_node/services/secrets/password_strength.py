# SPDX-License-Identifier: Apache-2.0
"""
The strength of administrators' new passwords (P4, NIST SP 800-63B-4, 3.1.1).

A password that is the only factor has at least 15 characters. No password may be easy to
guess: zxcvbn estimates the guesses from lists of common passwords, words and names, and
from keyboard patterns, repetitions and dates. The called node checks it, because no
other node sees the password.
"""

import asyncio
import functools
import unicodedata
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from zxcvbn import zxcvbn

from sparecode_node.replication.errors import OverloadedError
from sparecode_node.services import fields
from sparecode_node.services.errors import InvalidFieldError

ALONE_MIN = 15
"""Characters of a password without a second factor."""
WITH_SECOND_FACTOR_MIN = 12
SCORE_MIN = 3
"""Of 0 to 4: more than 10^8 guesses, each of which costs an Argon2id hash offline."""
JUDGED_CHARACTERS = 24
"""
zxcvbn judges the beginning of a longer password: its work grows faster than linear.

Of symbols that look like letters, 24 take 0.1 s, and 72 took 3 s, with the interpreter's
lock held. Twenty-four characters are enough to pass.
"""
WAITING_MAX = 4
"""Passwords that are judged or wait for it. They are judged one at a time."""
OWN_WORDS = ("sparecode", "emergency", "administrator")


async def check_new_password(
    field: str, password: str, *, name: str, second_factor: bool
) -> None:
    """
    Check a new password of the administrator *name*.

    *second_factor*: whether sign-in will need a code as well. Raises
    `InvalidFieldError`, which never quotes the password, and `OverloadedError`.
    """
    least = WITH_SECOND_FACTOR_MIN if second_factor else ALONE_MIN
    fields.text(field, password, at_least=least, at_most=fields.PASSWORD_MAX)
    score = await _judge().score(password, (name, *OWN_WORDS))
    if score < SCORE_MIN:
        raise InvalidFieldError(
            field,
            "is too easy to guess: use several unrelated words, or let a password "
            "manager generate it",
        )


def normal_password(typed: str) -> str:
    """Return the password in the form that is hashed, equal for every keyboard (RFC 8265, 4)."""
    return unicodedata.normalize("NFKC", typed)


class _Judge:
    """
    Judges one password at a time, off the event loop.

    zxcvbn holds the interpreter's lock. Several judgements together would leave the event
    loop a small part of it.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="password-strength")
        self._waiting = 0

    async def score(self, password: str, own_words: Sequence[str]) -> int:
        """Return the score. Raises `OverloadedError` if too many passwords wait."""
        if self._waiting >= WAITING_MAX:
            raise OverloadedError("too many new passwords wait to be judged")
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(
                self._thread, _score, password, own_words
            )
        finally:
            self._waiting -= 1


@functools.cache
def _judge() -> _Judge:
    """Return the one judge of this process: they all share the interpreter's lock."""
    return _Judge()


def _score(password: str, own_words: Sequence[str]) -> int:
    # In the form that is hashed: otherwise full-width letters would hide a word.
    judged = normal_password(password)[:JUDGED_CHARACTERS]
    return int(zxcvbn(judged, user_inputs=list(own_words))["score"])
