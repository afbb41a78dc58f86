# SPDX-License-Identifier: Apache-2.0
"""HOTP and TOTP against their RFCs, and the windows in which they are matched."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparecode_node.domain.ids import Moment, TokenSerial
from sparecode_node.domain.tokencodes import (
    HashName,
    consecutive_moments,
    matching_moments,
    moments_to_try,
    parameters_problem,
    step_at,
    tokencode_at,
)
from tests.domain.examples import HOTP, NOW_MS, SECURID, STEP, TOTP

SEED = b"12345678901234567890"

RFC_4226_APPENDIX_D = [
    "755224",
    "287082",
    "359152",
    "969429",
    "338314",
    "254676",
    "287922",
    "162583",
    "399871",
    "520489",
]

RFC_4226_TRUNCATED = [
    "1284755224",
    "1094287082",
    "0137359152",
    "1726969429",
    "1640338314",
    "0868254676",
    "1918287922",
    "0082162583",
    "0673399871",
    "0645520489",
]
"""The column "Decimal" of the same table, of which a value is the last digits."""

RFC_6238_APPENDIX_B = [
    (59, 0x0000000000000001, "94287082", "46119246", "90693936"),
    (1111111109, 0x00000000023523EC, "07081804", "68084774", "25091201"),
    (1111111111, 0x00000000023523ED, "14050471", "67062674", "99943326"),
    (1234567890, 0x000000000273EF07, "89005924", "91819424", "93441116"),
    (2000000000, 0x0000000003F940AA, "69279037", "90698825", "38618901"),
    (20000000000, 0x0000000027BC86AA, "65353130", "77737706", "47863826"),
]
"""Time, value of T, and the tokencodes with SHA-1, SHA-256 and SHA-512."""
SECURID_SEED = bytes(range(1, 17))
SECURID_SERIAL = TokenSerial("000612345678")
SHOWN_BY_STOKEN = [
    (946684800, "40054928", "40054928"),
    (1111111109, "03692887", "16007496"),
    (1700000000, "81863907", "22798534"),
    (1700000030, "81863907", "36110810"),
    (1709210000, "91565076", "07561310"),
    (2000000000, "03220067", "32669042"),
]
"""What `stoken` 0.92 shows for this seed and serial every 60 and every 30 s."""

SEEDS = {
    HashName.SHA1: SEED,
    HashName.SHA256: b"12345678901234567890123456789012",
    HashName.SHA512: (SEED * 4)[:64],
}


@pytest.mark.parametrize(("counter", "expected"), list(enumerate(RFC_4226_APPENDIX_D)))
def test_hotp_agrees_with_rfc_4226(counter: int, expected: str) -> None:
    """The ten values of RFC 4226, appendix D (K1)."""
    assert tokencode_at(SEED, HOTP, Moment(counter)) == expected


@pytest.mark.parametrize(("counter", "decimal"), list(enumerate(RFC_4226_TRUNCATED)))
def test_hotp_of_eight_digits_agrees_with_rfc_4226(counter: int, decimal: str) -> None:
    """As many digits of the truncated value as are wanted, leading zeros included (K1)."""
    for digits in (6, 8):
        shown = tokencode_at(SEED, replace(HOTP, digits=digits), Moment(counter))
        assert shown == decimal[-digits:]


@pytest.mark.parametrize(
    ("at_s", "steps", "sha1", "sha256", "sha512"), RFC_6238_APPENDIX_B
)
def test_totp_agrees_with_rfc_6238(
    at_s: int, steps: int, sha1: str, sha256: str, sha512: str
) -> None:
    """The eighteen values of RFC 6238, appendix B, leading zeros included (K1)."""
    for name, expected in zip(HashName, (sha1, sha256, sha512), strict=True):
        parameters = replace(TOTP, hash_name=name, digits=8)
        step = step_at(at_s * 1_000, parameters)
        assert step == steps
        assert tokencode_at(SEEDS[name], parameters, step) == expected


@pytest.mark.parametrize(("at_s", "every_60_s", "every_30_s"), SHOWN_BY_STOKEN)
def test_securid_agrees_with_stoken(
    at_s: int, every_60_s: str, every_30_s: str
) -> None:
    """Eight digits, and six of them; a leap day is among the times (K1)."""
    for period_s, expected in ((60, every_60_s), (30, every_30_s)):
        for digits in (6, 8):
            parameters = replace(
                SECURID, serial=SECURID_SERIAL, digits=digits, period_s=period_s
            )
            step = step_at(at_s * 1_000, parameters)
            shown = tokencode_at(SECURID_SEED, parameters, step)
            assert shown == expected[-digits:]


def test_securid_tokencode_depends_on_the_serial() -> None:
    """Two tokens with one seed do not show the same (K1)."""
    one = replace(SECURID, serial=SECURID_SERIAL)
    other = replace(SECURID, serial=TokenSerial("000612345679"))
    shown = [
        [tokencode_at(SECURID_SEED, each, Moment(n)) for n in range(9)]
        for each in (one, other)
    ]
    assert shown[0] != shown[1]


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({}, ""),
        ({"serial": "00061234567"}, "12 digits"),
        ({"serial": "00061234567x"}, "12 digits"),
        ({"serial": "\u0660" * 12}, "12 digits"),
        ({"period_s": 45}, "30 or 60 s"),
        ({"period_s": 0}, "30 or 60 s"),
        ({"digits": 7}, "6 or 8 digits"),
    ],
)
def test_invalid_securid_parameters_are_refused(
    changes: dict[str, Any], problem: str
) -> None:
    """Apply refuses them although no node would send them (K1)."""
    parameters = replace(SECURID, serial=SECURID_SERIAL)
    result = parameters_problem(replace(parameters, **changes), 0)
    assert problem in result
    assert bool(problem) == bool(result)
    assert parameters_problem(parameters, 1) != ""


def test_a_step_lasts_its_period() -> None:
    """Steps count from the Unix epoch (RFC 6238, 4.2)."""
    assert step_at(NOW_MS, TOTP) == STEP
    assert step_at(NOW_MS + 29_999, TOTP) == STEP
    assert step_at(NOW_MS + 30_000, TOTP) == STEP + 1
    assert step_at(NOW_MS, replace(TOTP, period_s=60)) == STEP // 2


def test_totp_window_is_a_step_to_each_side_of_the_tokens_own_time() -> None:
    """The window follows the learned drift (K1)."""
    result = moments_to_try(
        TOTP,
        at_ms=NOW_MS,
        drift=-3,
        spent=Moment(-1),
        window_steps=1,
        look_ahead=10,
    )
    assert list(result) == [STEP - 4, STEP - 3, STEP - 2]


def test_totp_window_does_not_begin_before_the_epoch() -> None:
    """No moment is negative, whatever the clock says."""
    result = moments_to_try(
        TOTP, at_ms=0, drift=0, spent=Moment(-1), window_steps=1, look_ahead=10
    )
    assert list(result) == [0, 1]


def test_hotp_looks_ahead_of_the_last_spent_counter() -> None:
    """Ten counters ahead (K1); the spent one is known, so that a replay is named."""
    result = moments_to_try(
        HOTP,
        at_ms=NOW_MS,
        drift=0,
        spent=Moment(6),
        window_steps=1,
        look_ahead=10,
    )
    assert list(result) == list(range(6, 17))


def test_hotp_that_is_new_begins_at_its_first_counter() -> None:
    """Counter 0 of a new token is within the look-ahead."""
    result = moments_to_try(
        HOTP, at_ms=0, drift=0, spent=Moment(-1), window_steps=1, look_ahead=10
    )
    assert list(result) == list(range(10))


def test_digits_match_at_their_moments_only() -> None:
    """A tokencode is found at its counter; a wrong or foreign one nowhere (K1)."""
    moments = [Moment(n) for n in range(10)]
    assert matching_moments(SEED, HOTP, "969429", moments) == (3,)
    assert matching_moments(SEED, HOTP, "000000", moments) == ()
    assert matching_moments(SEED, HOTP, "", moments) == ()


def test_two_tokencodes_in_a_row_locate_a_token() -> None:
    """Found at the second one's counter; not in another order, not apart (K1)."""
    moments = [Moment(n) for n in range(9)]
    codes = [tokencode_at(SEED, HOTP, Moment(n)) for n in range(10)]

    def matches(first: int, second: int) -> tuple[Moment, ...]:
        return consecutive_moments(SEED, HOTP, (codes[first], codes[second]), moments)

    assert matches(3, 4) == (4,)
    assert matches(8, 9) == (9,)
    assert matches(4, 3) == matches(3, 5) == matches(3, 3) == ()


@given(
    seed=st.binary(min_size=16, max_size=64),
    at_ms=st.integers(0, 4_000_000_000_000),
    offset=st.integers(-5, 5),
    drift=st.integers(-100, 100),
    name=st.sampled_from(HashName),
    digits=st.sampled_from([6, 8]),
    period_s=st.sampled_from([30, 60]),
)
def test_a_tokencode_is_found_exactly_inside_the_window(
    *,
    seed: bytes,
    at_ms: int,
    offset: int,
    drift: int,
    name: HashName,
    digits: int,
    period_s: int,
) -> None:
    """For any token: its current tokencode is found if its offset is in the window."""
    parameters = replace(TOTP, hash_name=name, digits=digits, period_s=period_s)
    shown_at = Moment(max(step_at(at_ms, parameters) + drift + offset, 0))
    shown = tokencode_at(seed, parameters, shown_at)
    window = tuple(
        moments_to_try(
            parameters,
            at_ms=at_ms,
            drift=drift,
            spent=Moment(-1),
            window_steps=1,
            look_ahead=10,
        )
    )
    result = matching_moments(seed, parameters, shown, window)
    assert len(shown) == digits
    assert set(result) <= set(window)
    assert (shown_at in result) == (shown_at in window)
