# SPDX-License-Identifier: Apache-2.0
"""
The form and bounds of every field of a request. Errors name the field.

Checks that depend on the state are the state machine's. A message never quotes the
value of a field that may be secret.
"""

import ipaddress
import re
import unicodedata
from collections.abc import Sequence
from email.headerregistry import Address

from babel import Locale, UnknownLocaleError

from sparecode_node.domain.addresses import host_of, in_one_spelling
from sparecode_node.domain.agents import GROUPS_MAX
from sparecode_node.domain.ids import (
    AgentIdentity,
    GroupKey,
    NodeId,
    RequestId,
    TokenSerial,
)
from sparecode_node.domain.passcodes import normalized
from sparecode_node.domain.radius import (
    ATTRIBUTE_MAX,
    NETWORKS_MAX,
    SESSION_TIMEOUT_MAX_S,
    TEXT_MAX,
)
from sparecode_node.domain.tokencodes import (
    SECURID_SEED_BYTES,
    SECURID_SERIAL,
    Algorithm,
)
from sparecode_node.domain.users import LANGUAGE_LENGTH_MAX, USERNAME_LENGTH_MAX, fold
from sparecode_node.replication.links.tls import NAME_SUFFIX
from sparecode_node.services.errors import InvalidFieldError

UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", re.ASCII)
SERIAL = re.compile(r"[A-Za-z0-9-]{1,64}", re.ASCII)
SERIAL_MAX = 64
HEX = re.compile(r"[0-9a-f]+", re.ASCII)
FINGERPRINT_DIGITS = 64
SERIAL_NUMBER_DIGITS_MAX = 40
"""20 octets (RFC 5280, 4.1.2.2)."""
NOT_ASCII = re.compile(r"[^\x00-\x7f]")
NODE_ID = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)
_LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
HOST = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(\.{_LABEL})*", re.ASCII)
EVERYWHERE = ("0.0.0.0", "[::]")  # noqa: S104 - refused below.
HOSTS_MAX = 16
DISPLAY_NAME_MAX = 256
EMAIL_MAX = 254
AGENT_NAME_MAX = 64
GROUP_NAME_MAX = 64
ALLOWED_AT_ONCE_MAX = 100
"""Users that one request may put on an allow list: it must fit in a log entry."""
NOTE_MAX = 256
IDENTITY_MAX = 256
ADMINISTRATOR_NAME_MAX = 128
PASSWORD_MAX = 1024
PASSCODE_MAX = 64
CHALLENGE_MAX = 4096
CLIENT_ADDRESS_MAX = 256
RESOURCE_MAX = 256
NETWORK_TEXT_MAX = 64
"""The longest spelling of an IPv6 network has 49 characters."""
_MAPPED_BITS = 96
"""The prefix of IPv6 addresses that stand for IPv4 ones (RFC 4291, 2.5.5.2)."""
ALPHABET_MAX = 64
LENGTHS_MAX = 64
"""The length of the text that lists code lengths; the policy bounds their number."""
SEED_BYTES_MIN, SEED_BYTES_MAX = 16, 64
DIGITS = (6, 8)
PERIODS_S = (30, 60)
COUNTER_MAX = 2**63 - 1
TIME_MAX_MS = 253_402_300_799_999
"""The end of the year 9999, the last of a protobuf timestamp."""
PAGE_SIZE_DEFAULT, PAGE_SIZE_MAX = 50, 500
PAGE_NUMBER_MAX = 10_000


def request_id(value: str) -> RequestId:
    """Return a request id in its canonical form."""
    if not UUID.fullmatch(value):
        raise InvalidFieldError(
            "request_id", "must be a UUID (8-4-4-4-12 hexadecimal digits)"
        )
    return RequestId(value.lower())


def serial(value: str, name: str = "serial") -> TokenSerial:
    """Return a token's serial."""
    if not SERIAL.fullmatch(value):
        raise InvalidFieldError(name, "must be 1 to 64 letters, digits and hyphens")
    return TokenSerial(value)


