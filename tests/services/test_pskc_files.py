# SPDX-License-Identifier: Apache-2.0
"""PSKC files: accepted forms, and refusals that name the cause (K4)."""

import io
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pskc
import pytest
from pskc.exceptions import DecryptionError

from sparecode_node.domain.pins import PinRule
from sparecode_node.domain.tokencodes import Algorithm, HashName
from sparecode_node.services.errors import InvalidFieldError
from sparecode_node.services.files import token_files
from sparecode_node.services.files.pskc_files import read_pskc
from sparecode_node.services.files.token_files import (
    FileRow,
    TokenFile,
    TokenFileFormat,
)

EXAMPLES = Path(__file__).parents[1] / "data" / "rfc6030"
PROFILE = "urn:ietf:params:xml:ns:keyprov:pskc:"
SEED = b"a seed of twenty byt"
PRE_SHARED = bytes(range(16))
NOW_MS = 1_700_000_000_000


def container(**fields: Any) -> pskc.PSKC:
    """Return a container with one TOTP token."""
    made = pskc.PSKC()
    add(made, **fields)
    return made


def add(made: pskc.PSKC, **fields: Any) -> Any:
    """Add a token to a container."""
    return made.add_key(
        **{
            "id": "1",
            "serial": "1",
            "algorithm": PROFILE + "totp",
            "response_encoding": "DECIMAL",
            "response_length": 6,
            "time_interval": 30,
            "secret": SEED,
            **fields,
        }
    )


def text(made: pskc.PSKC) -> bytes:
    """Return a container's XML."""
    file = io.BytesIO()
    made.write(file)
    return file.getvalue()


def read(
    content: bytes,
    *,
    password: str = "",
    key: bytes = b"",
    default_pin_rule: PinRule | None = PinRule.NONE,
) -> list[FileRow]:
    file = TokenFile(
        format=TokenFileFormat.PSKC,
        content=content,
        password=password,
        key=key,
        default_pin_rule=default_pin_rule,
    )
    return read_pskc(file, now_ms=NOW_MS)


def problem(**fields: Any) -> str:
    """Return the problem reported for a file of one token."""
    (row,) = read(text(container(**fields)))
    assert row.token is None
    return row.problem


def test_plain_file_is_read() -> None:
    """(K4)."""
    made = container()
    add(
        made,
        id="2",
        serial=None,
        algorithm=PROFILE + "hotp",
        algorithm_suite="HMAC-SHA256",
        response_length=8,
        time_interval=None,
        counter=7,
        policy__pin_usage="Prepend",
        expiry_date=datetime(2030, 1, 1, tzinfo=UTC),
        policy__expiry_date=datetime(2029, 1, 1, tzinfo=UTC),
    )
    first, second = read(text(made))
    assert first.token is not None
    assert second.token is not None
    assert (first.row, first.serial, first.problem) == (1, "1", "")
    assert first.token.seed == SEED
    assert first.token.algorithm is Algorithm.TOTP
    assert first.token.hash_name is HashName.SHA1
    assert (first.token.digits, first.token.period_s, first.token.counter) == (6, 30, 0)
    assert first.token.pin_rule is PinRule.NONE
    assert first.token.expires_at_ms is None
    assert (second.row, second.serial) == (2, "2")
    assert second.token.algorithm is Algorithm.HOTP
    assert second.token.hash_name is HashName.SHA256
    assert (second.token.digits, second.token.period_s) == (8, 0)
    assert second.token.counter == 7
    assert second.token.pin_rule is PinRule.PREPENDED
    assert second.token.expires_at_ms == 1_861_920_000_000
    assert repr(SEED) not in repr(first)


@pytest.mark.parametrize(
    ("figure", "credentials"),
    [
        (3, {}),
        (6, {"key": bytes.fromhex("12345678901234567890123456789012")}),
        (7, {"password": "qwerty"}),
    ],
)
def test_example_of_rfc_6030_is_read(figure: int, credentials: dict[str, Any]) -> None:
    """Figures 3 (plain), 6 (pre-shared key) and 7 (password), MACs included (K4)."""
    (row,) = read((EXAMPLES / f"figure-{figure}.pskcxml").read_bytes(), **credentials)
    assert row.token is not None
    assert (row.serial, row.token.algorithm) == ("987654321", Algorithm.HOTP)
    assert (row.token.digits, row.token.counter) == (8, 0)
    assert row.token.seed == b"12345678901234567890"


@pytest.mark.parametrize(
    ("figure", "credentials"),
    [(6, {"key": bytes(16)}), (7, {"password": "qwertz"})],
)
def test_example_of_rfc_6030_does_not_open_with_another_key(
    figure: int, credentials: dict[str, Any]
) -> None:
    """(K4) Nor is anything read from it."""
    with pytest.raises(InvalidFieldError, match="does not open") as raised:
        read((EXAMPLES / f"figure-{figure}.pskcxml").read_bytes(), **credentials)
    assert raised.value.field in credentials


