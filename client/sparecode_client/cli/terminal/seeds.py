# SPDX-License-Identifier: Apache-2.0
"""Seeds of tokens, as people type them."""

import base64
import binascii
import enum

from sparecode_client.cli.terminal.exit_codes import UsageError


class SeedFormat(enum.StrEnum):
    """Encoding of a seed."""

    BASE32 = "base32"
    HEX = "hex"


def read_seed(text: str, form: SeedFormat) -> bytes:
    """
    Return the bytes of a seed, which may be written in groups.

    Raises:
        UsageError: *text* is not in this encoding. The message does not repeat the seed.
    """
    text = "".join(text.split()).replace("-", "").upper()
    try:
        if form is SeedFormat.HEX:
            return bytes.fromhex(text)
        text = text.rstrip("=")
        return base64.b32decode(text + "=" * (-len(text) % 8))
    except (binascii.Error, ValueError) as error:
        raise UsageError(f"the seed is not {form.value}: see --seed-format") from error
