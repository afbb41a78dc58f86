# SPDX-License-Identifier: Apache-2.0
"""
Token files in the Portable Symmetric Key Container (RFC 6030).

The work of its key derivation is capped too. The header and each package are read once,
and every key in a container of its own, so a bad key never affects the others (K4).
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from xml.etree import ElementTree as ET

from pskc import PSKC
from pskc.device import Device
from pskc.exceptions import PSKCError
from pskc.key import Key
from pskc.parser import PSKCParser
from pskc.policy import Policy
from pskc.xml import remove_namespaces

from sparecode_node.domain.pins import PinRule
from sparecode_node.domain.tokencodes import Algorithm, HashName
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
from sparecode_node.services.files.xml_files import local, parsed

ITERATIONS_MAX = 1_000_000
DERIVED_KEY_BYTES_MAX = 64
VALUE_CHARACTERS_MAX = 4096

KEYS = ("Key", "Secret")
"""`Secret`: the name of a key in drafts of RFC 6030."""
NOT_OF_THE_HEADER = ("KeyPackage", "Device", "Signature")

NOT_OPENED = ("Invalid padding", "MAC value does not match")
"""What python-pskc says of a value that is altered, or that another key encrypted."""

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

    Raises `InvalidFieldError` if the file as a whole cannot be read. Takes seconds if
    the file is encrypted under a password.
    """
    header, packages = _split(file.content)
    container = _container(header)
    opened_by = _unlock(container, header, password=file.password, key=file.key)
    reader = _Reader(
        container=container,
        problem=_missing_mac(header),
        default_pin_rule=file.default_pin_rule,
        now_ms=now_ms,
    )
    sources = [source for package in packages for source in _sources(package)]
    bounds.file_rows(
        len(sources), "keys", "the file holds no KeyPackage", at_most=ROWS_MAX
    )
    rows = [
        reader.row(number, device, key)
        for number, (device, key) in enumerate(sources, start=1)
    ]
    if opened_by and all(row.problem in NOT_OPENED for row in rows):
        raise InvalidFieldError(
            opened_by, "does not open this file, or every value in it was altered"
        )
    return rows


@dataclass(frozen=True, slots=True)
class _Device:
    """What a package says about the device of its keys, or what is wrong with it."""

    device: Device
    problem: str = ""


def _split(content: bytes) -> tuple[ET.Element, list[ET.Element]]:
    """Return the container without its keys, and the packages of the keys."""
    root = parsed(content)
    if local(root) != "KeyContainer":
        raise InvalidFieldError(
            "content", "not a PSKC file: no KeyContainer (RFC 6030)"
        )
    remove_namespaces(root)
    header = ET.Element(root.tag, root.attrib)
    header.extend(child for child in root if child.tag not in NOT_OF_THE_HEADER)
    return header, root.findall("KeyPackage")


def _container(header: ET.Element) -> PSKC:
    """Return the library's container with what the header says."""
    container = PSKC()
    try:
        PSKCParser.parse_document(container, header)
    except UNREADABLE as error:
        raise InvalidFieldError("content", _words(error)) from None
    return container


def _sources(package: ET.Element) -> Iterator[tuple[_Device, ET.Element | None]]:
    """Yield each key of a package with its device; one without a key stays a row."""
    keys: list[ET.Element | None] = [*package.findall("Key")]
    device = _device(package)
    for key in keys or [package.find("Secret")]:
        yield device, key


def _device(package: ET.Element) -> _Device:
    info = ET.Element(package.tag, package.attrib)
    info.extend(child for child in package if child.tag not in KEYS)
    device = PSKC().add_device()
    try:
        _refuse_long_values(info)
        PSKCParser.parse_key_package(device, info)
    except (RowError, *UNREADABLE) as error:
        return _Device(device, _words(error))
    return _Device(device, _missing_mac(info))


def _unlock(container: PSKC, header: ET.Element, *, password: str, key: bytes) -> str:
    """
    Give the container the key that opens the file.

    Returns the field that it came from; a plain file has none, and needs none.
    """
    if container.encryption.derivation.algorithm:
        container.encryption.key = _derived_key(container, password)
        at_fault = "password"
    elif header.find("EncryptionKey") is not None:
        if header.find(".//X509Data") is not None:
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
        return ""
    if header.find(".//MACKey") is not None:
        # The MAC's key is encrypted too, so a wrong password shows here, except where
        # its wrong plaintext happens to end in valid padding: once in 256 files.
        # Keep what it decrypts to: every MAC needs it.
        try:
            container.mac.key = container.mac.key
        except UNREADABLE:
            raise InvalidFieldError(at_fault, "does not open this file") from None
    return at_fault


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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reader:
    """Reads one key after the other; none affects another (K4)."""

    container: PSKC
    problem: str
    """What is wrong with the header, if that affects every key."""
    default_pin_rule: PinRule | None
    now_ms: int

    def row(self, number: int, source: _Device, element: ET.Element | None) -> FileRow:
        """Read one key."""
        serial = ""
        try:
            key = self._key(source, element)
            serial = str(key.serial or key.id or "")
            self._require_macs(element)
            return row_of(
                number, _token(serial, key, self.default_pin_rule, self.now_ms)
            )
        except (RowError, *UNREADABLE) as error:
            return broken_row(number, serial, _words(error))

    def _key(self, source: _Device, element: ET.Element | None) -> Key:
        if source.problem:
            raise RowError(source.problem)
        if element is None:
            raise RowError("the KeyPackage holds no Key")
        _refuse_long_values(element)
        key = self._device(source.device).add_key()
        PSKCParser.parse_key(key, element)
        return key

    def _require_macs(self, element: ET.Element | None) -> None:
        problem = self.problem or ("" if element is None else _missing_mac(element))
        if problem:
            raise RowError(problem)

    def _device(self, device: Device) -> Device:
        """Return a copy of a device, in a copy of the container that is its own."""
        own, container = copy.copy(device), PSKC()
        own.pskc, own.keys = container, []
        container.encryption = copy.copy(self.container.encryption)
        container.mac = copy.copy(self.container.mac)
        container.encryption.pskc = container.mac.pskc = container
        return own


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


def _refuse_long_values(part: ET.Element) -> None:
    """Refuse what the library reads in quadratic time: long numbers and dates."""
    for element in part.iter():
        length = len(element.text or "")
        if length > VALUE_CHARACTERS_MAX:
            raise RowError(
                f"{element.tag} has {length} characters; at most {VALUE_CHARACTERS_MAX}"
            )


def _missing_mac(part: ET.Element) -> str:
    """Return a problem for CBC without a MAC: changes stay unnoticed (RFC 6030, 6.2)."""
    for element in part.iter():
        if element.tag == "MACMethod":
            continue
        encrypted = element.find("EncryptedValue")
        if encrypted is None or element.find("ValueMAC") is not None:
            continue
        for method in encrypted.iter():
            if method.get("Algorithm", "").endswith("-cbc"):
                return f"{element.tag} is encrypted without a ValueMAC"
    return ""


def _earliest(*dates: datetime | None) -> int | None:
    return min((date_ms(date) for date in dates if date is not None), default=None)


def _words(error: Exception) -> str:
    """Return the message of python-pskc. Other exceptions may quote a seed: hide them."""
    if isinstance(error, PSKCError | RowError):
        return str(error)
    return "a value is malformed"
