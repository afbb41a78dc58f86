# SPDX-License-Identifier: Apache-2.0
"""
Token files of SecurID (sdtid): a batch, with its keys under one password.

RSA has not published the format. This follows `stoken`, which reads and writes it,
byte by byte where a MAC depends on it. The header and every token have their own MAC;
without a right one they are refused. The signature in the trailer comes with its own
certificate, so it proves nothing and is ignored.
"""

import base64
import binascii
import hmac
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from xml.etree import ElementTree as ET

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC
from securid.sdtid import BATCH_MAC_IV, TOKEN_ENC_IV, TOKEN_MAC_IV
from securid.utils import aes_ecb_encrypt, xor_block

from sparecode_node.domain.pins import PinRule
from sparecode_node.domain.tokencodes import SECURID_SEED_BYTES, Algorithm, HashName
from sparecode_node.services.errors import InvalidFieldError
from sparecode_node.services.files import bounds
from sparecode_node.services.files.token_files import (
    ROWS_MAX,
    FileRow,
    FileToken,
    RowError,
    TokenFile,
    broken_row,
    date_ms,
    row_of,
)
from sparecode_node.services.files.xml_files import parsed

BLOCK_BYTES = 16
ROUNDS = 1000
HASHED_BYTES_MAX = 64 * 1024
SERIAL_DIGITS = 12
NUMBER_DIGITS_MAX = 9


