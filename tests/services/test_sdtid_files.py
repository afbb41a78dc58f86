# SPDX-License-Identifier: Apache-2.0
"""SecurID token files: accepted forms, and refusals that name the cause (K4)."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from sparecode_node.domain.pins import PinRule
from sparecode_node.domain.tokencodes import Algorithm
from sparecode_node.services.errors import InvalidFieldError
from sparecode_node.services.files.sdtid_files import read_sdtid
from sparecode_node.services.files.token_files import (
    FileRow,
    TokenFile,
    TokenFileFormat,
)
from tests.data import make_tokens
from tests.generators import sdtid_of

DATA = Path(__file__).parents[1] / "data"
HARDWARE = (DATA / "hardware.sdtid").read_bytes()
SOFTWARE = (DATA / "software.sdtid").read_bytes()
PASSWORD = "for demonstration only"
NOW_MS = 1_700_000_000_000
END_OF_2037_MS = 2_145_916_800_000


def read(
    content: bytes = HARDWARE,
    *,
    password: str = PASSWORD,
    default_pin_rule: PinRule | None = PinRule.PREPENDED,
    now_ms: int = NOW_MS,
) -> list[FileRow]:
    file = TokenFile(
        format=TokenFileFormat.SDTID,
        content=content,
        password=password,
        default_pin_rule=default_pin_rule,
    )
    return read_sdtid(file, now_ms=now_ms)


def test_batch_of_hardware_tokens_is_read() -> None:
    """(K4) Serials get their zeros back; a token without a value takes the header's."""
    first, second, third = read()
    assert first.token is not None
    assert second.token is not None
    assert third.token is not None
    assert [row.row for row in (first, second, third)] == [1, 2, 3]
    assert first.serial == first.token.serial == "000612345678"
    assert first.token.algorithm is Algorithm.SECURID
    assert (first.token.digits, first.token.period_s) == (6, 60)
    assert first.token.pin_rule is PinRule.PREPENDED
    assert first.token.expires_at_ms == END_OF_2037_MS
    assert first.token.seed.hex() == "4a80b07131386f235f89f7f037df797e"
    assert "4a80" not in repr(first)
    assert (second.token.digits, second.token.period_s) == (8, 30)
    assert second.token.expires_at_ms == 1_940_630_400_000  # The end of 2031-06-30.
    assert third.token.pin_rule is PinRule.NONE  # The device asks for its PIN itself.


def test_file_tells_that_the_pin_is_folded_into_the_code() -> None:
    """(K4) AddPIN 1, of the header or the token, whatever the default is."""
    (row,) = read(SOFTWARE, default_pin_rule=None)
    assert row.token is not None
    assert row.token.pin_rule is PinRule.PINPAD


def test_pin_rule_is_needed() -> None:
    first, _, third = read(default_pin_rule=None)
    assert "no default PIN rule" in first.problem
    assert third.token is not None


@pytest.mark.parametrize(
    ("password", "says"), [("", "under a password"), ("another", "does not open")]
)
def test_missing_password_is_named(password: str, says: str) -> None:
    with pytest.raises(InvalidFieldError, match=says) as raised:
        read(password=password)
    assert raised.value.field == "password"


def test_altered_token_is_found_by_its_mac_and_the_rest_is_read() -> None:
    """(K4) For any changed value: seed, serial, digits, end."""
    for old, new in [
        (b"=swJ0", b"=swJ1"),
        (b"<SN>612345679", b"<SN>612345699"),
        (b"<Digits>8", b"<Digits>6"),
        (b"2031/06/30", b"2036/06/30"),
        (b"<Interval>30</Interval>", b""),
    ]:
        assert old in HARDWARE
        first, second, third = read(HARDWARE.replace(old, new))
        assert first.token is not None
        assert second.problem == "TokenMAC does not match: the token was altered"
        assert third.token is not None


def test_altered_header_is_refused_whole() -> None:
    """(K4) It applies to all tokens. The message does not blame the password."""
    altered = HARDWARE.replace(b"<DefDigits>6", b"<DefDigits>8")
    with pytest.raises(InvalidFieldError, match="HeaderMAC does not match") as raised:
        read(altered)
    assert raised.value.field == "content"


