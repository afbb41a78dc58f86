# SPDX-License-Identifier: Apache-2.0
"""
The tokencodes of many moments at once: for windows of 100 steps and more.

`tokencodes` computes one tokencode with the libraries of its algorithm. Their calls cost
ten times the computation, so a wide window took 20 ms. Here a window takes less than
one, and can be searched for every user and passcode alike (A6). Tests compare both.
"""

import hmac
import re
from binascii import unhexlify
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from sparecode_node.domain.ids import Moment
from sparecode_node.domain.tokencodes import Algorithm, TokencodeParameters

CODES_PER_BLOCK = 4
"""One AES block of SecurID holds the codes of four consecutive steps."""
CODE_BYTES = 4

_DIGITS = re.compile("[0-9]+")


def tokencodes_at(
    seed: bytes, parameters: TokencodeParameters, moments: Sequence[Moment]
) -> dict[Moment, int]:
    """Return the tokencode of each moment, as a number without leading zeros."""
    if parameters.algorithm is Algorithm.SECURID:
        return dict(_securid(seed, parameters, moments))
    return dict(_hotp(seed, parameters, moments))


def matches(
    codes: dict[Moment, int], parameters: TokencodeParameters, digits: str
) -> tuple[Moment, ...]:
    """Return the moments at which *digits* is the tokencode, in their order."""
    if len(digits) != parameters.digits or not _DIGITS.fullmatch(digits):
        return ()
    number = int(digits)
    return tuple(moment for moment, code in codes.items() if code == number)


def _hotp(
    seed: bytes, parameters: TokencodeParameters, moments: Iterable[Moment]
) -> Iterator[tuple[Moment, int]]:
    """Yield moments with HOTP codes (RFC 4226, 5.3)."""
    modulus, name = 10**parameters.digits, parameters.hash_name.value
    for moment in moments:
        mac = hmac.digest(seed, moment.to_bytes(8), name)
        at = mac[-1] & 0x0F
        code = int.from_bytes(mac[at : at + CODE_BYTES]) & 0x7FFFFFFF
        yield moment, code % modulus


def _securid(
    seed: bytes, parameters: TokencodeParameters, moments: Sequence[Moment]
) -> Iterator[tuple[Moment, int]]:
    """
    Yield moments with SecurID codes.

    The key of an hour is derived from the seed by year, month, day and hour. Encrypting
    a time under it gives the codes of four steps.
    """
    modulus = 10**parameters.digits
    suffix = unhexlify(parameters.serial[4:]) + b"\xbb" * 4
    hours: dict[bytes, dict[int, bytes]] = {}
    for block in dict.fromkeys(moment // CODES_PER_BLOCK for moment in moments):
        begin_s = block * CODES_PER_BLOCK * parameters.period_s
        time = unhexlify(
            datetime.fromtimestamp(begin_s, tz=UTC).strftime("%Y%m%d%H%M0000")
        )
        hours.setdefault(time[:5], {})[block] = time + suffix
    encrypted: dict[int, bytes] = {}
    keys: dict[bytes, bytes] = {b"": seed}
    for hour, blocks in hours.items():
        for size, shorter in ((2, 0), (3, 2), (4, 3), (5, 4)):
            if hour[:size] not in keys:
                plain = hour[:size] + b"\xaa" * (8 - size) + suffix
                keys[hour[:size]] = _encrypted(keys[hour[:shorter]], plain)
        codes = _encrypted(keys[hour], b"".join(blocks.values()))
        for number, block in enumerate(blocks):
            encrypted[block] = codes[16 * number : 16 * (number + 1)]
    for moment in moments:
        at = CODE_BYTES * (moment % CODES_PER_BLOCK)
        code = encrypted[moment // CODES_PER_BLOCK][at : at + CODE_BYTES]
        yield moment, int.from_bytes(code) % modulus


def _encrypted(key: bytes, plain: bytes) -> bytes:
    # ECB of single blocks is how SecurID derives keys and codes.
    cipher = Cipher(algorithms.AES(key), modes.ECB())  # noqa: S305
    return cipher.encryptor().update(plain)
