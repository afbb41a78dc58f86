# SPDX-License-Identifier: Apache-2.0
"""Token files in CSV: accepted forms, and refusals that name the cause (K4)."""

import pytest

from sparecode_node.domain.pins import PinRule
from sparecode_node.domain.tokencodes import Algorithm, HashName
from sparecode_node.services.errors import InvalidFieldError
from sparecode_node.services.files.token_csv import read_token_csv
from sparecode_node.services.files.token_files import (
    FileRow,
    TokenFile,
    TokenFileFormat,
)

SEED = b"12345678901234567890"
BASE32 = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"


def read(
    text: str | bytes, *, default_pin_rule: PinRule | None = PinRule.PREPENDED
) -> list[FileRow]:
    file = TokenFile(
        format=TokenFileFormat.CSV,
        content=text.encode() if isinstance(text, str) else text,
        default_pin_rule=default_pin_rule,
    )
    return read_token_csv(file, now_ms=0)


def test_rows_are_read_with_the_defaults_of_their_algorithm() -> None:
    """(K4) As a spreadsheet writes it: UTF-8 mark, CRLF, apostrophes, a blank line."""
    rows = read(
        "\ufeffSerial,seed,Seed_Format,algorithm,hash,digits,period,counter,"
        "pin_rule,expires\r\n"
        f"'000123,{BASE32.lower()},,,,,,,,\r\n"
        f"1-A,GEZD GNBV-GY3T QOJQ GEZDGNBVGY3TQOJQ,base32,HOTP,SHA256,8,,7,none,\r\n"
        ",,,,,,,,,\r\n"
        f'"000612345678",{bytes(range(16)).hex()},hex,securid,,,,,prepended,2031-12-31\r\n'
        f"2,{SEED.hex()},HEX,totp,sha512,6,60,,,2031-12-31T12:00:00+01:00\r\n"
    )
    tokens = [row.token for row in rows]
    first, second, third, fourth = tokens
    assert [row.row for row in rows] == [1, 2, 3, 4]
    assert first is not None
    assert second is not None
    assert third is not None
    assert fourth is not None
    assert (first.serial, first.seed) == ("000123", SEED)
    assert (first.algorithm, first.hash_name) == (Algorithm.TOTP, HashName.SHA1)
    assert (first.digits, first.period_s, first.counter) == (6, 30, 0)
    assert (first.pin_rule, first.expires_at_ms) == (PinRule.PREPENDED, None)
    assert (second.algorithm, second.hash_name) == (Algorithm.HOTP, HashName.SHA256)
    assert (second.digits, second.period_s, second.counter) == (8, 0, 7)
    assert (second.seed, second.pin_rule) == (SEED, PinRule.NONE)
    assert (third.algorithm, third.period_s) == (Algorithm.SECURID, 60)
    assert (third.seed, third.expires_at_ms) == (bytes(range(16)), 1_956_441_600_000)
    assert (fourth.seed, fourth.period_s) == (SEED, 60)
    assert fourth.expires_at_ms == 1_956_484_800_000 - 3_600_000
    assert SEED.hex() not in repr(rows)
    assert repr(SEED) not in repr(rows)


@pytest.mark.parametrize(
    ("columns", "cells", "says"),
    [
        ("serial,seed", f",{BASE32}", "no serial"),
        ("serial,seed", "1,not a seed 189", "seed is not base32"),
        ("serial,seed,seed_format", "1,xyz,hex", "seed is not hex"),
        ("serial,seed,seed_format", f"1,{BASE32},rot13", "seed_format must be"),
        ("serial,seed,algorithm", f"1,{BASE32},abacus", "algorithm must be one of"),
        ("serial,seed,hash", f"1,{BASE32},md5", "hash must be one of"),
        ("serial,seed,digits", f"1,{BASE32},six", "digits must be a number"),
        ("serial,seed,counter", f"1,{BASE32},-1", "counter must be a number"),
        ("serial,seed,counter", f"1,{BASE32},{'9' * 19}", "counter must be a number"),
        ("serial,seed,pin_rule", f"1,{BASE32},appended", "pin_rule must be one of"),
        ("serial,seed,expires", f"1,{BASE32},31.12.2031", "expires must be"),
        ("serial,seed", f"1,{BASE32},2", "3 cells; there are 2 columns"),
    ],
)
def test_bad_row_is_refused_by_name_and_the_rest_is_read(
    columns: str, cells: str, says: str
) -> None:
    """(K4) The message does not repeat a value that may be a seed."""
    first, second = read(f"{columns}\n{cells}\n9,{BASE32}\n")
    assert first.token is None
    assert says in first.problem
    assert "189" not in first.problem
    assert second.token is not None


def test_row_that_ends_early_has_empty_cells() -> None:
    (row,) = read(f"serial,seed,digits,pin_rule\n1,{BASE32}\n")
    assert row.token is not None


def test_pin_rule_is_needed() -> None:
    (row,) = read(f"serial,seed\n1,{BASE32}\n", default_pin_rule=None)
    assert "no default PIN rule" in row.problem


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "no column serial"),
        ("\n", "no column serial"),
        ("serial\n1\n", "no column seed"),
        ("serial,seed,pinrule\n", "column 'pinrule' is not known"),
        ("serial,seed,serial\n", "column serial appears twice"),
        ("serial,seed\n", "holds no row"),
        ('serial,seed\n"1,2\n', "line 2"),
        ("serial,seed\n1," + "2" * 200_000, "line"),
        (b"serial,seed\n\xff\xfe", "not text in UTF-8"),
        (b"serial,seed\n1,\0\n", "contains a zero byte"),
        ("serial,seed\n" + "1,2\n" * 1001, "1001 rows; at most 1000"),
        (b" " * (1024 * 1024 + 1), "at most 1048576"),
    ],
)
def test_file_that_cannot_be_read_is_refused_whole(
    content: str | bytes, says: str
) -> None:
    with pytest.raises(InvalidFieldError, match=says) as raised:
        read(content)
    assert raised.value.field == "content"