def node_id(name: str, value: str) -> NodeId:
    """Return a member's id."""
    if not NODE_ID.fullmatch(value):
        raise InvalidFieldError(
            name, "must be 1 to 63 lower-case letters, digits and inner hyphens"
        )
    return NodeId(value)


def address(name: str, value: str) -> str:
    """Return a node's address, HOST:PORT, in the spelling that is compared."""
    address = in_one_spelling(value)
    if address is None:
        raise InvalidFieldError(
            name, "must be HOST:PORT, the host a name or an address, IPv6 in brackets"
        )
    if host_of(address) in EVERYWHERE:
        raise InvalidFieldError(
            name,
            f"must be an address that others can reach; {host_of(address)} is only "
            "for listening",
        )
    return address


def host(name: str, value: str) -> str:
    """
    Return a name or an IP address that a member's certificate may be valid for.

    Members know each other by the names under `NAME_SUFFIX`, which are derived from
    their ids. A node that could request such a name could impersonate that member.
    """
    host_name = value.lower()
    if host_name.endswith(NAME_SUFFIX) or host_name == NAME_SUFFIX[1:]:
        raise InvalidFieldError(
            name,
            f"{host_name} is the internal name of a member and cannot be requested",
        )
    try:
        ipaddress.ip_address(host_name)
    except ValueError:
        if not HOST.fullmatch(host_name):
            raise InvalidFieldError(
                name, "must be host names or IP addresses"
            ) from None
    return host_name


def text(name: str, value: str, *, at_most: int, at_least: int = 0) -> str:
    """Return a line of text with *at_least* to *at_most* characters."""
    if not at_least <= len(value) <= at_most:
        bounds = f"at most {at_most}" if not at_least else f"{at_least} to {at_most}"
        if at_least == at_most:
            bounds = f"{at_most}"
        raise InvalidFieldError(
            name, f"must have {bounds} characters; has {len(value)}"
        )
    if not value.isprintable():
        raise InvalidFieldError(name, f"must not hold {_unprintable(value)}")
    if at_least and not value.strip():
        raise InvalidFieldError(name, "must not be blank")
    return value


_UNPRINTABLE = {
    "Cc": "control characters",
    "Cf": "invisible characters",
    "Zs": "spaces other than the ordinary one",
    "Zl": "line separators",
    "Zp": "paragraph separators",
    "Co": "characters for private use",
    "Cs": "half of a surrogate pair",
}
"""What characters that cannot be shown are, by their category in Unicode."""


def _unprintable(value: str) -> str:
    """Return in words what the first character is that cannot be shown."""
    character = next(each for each in value if not each.isprintable())
    words = _UNPRINTABLE.get(
        unicodedata.category(character), "characters that are not assigned in Unicode"
    )
    return f"{words} (U+{ord(character):04X})"


def username(value: str) -> str:
    """Return a username as it will be displayed."""
    return text("username", value, at_least=1, at_most=USERNAME_LENGTH_MAX)


def new_username(value: str) -> str:
    """Return the username of a new user. Users of release 0.1.0 may have spaces in it."""
    if any(character.isspace() for character in username(value).strip()):
        raise InvalidFieldError("username", "must not hold spaces")
    return value


def email(value: str, field: str = "email") -> str:
    """
    Return an e-mail address (RFC 5322, RFC 6532), or nothing.

    A quoted local part must be in ASCII: mail libraries quote another one twice.
    """
    text(field, value, at_most=EMAIL_MAX)
    # The parser knows no letters outside ASCII, which RFC 6532 allows wherever others are.
    plain = NOT_ASCII.sub("a", value)
    try:
        valid = not value or Address(addr_spec=plain).addr_spec == plain
    except Exception:  # noqa: BLE001 - The parser has bugs: `a@[@a` is an AttributeError.
        valid = False
    if not valid or ('"' in value and not value.isascii()):
        raise InvalidFieldError(field, "must be an e-mail address, as in a@example.com")
    return value


def language(value: str) -> str:
    """Return the tag of a language (BCP 47) as CLDR writes it, or nothing."""
    text("language", value, at_most=LANGUAGE_LENGTH_MAX)
    if not value:
        return value
    try:
        known = Locale.parse(value.strip(), sep="-")
    except (UnknownLocaleError, ValueError):
        known = None
    if known is None or known.modifier:
        raise InvalidFieldError(
            "language", "must be the tag of a language, such as de or pt-BR"
        )
    return str(known).replace("_", "-")


