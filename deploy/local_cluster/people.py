# SPDX-License-Identifier: Apache-2.0
"""The users of the story, and their tokens from the demonstration's token file."""

import hashlib
import time
from base64 import b32encode
from dataclasses import dataclass, field
from pathlib import Path

import pskc
import pyotp

TOKEN_FILE = Path(__file__).parents[2] / "tests" / "data" / "tokens.pskcxml"
TOKEN_FILE_PASSWORD = "for demonstration only"

_HASHES = {"SHA1": hashlib.sha1, "SHA256": hashlib.sha256, "SHA512": hashlib.sha512}


@dataclass
class DemonstrationToken:
    """A simulated TOTP token. Its seed is known, because the token file is in `tests`."""

    serial: str
    generator: pyotp.TOTP
    _shown: int = field(default=-1, repr=False)

    def tokencode(self) -> str:
        """
        Return a tokencode that it has not returned before.

        The token's clock may run one step ahead of the nodes (K1), so the next
        tokencode does not need a wait of half a minute.
        """
        now = int(time.time()) // self.generator.interval
        self._shown = max(now, self._shown + 1)
        return self.generator.generate_otp(self._shown)


@dataclass(frozen=True)
class Person:
    """A user of the story, with a token and a PIN."""

    username: str
    display_name: str
    token: DemonstrationToken
    pin: str
    """Empty: the token has no PIN, like an authenticator app."""


def read_tokens() -> dict[str, DemonstrationToken]:
    """Return the TOTP tokens of the demonstration's file by serial."""
    container = pskc.PSKC(str(TOKEN_FILE))
    container.encryption.derive_key(TOKEN_FILE_PASSWORD)
    return {
        key.serial: DemonstrationToken(
            key.serial,
            pyotp.TOTP(
                b32encode(key.secret).decode(),
                digits=key.response_length,
                digest=_HASHES[key.algorithm_suite],
                interval=int(key.time_interval),
            ),
        )
        for key in container.keys
        if key.algorithm.endswith(":totp")
    }


def people() -> tuple[Person, Person]:
    """Return Alice, who has a hardware token and a PIN, and Carol, who has an app."""
    tokens = read_tokens()
    return (
        Person("alice", "Alice Ash", tokens["000131415926"], pin="4719"),
        Person("carol", "Carol Cole", tokens["000314142135"], pin=""),
    )
