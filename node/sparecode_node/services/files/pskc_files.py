# SPDX-License-Identifier: Apache-2.0
"""
Token files in the Portable Symmetric Key Container (RFC 6030).

The work of its key derivation is capped too. Every key is read from its own document,
so a bad key never affects the others (K4).
"""

import io
from collections.abc import Iterator
from datetime import datetime
from xml.etree import ElementTree as ET

from pskc import PSKC
from pskc.exceptions import PSKCError
from pskc.key import Key
from pskc.policy import Policy

from sparecode_node.domain.pins import PinRule
from sparecode_node.domain.tokencodes import Algorithm, HashName
from sparecode_node.services import fields
from sparecode_node.services.errors import InvalidFieldError
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
from sparecode_node.services.files.xml_files import local, parsed

ITERATIONS_MAX = 1_000_000
DERIVED_KEY_BYTES_MAX = 64

DIGITS_DEFAULT = 6
PERIOD_S_DEFAULT = 30

# The exceptions of python-pskc and dateutil for malformed values.
UNREADABLE = (
    PSKCError,
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    TypeError,
    ValueError,
)

HASHES = {
    "": HashName.SHA1,
    "SHA1": HashName.SHA1,
    "SHA256": HashName.SHA256,
    "SHA512": HashName.SHA512,
}
PIN_RULES = {
    Policy.PIN_USE_PREPEND: PinRule.PREPENDED,
    # The device checks its PIN itself; what it shows is the whole passcode.
    Policy.PIN_USE_LOCAL: PinRule.NONE,
}
_PIN_USAGE_WORDS = {
    Policy.PIN_USE_APPEND: "Sparecode expects the PIN before the tokencode",
    Policy.PIN_USE_ALGORITHMIC: "the file does not say by which algorithm; "
    "enroll the token as pinpad if the PIN is added to the tokencode, digit by digit",
}


def read_pskc(file: TokenFile, *, now_ms: int) -> list[FileRow]:
    """
    Return every key of the file, in its order.

    Raises `InvalidFieldError` if the file as a whole cannot be read. Slow if the file
    is encrypted under a password: call it in a thread.
    """
    header, keys = _split(file.content)
    secret = _file_key(header, password=file.password, key=file.key)
    rows = []
    for number, element in enumerate(keys, start=1):
        document = _document(header, element)
        rows.append(_row(number, document, secret, file.default_pin_rule, now_ms))
    return rows


def _split(content: bytes) -> tuple[ET.Element, list[ET.Element]]:
    """Return the container without its keys, and a package around each key."""
    root = parsed(content)
    if local(root) != "KeyContainer":
        raise InvalidFieldError(
            "content", "not a PSKC file: no KeyContainer (RFC 6030)"
        )
    header = ET.Element(root.tag, root.attrib)
    header.extend(
        child for child in root if local(child) not in {"KeyPackage", "Signature"}
    )
    packages = [child for child in root if local(child) == "KeyPackage"]
    keys = [package for whole in packages for package in _one_key_each(whole)]
    fields.file_rows(
        len(keys), "keys", "the file holds no KeyPackage", at_most=ROWS_MAX
    )
    return header, keys


def _one_key_each(package: ET.Element) -> Iterator[ET.Element]:
    """Split a package that holds several keys; one without a key stays a row."""
    keys = [child for child in package if local(child) == "Key"]
    if len(keys) <= 1:
        yield package
        return
    for key in keys:
        single = ET.Element(package.tag, package.attrib)
        single.extend(
            child for child in package if child is key or local(child) != "Key"
        )
        yield single


def _file_key(header: ET.Element, *, password: str, key: bytes) -> bytes | None:
    """Return the key that opens the file; None if the file is plain."""
    try:
        container = PSKC(io.BytesIO(ET.tostring(header)))
    except UNREADABLE as error:
        raise InvalidFieldError("content", _words(error)) from None
    if container.encryption.derivation.algorithm:
        container.encryption.key = _derived_key(container, password)
        at_fault = "password"
    elif any(local(child) == "EncryptionKey" for child in header):
        if any(local(element) == "X509Data" for element in header.iter()):
            raise InvalidFieldError(
                "content",
                "the file is encrypted to a certificate, which is not supported; "
                "ask for one under a password or a pre-shared key",
            )
        if not key:
            raise InvalidFieldError(
                "key", "the file is encrypted under a pre-shared key"
            )
        container.encryption.key = key
        at_fault = "key"
    else:
        return None
    if any(local(element) == "MACKey" for element in header.iter()):
        # The MAC's key is encrypted too, so a wrong password shows here, and not once
        # in every row.
        try:
            container.mac.key  # noqa: B018 - reading it decrypts it.
        except UNREADABLE:
            raise InvalidFieldError(at_fault, "does not open this file") from None
    return container.encryption.key


def _derived_key(container: PSKC, password: str) -> bytes:
    """Return the key that the file's derivation computes from *password*."""
    derivation = container.encryption.derivation
    if not password:
        raise InvalidFieldError("password", "the file is encrypted under a password")
    if (derivation.pbkdf2_iterations or 0) > ITERATIONS_MAX:
        raise InvalidFieldError(
            "content",
            f"its key derivation asks for {derivation.pbkdf2_iterations} "
            f"iterations; at most {ITERATIONS_MAX}",
        )
    if (derivation.pbkdf2_key_length or 0) > DERIVED_KEY_BYTES_MAX:
        raise InvalidFieldError("content", "its derived key is too long")
    try:
        return derivation.derive(password)
    except UNREADABLE as error:
        raise InvalidFieldError("content", _words(error)) from None