def secret(name: str, value: str, *, at_most: int) -> str:
    """Return a secret as it was typed; only its length is bounded."""
    if len(value) > at_most:
        raise InvalidFieldError(name, f"must have at most {at_most} characters")
    return value


def administrator(name: str, value: str) -> str:
    """Return an administrator's name as it was typed."""
    return text(name, value, at_least=1, at_most=ADMINISTRATOR_NAME_MAX)


def identity(value: str) -> AgentIdentity:
    """Return the subject name of an agent's certificate."""
    name = "certificate_identity"
    text(name, value, at_least=1, at_most=IDENTITY_MAX)
    if any(character.isspace() for character in value):
        raise InvalidFieldError(name, "must not hold spaces")
    return AgentIdentity(value)


def check_attributes(
    *,
    filter_id: str | None,
    class_attribute: str | None,
    session_timeout_s: int | None,
) -> None:
    """Check attributes of an Access-Accept. None: no change."""
    texts = {"filter_id": filter_id, "class_attribute": class_attribute}
    for name, value in texts.items():
        text(name, value or "", at_most=TEXT_MAX)
        if len((value or "").encode()) > ATTRIBUTE_MAX:
            raise InvalidFieldError(
                name, f"must fit into {ATTRIBUTE_MAX} octets of UTF-8"
            )
        if value and value != value.strip():
            raise InvalidFieldError(name, "must not begin or end with a blank")
    if not 0 <= (session_timeout_s or 0) <= SESSION_TIMEOUT_MAX_S:
        raise InvalidFieldError(
            "session_timeout", f"must be 0 to {SESSION_TIMEOUT_MAX_S} seconds"
        )


def networks(values: Sequence[str]) -> tuple[str, ...]:
    """Return the networks of a RADIUS client in one spelling, without duplicates."""
    if not 1 <= len(values) <= NETWORKS_MAX:
        raise InvalidFieldError(
            "networks", f"must have 1 to {NETWORKS_MAX} networks; has {len(values)}"
        )
    return tuple(sorted({_network(value) for value in values}))


def _network(value: str) -> str:
    """Return an IP network in its one spelling."""
    text("networks", value, at_most=NETWORK_TEXT_MAX)
    refused = InvalidFieldError(
        "networks",
        "must be IP addresses or networks such as 10.1.0.0/16, with no bit set after "
        "the prefix",
    )
    if "%" in value:  # Python keeps any text of a zone (RFC 4007), unchecked.
        raise refused
    try:
        network = ipaddress.ip_network(value)
    except ValueError:
        raise refused from None
    if isinstance(network, ipaddress.IPv6Network):
        mapped = network.network_address.ipv4_mapped
        if mapped is not None and network.prefixlen >= _MAPPED_BITS:
            # Packets arrive with IPv4 addresses, so it would never match.
            raise InvalidFieldError(
                "networks",
                f"must name IPv4 networks as such: {mapped}/"
                f"{network.prefixlen - _MAPPED_BITS}",
            )
    return str(network)


def fingerprint(value: str) -> str:
    """Return the SHA-256 of a certificate, in the form that is compared."""
    digits = _hex_digits(value)
    if len(digits) != FINGERPRINT_DIGITS:
        raise InvalidFieldError(
            "fingerprint", f"must be SHA-256: {FINGERPRINT_DIGITS} hexadecimal digits"
        )
    return digits


def serial_number(value: str) -> str:
    """Return a certificate's serial number, in the form that is compared."""
    digits = _hex_digits(value).lstrip("0")
    if not 1 <= len(digits) <= SERIAL_NUMBER_DIGITS_MAX:
        raise InvalidFieldError(
            "serial_number",
            f"must be 1 to {SERIAL_NUMBER_DIGITS_MAX} hexadecimal digits, not all 0",
        )
    return digits


