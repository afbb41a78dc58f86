# SPDX-License-Identifier: Apache-2.0
"""The ways in which a secret may be written down, for tests that look for secrets."""

import base64
import binascii
from collections.abc import Iterator


def forms(secret: str | bytes) -> Iterator[bytes]:
    """Return every way in which a secret may have been written down."""
    typed = {secret if isinstance(secret, bytes) else secret.encode()}
    if isinstance(secret, str) and secret.isalnum():
        half = (len(secret) + 1) // 2
        typed.add(f"{secret[:half]}-{secret[half:]}".encode())
        typed.add(f"{secret[:half]} {secret[half:]}".encode())
        typed.add(secret.lower().encode())
    for each in typed:
        yield each
        yield binascii.hexlify(each)
        yield binascii.hexlify(each).upper()
        yield each.decode("latin-1").encode("utf-16-le")
        for shift in range(3):  # Wherever in a longer text it begins.
            encoded = base64.b64encode(bytes(shift) + each)
            # What stands for its bits alone: six a character.
            whole = encoded[-(-8 * shift // 6) : 8 * (shift + len(each)) // 6]
            yield whole
            yield whole.translate(bytes.maketrans(b"+/", b"-_"))