def test_file_for_a_certificate_is_refused_by_name() -> None:
    """(K4) Figure 8 of RFC 6030: no key that an administrator has would open it."""
    with pytest.raises(InvalidFieldError, match="encrypted to a certificate") as raised:
        read((EXAMPLES / "figure-8.pskcxml").read_bytes(), key=PRE_SHARED)
    assert raised.value.field == "content"


def test_file_under_a_password_is_read() -> None:
    made = container()
    made.encryption.setup_pbkdf2("the password", iterations=10)
    content = text(made)
    assert b"PlainValue>MSB" not in content
    (row,) = read(content, password="the password")
    assert row.token is not None
    assert row.token.seed == SEED


def test_file_under_a_pre_shared_key_is_read() -> None:
    made = container()
    made.encryption.setup_preshared_key(key=PRE_SHARED)
    (row,) = read(text(made), key=PRE_SHARED)
    assert row.token is not None
    assert row.token.seed == SEED


@pytest.mark.parametrize(
    ("credentials", "field", "says"),
    [
        ({}, "password", "encrypted under a password"),
        ({"key": PRE_SHARED}, "password", "encrypted under a password"),
        ({"password": "another"}, "password", "does not open"),
    ],
)
def test_missing_password_is_named(
    credentials: dict[str, Any], field: str, says: str
) -> None:
    made = container()
    made.encryption.setup_pbkdf2("the password", iterations=10)
    content = text(made)
    with pytest.raises(InvalidFieldError, match=says) as raised:
        read(content, **credentials)
    assert raised.value.field == field


@pytest.mark.parametrize("key", [b"", bytes(16), bytes(5)])
def test_missing_key_is_named(key: bytes) -> None:
    made = container()
    made.encryption.setup_preshared_key(key=PRE_SHARED)
    with pytest.raises(InvalidFieldError) as raised:
        read(text(made), key=key)
    assert raised.value.field == "key"


def test_wrong_key_that_meets_valid_padding_is_named() -> None:
    """The wrong key opens the MAC's key to nonsense in one of 256 files."""
    wrong = bytes(16)
    for _ in range(10_000):
        made = container()
        made.encryption.setup_preshared_key(key=PRE_SHARED)
        content = text(made)
        if opens_mac_key(content, wrong):
            break
    with pytest.raises(InvalidFieldError, match="does not open") as raised:
        read(content, key=wrong)
    assert raised.value.field == "key"


def opens_mac_key(content: bytes, key: bytes) -> bool:
    """Tell whether a key decrypts something that ends in valid padding."""
    opened = pskc.PSKC(io.BytesIO(content))
    opened.encryption.key = key
    try:
        return bool(opened.mac.key)
    except DecryptionError:
        return False


def test_altered_value_is_found_by_its_mac_and_the_rest_is_read() -> None:
    """(K4)."""
    made = container()
    add(made, id="2", serial="2")
    made.encryption.setup_preshared_key(key=PRE_SHARED)
    content = text(made)
    macs = re.findall(rb"<pskc:ValueMAC>(.*?)</pskc:ValueMAC>", content)
    altered = content.replace(macs[0], macs[1])
    first, second = read(altered, key=PRE_SHARED)
    assert (first.serial, first.problem) == ("1", "MAC value does not match")
    assert second.token is not None


def test_encryption_without_a_mac_is_refused() -> None:
    """RFC 6030, 6.2: CBC alone does not reveal changes."""
    made = container()
    made.encryption.setup_preshared_key(key=PRE_SHARED)
    content = re.sub(rb"<pskc:ValueMAC>.*?</pskc:ValueMAC>", b"", text(made))
    (row,) = read(content, key=PRE_SHARED)
    assert row.problem == "Secret is encrypted without a ValueMAC"


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"algorithm": PROFILE + "ocra"}, "pskc:ocra is not supported"),
        ({"algorithm": None}, "algorithm (none) is not supported"),
        ({"algorithm_suite": "MD5"}, "Suite MD5"),
        ({"response_encoding": "HEXADECIMAL"}, "ResponseFormat HEXADECIMAL"),
        ({"response_check": True}, "check digits"),
        ({"secret": None}, "no Secret"),
        ({"serial": None, "id": None}, "no serial"),
        ({"time_offset": 5}, "Time 5"),
        ({"time_drift": -2}, "TimeDrift -2"),
        (
            {"policy__pin_usage": "Append"},
            "PINUsageMode Append is not supported; Prepend, Local are; Sparecode expects",
        ),
        ({"policy__pin_usage": "Algorithmic"}, "not say by which algorithm"),
        ({"policy__pin_usage": "Sideways"}, "it is not one of RFC 6030"),
        ({"policy__number_of_transactions": 3}, "NumberOfTransactions"),
        (
            {"policy__start_date": datetime(2099, 1, 1, tzinfo=UTC)},
            "before 2099-01-01",
        ),
    ],
)
def test_unsupported_form_is_refused_by_name(fields: dict[str, Any], says: str) -> None:
    assert says in problem(**fields)