def _document(header: ET.Element, package: ET.Element) -> ET.Element:
    """Return a container with this one key."""
    document = ET.Element(header.tag, header.attrib)
    document.extend([*header, package])
    return document


def _row(
    number: int,
    document: ET.Element,
    secret: bytes | None,
    default_pin_rule: PinRule | None,
    now_ms: int,
) -> FileRow:
    """Read one key."""
    serial = ""
    try:
        container = PSKC(io.BytesIO(ET.tostring(document)))
        container.encryption.key = secret
        key = _only_key(container)
        serial = str(key.serial or key.id or "")
        _require_macs(document)
        token = _token(serial, key, default_pin_rule, now_ms)
    except (RowError, *UNREADABLE) as error:
        return broken_row(number, serial, _words(error))
    return row_of(number, token)


def _only_key(container: PSKC) -> Key:
    if not container.keys:
        raise RowError("the KeyPackage holds no Key")
    return container.keys[0]


def _token(
    serial: str, key: Key, default_pin_rule: PinRule | None, now_ms: int
) -> FileToken:
    """Return the token of a key. Raises `RowError` for unsupported keys."""
    if not serial:
        raise RowError("no serial: neither SerialNo nor the key's Id is set")
    algorithm = _algorithm(key)
    _require_otp(key, now_ms)
    # Reading a value decrypts it, and checks its MAC.
    seed = key.secret
    if not seed:
        raise RowError("no Secret")
    if key.time_offset:
        raise RowError(f"Time {key.time_offset} is not supported; only 0")
    if abs(key.time_drift or 0) > 1:
        raise RowError(f"TimeDrift {key.time_drift} is not supported; at most 1")
    if (key.response_encoding or "DECIMAL").upper() != "DECIMAL":
        raise RowError(f"ResponseFormat {key.response_encoding} is not supported")
    if key.response_check:
        raise RowError("check digits are not supported")
    totp = algorithm is Algorithm.TOTP
    return FileToken(
        serial=serial,
        algorithm=algorithm,
        hash_name=_hash_name(key),
        digits=key.response_length or DIGITS_DEFAULT,
        period_s=(key.time_interval or PERIOD_S_DEFAULT) if totp else 0,
        counter=0 if totp else key.counter or 0,
        seed=bytes(seed),
        pin_rule=_pin_rule(key, default_pin_rule),
        expires_at_ms=_earliest(key.expiry_date, key.policy.expiry_date),
    )


def _algorithm(key: Key) -> Algorithm:
    name = (key.algorithm or "").replace("#", ":").rpartition(":")[2].lower()
    try:
        return Algorithm(name)
    except ValueError:
        raise RowError(
            f"the algorithm {key.algorithm or '(none)'} is not supported; totp and "
            "hotp are"
        ) from None


def _hash_name(key: Key) -> HashName:
    suite = (key.algorithm_suite or "").upper().replace("-", "").removeprefix("HMAC")
    if suite not in HASHES:
        raise RowError(f"the Suite {key.algorithm_suite} is not supported")
    return HASHES[suite]


def _pin_rule(key: Key, default: PinRule | None) -> PinRule:
    usage = key.policy.pin_usage
    if not usage:
        if default is None:
            raise RowError("PINUsageMode is missing, and no default PIN rule is set")
        return default
    if usage not in PIN_RULES:
        raise RowError(
            f"PINUsageMode {usage} is not supported; {', '.join(PIN_RULES)} are; "
            f"{_PIN_USAGE_WORDS.get(usage, 'it is not one of RFC 6030')}"
        )
    return PIN_RULES[usage]


def _require_otp(key: Key, now_ms: int) -> None:
    """Refuse a key whose policy forbids this use, or requires something unsupported."""
    policy = key.policy
    if policy.unknown_policy_elements:
        raise RowError("its Policy holds an element that is not known")
    if policy.key_usage and Policy.KEY_USE_OTP not in policy.key_usage:
        raise RowError(f"its KeyUsage is {', '.join(policy.key_usage)}, not OTP")
    if policy.number_of_transactions is not None:
        raise RowError("NumberOfTransactions is not supported")
    for start in (key.start_date, policy.start_date):
        if start is not None and date_ms(start) > now_ms:
            raise RowError(f"it must not be used before {start.isoformat()}")


def _require_macs(document: ET.Element) -> None:
    """Refuse CBC without a MAC: changes would stay unnoticed (RFC 6030, 6.2)."""
    for element in document.iter():
        if local(element) == "MACMethod":
            continue
        children = {local(child): child for child in element}
        if "EncryptedValue" not in children or "ValueMAC" in children:
            continue
        for method in children["EncryptedValue"].iter():
            if method.get("Algorithm", "").endswith("-cbc"):
                raise RowError(f"{local(element)} is encrypted without a ValueMAC")


def _earliest(*dates: datetime | None) -> int | None:
    return min((date_ms(date) for date in dates if date is not None), default=None)


def _words(error: Exception) -> str:
    """Return the message of python-pskc. Other exceptions may quote a seed: hide them."""
    if isinstance(error, PSKCError | RowError):
        return str(error)
    return "a value is malformed"