def _hex_digits(value: str) -> str:
    """Return hexadecimal digits without separators. Empty: they are not hexadecimal."""
    digits = value.replace(":", "").replace(" ", "").lower().removeprefix("0x")
    return digits if HEX.fullmatch(digits) else ""


def seed(value: bytes) -> bytes:
    """Return a token's seed (RFC 4226, R6)."""
    if not SEED_BYTES_MIN <= len(value) <= SEED_BYTES_MAX:
        raise InvalidFieldError(
            "seed",
            f"must have {SEED_BYTES_MIN} to {SEED_BYTES_MAX} bytes; has {len(value)}",
        )
    return value


def challenge(value: bytes) -> bytes:
    """Return a challenge that an agent sends back."""
    if not 1 <= len(value) <= CHALLENGE_MAX:
        raise InvalidFieldError(
            "challenge", "must be the challenge of an earlier answer"
        )
    return value


def groups(name: str, values: Sequence[str]) -> tuple[GroupKey, ...]:
    """Return the folded names of groups."""
    if len(values) > GROUPS_MAX:
        raise InvalidFieldError(
            name, f"must have at most {GROUPS_MAX} names; has {len(values)}"
        )
    for value in values:
        text(name, value, at_least=1, at_most=GROUP_NAME_MAX)
    return tuple(GroupKey(fold(value)) for value in values)


def draft(value: bytes) -> bytes:
    """Return a draft that the caller sends back."""
    if not 1 <= len(value) <= CHALLENGE_MAX:
        raise InvalidFieldError(
            "draft", "must be the draft that enrolling has returned"
        )
    return value


def tokencode(name: str, value: str) -> str:
    """Return a tokencode as digits, without separators."""
    digits = normalized(value)
    if len(digits) not in DIGITS or not (digits.isascii() and digits.isdigit()):
        raise InvalidFieldError(name, "must be 6 or 8 digits, as the token shows them")
    return digits


def securid(serial: TokenSerial, seed: bytes) -> None:
    """Check the serial and the seed of a SecurID token."""
    if not SECURID_SERIAL.fullmatch(serial):
        raise InvalidFieldError("serial", "must be 12 digits for SecurID")
    if len(seed) != SECURID_SEED_BYTES:
        raise InvalidFieldError(
            "seed", f"must have {SECURID_SEED_BYTES} bytes for SecurID; has {len(seed)}"
        )


def tokencode_form(
    algorithm: Algorithm, *, digits: int, period_s: int, counter: int
) -> None:
    """Check the digits, period and counter of a token's tokencodes."""
    if digits not in DIGITS:
        raise InvalidFieldError("digits", f"must be 6 or 8; is {digits}")
    match algorithm:
        case Algorithm.TOTP | Algorithm.SECURID:
            kind = algorithm.upper()
            if period_s not in PERIODS_S:
                raise InvalidFieldError(
                    "period_seconds", f"must be 30 or 60 for {kind}; is {period_s}"
                )
            if counter:
                raise InvalidFieldError("counter", f"must be 0 for {kind}")
        case Algorithm.HOTP:
            if period_s:
                raise InvalidFieldError("period_seconds", "must be 0 for HOTP")
            if not 0 <= counter <= COUNTER_MAX:
                raise InvalidFieldError("counter", f"must be 0 to {COUNTER_MAX}")


def time_ms(name: str, value: int | None) -> int | None:
    """Return a time since the Unix epoch."""
    if value is not None and not 0 <= value <= TIME_MAX_MS:
        raise InvalidFieldError(name, "must be in the years 1970 to 9999")
    return value


def page_size(value: int) -> int:
    """Return the size of a page; 0 means the default."""
    if not 0 <= value <= PAGE_SIZE_MAX:
        raise InvalidFieldError(
            "page_size", f"must be 1 to {PAGE_SIZE_MAX} (0: {PAGE_SIZE_DEFAULT})"
        )
    return value or PAGE_SIZE_DEFAULT


def page_number(value: int) -> int:
    """Return the number of a page, from 1 on."""
    if not 1 <= value <= PAGE_NUMBER_MAX:
        raise InvalidFieldError("page", f"must be 1 to {PAGE_NUMBER_MAX}")
    return value