def test_key_for_another_use_is_refused() -> None:
    made = container()
    made.keys[0].policy.key_usage = ["CR", "Integrity"]
    (row,) = read(text(made))
    assert row.problem == "its KeyUsage is CR, Integrity, not OTP"


def test_answer_does_not_repeat_a_whole_file() -> None:
    (row,) = read(text(container(serial="9" * 4_000, algorithm="x" * 10_000)))
    assert len(row.serial) == len(row.problem) == 256


def test_local_pin_is_the_device_s_business() -> None:
    (row,) = read(text(container(policy__pin_usage="Local")), default_pin_rule=None)
    assert row.token is not None
    assert row.token.pin_rule is PinRule.NONE


def test_pin_rule_is_needed() -> None:
    (row,) = read(text(container()), default_pin_rule=None)
    assert "no default PIN rule" in row.problem


def test_malformed_row_never_stops_the_rest() -> None:
    """(K4) The message does not quote the value: it may be a seed."""
    made = container()
    add(made, id="2", serial="2", time_interval=60)
    add(made, id="3", serial="3")
    content = text(made).replace(b">60<", b">c2VlZA<")
    first, second, third = read(content)
    assert first.token is not None
    assert second.problem == "a value is malformed"
    assert third.token is not None


def test_keys_of_one_package_are_rows() -> None:
    made = container()
    key = made.devices[0].add_key()
    key.id = "other"
    key.algorithm = PROFILE + "hotp"
    key.secret = SEED
    key.response_length = 8
    first, second = read(text(made))
    assert first.token is not None
    assert second.token is not None
    assert first.token.algorithm is Algorithm.TOTP
    assert second.token.algorithm is Algorithm.HOTP
    assert second.row == 2


def test_package_without_a_key_is_a_row() -> None:
    content = re.sub(rb"(?s)<pskc:Key .*</pskc:Key>", b"", text(container()))
    (row,) = read(content)
    assert row.problem == "the KeyPackage holds no Key"


BOMB = b"""<?xml version="1.0"?>
<!DOCTYPE KeyContainer [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">]>
<KeyContainer Version="1.0" xmlns="urn:ietf:params:xml:ns:keyprov:pskc"><KeyPackage>
<DeviceInfo><SerialNo>&b;</SerialNo></DeviceInfo></KeyPackage></KeyContainer>"""
EXTERNAL = BOMB.replace(
    b'<!ENTITY a "aaaaaaaaaa">', b'<!ENTITY a SYSTEM "/etc/passwd">'
)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "not XML"),
        (b"<KeyContainer", "not XML"),
        (b"<KeyContainer><unbound:a/></KeyContainer>", "not XML: unbound prefix"),
        (b"\xff\xfe\x00\x00", "not XML"),
        (b'<?xml version="1.0" encoding="klingon"?><a/>', "not XML"),
        (BOMB, "DOCTYPE"),
        (EXTERNAL, "DOCTYPE"),
        (BOMB.decode().encode("utf-16"), "DOCTYPE"),
        (b"<a>" * 40 + b"</a>" * 40, "deeper than 32"),
        (b"<html/>", "no KeyContainer"),
        (b"<KeyContainer/>", "no KeyPackage"),
        (b'<KeyContainer Version="2"><KeyPackage/></KeyContainer>', "version '2'"),
        (b" " * (1024 * 1024 + 1), "at most 1048576"),
        (b"<KeyContainer>" + b"<KeyPackage/>" * 1001 + b"</KeyContainer>", "1001 keys"),
    ],
)
def test_file_that_cannot_be_read_is_refused_whole(content: bytes, says: str) -> None:
    with pytest.raises(InvalidFieldError, match=says) as raised:
        read(content)
    assert raised.value.field == "content"


def test_work_of_the_derivation_is_capped() -> None:
    made = container()
    made.encryption.setup_pbkdf2("the password", iterations=10)
    content = text(made).replace(b"<IterationCount>10<", b"<IterationCount>1000001<")
    with pytest.raises(InvalidFieldError, match="1000001 iterations; at most 1000000"):
        read(content, password="the password")


def test_demonstration_file_is_read() -> None:
    """The file of the demonstration, as a vendor would deliver it."""
    file = Path(__file__).parents[1] / "data" / "tokens.pskcxml"
    rows = read(file.read_bytes(), password="for demonstration only")
    assert [row.problem for row in rows] == [""] * 5
    assert token_files.ROWS_MAX == 1000