def read_sdtid(file: TokenFile, *, now_ms: int) -> list[FileRow]:
    """
    Return every token of the file, in its order.

    Raises `InvalidFieldError` if the file as a whole cannot be read.
    """
    root = parsed(file.content)
    header = root.find("TKNHeader")
    if root.tag != "TKNBatch" or header is None:
        raise InvalidFieldError(
            "content", "not an sdtid file: no TKNBatch with a TKNHeader"
        )
    tokens = root.findall("TKN")
    bounds.file_rows(len(tokens), "tokens", "the file holds no TKN", at_most=ROWS_MAX)
    batch = _opened(header, tokens, file.password)
    return [
        _row(number, token, batch, file.default_pin_rule, now_ms)
        for number, token in enumerate(tokens, start=1)
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Batch:
    """The header, and the secret that it holds for all tokens."""

    defaults: Mapping[str, str]
    """The header's values, by name."""
    secret: bytes = field(repr=False)

    def key(self, purpose: str, name: str, iv: bytes) -> bytes:
        """Return the key for one purpose, of the batch or of a token in it."""
        return _mac(self.secret, iv, _padded(32, purpose, name))

    def value(self, token: ET.Element, name: str) -> str:
        """Return a token's value: its own, or the header's for all tokens."""
        for text in (
            token.findtext(name),
            self.defaults.get(f"Def{name}"),
            self.defaults.get(name),
        ):
            if text is not None:
                return text.strip()
        return ""

    def number(self, token: ET.Element, name: str, default: int) -> int:
        text = self.value(token, name)
        if not text:
            return default
        if not (text.isascii() and text.isdigit() and len(text) <= NUMBER_DIGITS_MAX):
            raise RowError(f"{name} is not a number")
        return int(text)

    def date(self, token: ET.Element, name: str) -> datetime | None:
        text = self.value(token, name)
        if not text:
            return None
        try:
            return datetime.strptime(text, "%Y/%m/%d").replace(tzinfo=UTC)
        except ValueError:
            raise RowError(f"{name} is not a date, as 2031/12/31") from None


def _opened(header: ET.Element, tokens: list[ET.Element], password: str) -> _Batch:
    """Return the batch. Raises `InvalidFieldError` if it does not open."""
    texts = {}
    for name in ("Origin", "Dest", "Name", "Secret", "HeaderMAC"):
        text = header.findtext(name)
        if text is None:
            raise InvalidFieldError("content", f"its TKNHeader holds no {name}")
        texts[name] = text.strip()
    try:
        sealed, mac = _block(texts["Secret"]), _block(texts["HeaderMAC"])
        hashed = _hashed(header)
    except RowError as error:
        raise InvalidFieldError("content", f"its TKNHeader: {error}") from None
    name = texts["Name"]
    # A batch without a password is encrypted under the name of its origin.
    key = _password_key(password or texts["Origin"], texts["Dest"], name)
    batch = _Batch(
        defaults=_values(header),
        secret=_decrypted(sealed, key, _padded(8, "Secret", name)),
    )
    if hmac.compare_digest(
        mac, _mac(batch.key("BatchMAC", name, BATCH_MAC_IV), BATCH_MAC_IV, hashed)
    ):
        return batch
    if any(_mac_problem(batch, token) == "" for token in tokens):
        raise InvalidFieldError(
            "content", "HeaderMAC does not match: the header was altered"
        )
    raise InvalidFieldError(
        "password",
        "does not open this file" if password else "the file is under a password",
    )


def _row(
    number: int,
    token: ET.Element,
    batch: _Batch,
    default_pin_rule: PinRule | None,
    now_ms: int,
) -> FileRow:
    """Read one token."""
    serial = (token.findtext("SN") or "").strip()
    try:
        return row_of(number, _token(serial, token, batch, default_pin_rule, now_ms))
    except RowError as error:
        return broken_row(number, serial, str(error))


def _token(
    serial: str,
    token: ET.Element,
    batch: _Batch,
    default_pin_rule: PinRule | None,
    now_ms: int,
) -> FileToken:
    """Return the token of an element. Raises `RowError` for unsupported tokens."""
    if not (serial.isascii() and serial.isdigit() and len(serial) <= SERIAL_DIGITS):
        raise RowError("SN must be a serial of at most 12 digits")
    problem = _mac_problem(batch, token)
    if problem:
        raise RowError(problem)
    if batch.number(token, "Alg", 0) != 1:
        raise RowError("Alg 0 is not supported; only 1 (AES, 128 bit) is")
    birth = batch.date(token, "Birth")
    if birth is not None and date_ms(birth) > now_ms:
        raise RowError(f"it must not be used before {birth.date().isoformat()}")
    death = batch.date(token, "Death")
    key = batch.key("TokenEncrypt", serial, TOKEN_ENC_IV)
    # The first character of a Seed has no meaning; all files have `=` there.
    sealed = _block((token.findtext("Seed") or "").strip()[1:])
    return FileToken(
        # Files of hardware tokens omit leading zeros, but the tokencode uses them.
        serial=serial.zfill(SERIAL_DIGITS),
        algorithm=Algorithm.SECURID,
        hash_name=HashName.SHA1,
        digits=batch.number(token, "Digits", 6),
        period_s=batch.number(token, "Interval", 60),
        counter=0,
        seed=_decrypted(sealed, key, _padded(8, serial, "Seed")),
        pin_rule=_pin_rule(token, batch, default_pin_rule),
        # The token works until the end of that day.
        expires_at_ms=None if death is None else date_ms(death + timedelta(days=1)),
    )


def _pin_rule(
    token: ET.Element, batch: _Batch, default_pin_rule: PinRule | None
) -> PinRule:
    """Return how PIN and tokencode make a passcode."""
    if batch.number(token, "AddPIN", 0):
        return PinRule.PINPAD
    if batch.number(token, "LocalPIN", 0):
        return PinRule.NONE  # The device checks the PIN; the node never sees it.
    if default_pin_rule is None:
        raise RowError("AddPIN is 0, and no default PIN rule is set")
    return default_pin_rule


def _mac_problem(batch: _Batch, token: ET.Element) -> str:
    """Return what is wrong with a token's MAC, in words. Empty: nothing."""
    serial = (token.findtext("SN") or "").strip()
    text = token.findtext("TokenMAC")
    if text is None:
        return "it has no TokenMAC"
    try:
        mac, hashed = _block(text.strip()), _hashed(token)
    except RowError as error:
        return str(error)
    key = batch.key("TokenMAC", serial, TOKEN_MAC_IV)
    if hmac.compare_digest(mac, _mac(key, TOKEN_MAC_IV, hashed)):
        return ""
    return "TokenMAC does not match: the token was altered"


def _password_key(password: str, salt: str, key: str) -> bytes:
    """Return the key of a password, after a thousand rounds."""
    made = bytes(BLOCK_BYTES)
    salted = _padded(32, password, salt)
    for number in range(ROUNDS):
        data = salted + number.to_bytes(BLOCK_BYTES)
        hashed = _mac(_padded(BLOCK_BYTES, key), bytes(BLOCK_BYTES), data)
        made = xor_block(made, hashed)
    return made


def _values(header: ET.Element) -> dict[str, str]:
    """Return the header's values; of several with one name, the first."""
    values: dict[str, str] = {}
    for child in header:
        values.setdefault(str(child.tag), child.text or "")
    return values


def _mac(key: bytes, iv: bytes, data: bytes) -> bytes:
    """Return the last block of AES in CBC mode: the format's MAC."""
    padded = data + bytes(-len(data) % BLOCK_BYTES)
    encryptor = Cipher(AES(key), CBC(iv)).encryptor()
    return (iv + encryptor.update(padded))[-BLOCK_BYTES:]


def _decrypted(sealed: bytes, key: bytes, mask: bytes) -> bytes:
    return xor_block(aes_ecb_encrypt(key, mask), sealed)


def _padded(size: int, *texts: str) -> bytes:
    """Return texts as C fields of *size* bytes: cut, or padded with zeros."""
    return b"".join(text.encode()[:size].ljust(size, b"\0") for text in texts)


def _block(text: str) -> bytes:
    """Return the 16 bytes of a base64 text."""
    try:
        block = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        block = b""
    if len(block) != SECURID_SEED_BYTES:
        raise RowError("a key or MAC is not 16 bytes in base64")
    return block


def _hashed(section: ET.Element) -> bytes:
    """
    Return the input of a section's MAC: its fields, one line each.

    Each line is padded by the bytes that the previous line left free in its block, a
    short line moves to the beginning of its block, and MACs are left out. There is no
    reason for this, but all implementations do it.
    """
    written = bytearray(HASHED_BYTES_MAX)
    end, padding = 0, 0
    for text, empty in _lines(section.tag, section):
        line = text.encode()
        size = len(line) + padding
        if end + size >= HASHED_BYTES_MAX:
            raise RowError("it is too long")
        if size <= BLOCK_BYTES and not empty:
            end -= end % BLOCK_BYTES
        written[end : end + size] = line + bytes(padding)
        end += size
        padding = end % BLOCK_BYTES or BLOCK_BYTES
    return bytes(written[:end])


def _lines(path: str, section: ET.Element) -> Iterator[tuple[str, bool]]:
    """Yield the lines of a section and its subsections, each with whether it is empty."""
    for child in section:
        name = str(child.tag)
        if name.endswith("MAC") and name != "MAC":
            continue
        if len(child):
            yield from _lines(f"{path}.{name}", child)
        elif child.text:
            yield f"{path}.{name} {child.text}\n", False
        else:
            yield f"{path}.{name} </{name}>\n", True
