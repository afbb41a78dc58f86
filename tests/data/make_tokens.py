# SPDX-License-Identifier: Apache-2.0
"""
Makes `tokens.pskcxml`, the token file of the demonstration and of the tests.

    python tests/data/make_tokens.py

An RFC 6030 container as a token vendor delivers it: seeds encrypted under a
password (PBKDF2), each with a MAC. The seeds are for demonstration only; they
are derived from the serials, so that the file can be made again.
"""

import hashlib
from pathlib import Path
from typing import NamedTuple

import pskc
from pskc.policy import Policy

FILE = Path(__file__).with_name("tokens.pskcxml")
PASSWORD = "for demonstration only"


class Key(NamedTuple):
    """What the file says of one token."""

    serial: str
    algorithm: str
    suite: str
    digits: int
    interval_s: int | None
    pin_usage: str | None


KEYS = (
    Key("000131415926", "totp", "SHA1", 6, 30, Policy.PIN_USE_PREPEND),
    Key("000227182818", "totp", "SHA1", 6, 60, Policy.PIN_USE_PREPEND),
    Key("000314142135", "totp", "SHA256", 8, 30, None),
    Key("000457721566", "hotp", "SHA1", 6, None, Policy.PIN_USE_PREPEND),
    Key("000516180339", "totp", "SHA512", 8, 60, Policy.PIN_USE_PREPEND),
)


def seed_of(serial: str) -> bytes:
    """Return the demonstration seed of a token: 20 bytes, as RFC 4226 recommends."""
    return hashlib.sha256(f"sparecode demonstration {serial}".encode()).digest()[:20]


def make(path: Path) -> None:
    """Write the container."""
    container = pskc.PSKC()
    for key in KEYS:
        added = container.add_key(
            id=key.serial,
            serial=key.serial,
            manufacturer="Sparecode demonstration",
            issuer="Sparecode demonstration",
            algorithm=f"urn:ietf:params:xml:ns:keyprov:pskc:{key.algorithm}",
            algorithm_suite=key.suite,
            response_encoding="DECIMAL",
            response_length=key.digits,
            secret=seed_of(key.serial),
        )
        if key.interval_s is None:
            added.counter = 0
        else:
            added.time_interval = key.interval_s
            added.time_offset = 0
        if key.pin_usage:
            added.policy.pin_usage = key.pin_usage
    container.encryption.setup_pbkdf2(PASSWORD, iterations=100_000)
    container.write(str(path))


if __name__ == "__main__":
    make(FILE)