def test_tokens_cannot_be_moved_to_another_header() -> None:
    header = SOFTWARE[: SOFTWARE.index(b"<TKN>")]
    tokens = HARDWARE[HARDWARE.index(b"<TKN>") :]
    rows = read(header + tokens)
    assert [row.problem for row in rows] == [
        "TokenMAC does not match: the token was altered"
    ] * 3


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (rb"<TokenMAC>.*?</TokenMAC>", rb"", "no TokenMAC"),
        (rb"<TokenMAC>.*?</TokenMAC>", rb"<TokenMAC>x</TokenMAC>", "not 16 bytes"),
        (rb"<SN>612345678</SN>", rb"", "SN must be"),
        (rb"<SN>612345678</SN>", rb"<SN>A-1</SN>", "SN must be"),
        (rb"<SN>612345678</SN>", rb"<SN>0000612345678</SN>", "SN must be"),
        (rb"<Seed>", rb"<Seed>" + b"x" * 70_000, "too long"),
    ],
)
def test_invalid_row_is_refused_by_name(old: bytes, new: bytes, says: str) -> None:
    """(K4) And the rows after it are read."""
    first, *others = read(re.sub(old, new, HARDWARE, count=1))
    assert says in first.problem
    assert all(row.token is not None for row in others)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"alg": "0"}, "Alg 0 is not supported"),
        ({"birth": "2099/01/01"}, "must not be used before 2099-01-01"),
        ({"birth": "first of May"}, "Birth is not a date"),
        ({"death": "2031-06-30"}, "Death is not a date"),
        ({"digits": "six"}, "Digits is not a number"),
        ({"digits": "9" * 10}, "Digits is not a number"),
    ],
)
def test_unsupported_form_is_refused_by_name(
    signed: Callable[..., bytes], fields: dict[str, str], says: str
) -> None:
    """With valid MACs: the file itself asks for it."""
    (row,) = read(signed(**fields))
    assert says in row.problem


@pytest.fixture
def signed() -> Callable[..., bytes]:
    """Return a function that makes a valid batch of one token with the given values."""

    def make(**fields: str) -> bytes:
        text = {f"Def{name.title()}": value for name, value in fields.items()}
        return make_tokens.hardware(text, [{"SN": "612345678"}]).encode()

    return make


BOMB = b"""<?xml version="1.0"?>
<!DOCTYPE TKNBatch [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">]>
<TKNBatch><TKNHeader/><TKN><SN>&b;</SN></TKN></TKNBatch>"""


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "not XML"),
        (HARDWARE[:-20], "not XML"),
        (BOMB, "DOCTYPE"),
        (BOMB.decode().encode("utf-16"), "DOCTYPE"),
        (b"<a>" * 40 + b"</a>" * 40, "deeper than 32"),
        (b"<html/>", "no TKNBatch"),
        (b"<TKNBatch/>", "no TKNBatch with a TKNHeader"),
        (b"<TKNBatch><TKNHeader/></TKNBatch>", "no TKN"),
        (b"<TKNBatch><TKNHeader/><TKN/></TKNBatch>", "holds no Origin"),
        (
            b"<TKNBatch><TKNHeader/>" + b"<TKN/>" * 1001 + b"</TKNBatch>",
            "1001 tokens",
        ),
        (b" " * (1024 * 1024 + 1), "at most 1048576"),
        (re.sub(rb"<Secret>.*?<", rb"<Secret>x<", HARDWARE), "not 16 bytes"),
        (re.sub(rb"<HeaderMAC>.*?</HeaderMAC>", rb"", HARDWARE), "no HeaderMAC"),
    ],
)
def test_file_that_cannot_be_read_is_refused_whole(content: bytes, says: str) -> None:
    with pytest.raises(InvalidFieldError, match=says) as raised:
        read(content)
    assert raised.value.field == "content"


@pytest.mark.parametrize("password", ["", "short", "x" * 40, "Zoë's pässword"])
def test_file_of_stoken_is_read(tmp_path: Path, password: str) -> None:
    """Its MACs verify here too, for any length of the fields."""
    for number in range(5):
        seed = bytes(range(number, number + 16))
        file = sdtid_of(
            tmp_path,
            serial=str(1000 ** (number % 4) + 1).zfill(4 + 2 * number),
            seed=seed,
            digits=8,
            period_s=30,
            names=("Zoë" * number, "M" * number),
            password=password,
        )
        (row,) = read(file.read_bytes(), password=password)
        assert row.token is not None, row.problem
        assert row.token.seed == seed
        assert (row.token.digits, row.token.period_s) == (8, 30)
