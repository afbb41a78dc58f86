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
    """A TOTP token whose seed we know, since we made the file: it plays the real one."""

    serial: str
    generator: pyotp.TOTP
    _shown: int = field(default=-1, repr=False)

    def tokencode(self) -> str:
        """
        Return a tokencode that was not shown before.

        The token's clock may run one step ahead of the nodes' (K1), so nobody has
        to wait half a minute for the next one.
        """
        now = int(time.time()) // self.generator.interval
        self._shown = max(now, self._shown + 1)
        return self.generator.generate_otp(self._shown)


@dataclass(frozen=True)
class Person:
    """A user, with the token that the story gives them and the PIN they remember."""

    username: str
    display_name: str
    token: DemonstrationToken
    pin: str
    """Empty: the token is used without one (an authenticator app)."""


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
    """Return Alice, who has a SecurID-like token and a PIN, and Carol, who has an app."""
    tokens = read_tokens()
    return (
        Person("alice", "Alice Ash", tokens["000131415926"], pin="4711"),
        Person("carol", "Carol Cole", tokens["000314142135"], pin=""),
    )
