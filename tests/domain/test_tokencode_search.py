# SPDX-License-Identifier: Apache-2.0
"""Wide searches find what the libraries compute, one tokencode at a time (A6, K1)."""

from hypothesis import given
from hypothesis import strategies as st

from sparecode_node.domain.ids import Moment, TokenSerial
from sparecode_node.domain.tokencode_search import matches, tokencodes_at
from sparecode_node.domain.tokencodes import (
    Algorithm,
    HashName,
    TokencodeParameters,
    matching_moments,
    tokencode_at,
)

YEARS_S = st.integers(0, 4_000_000_000)
PARAMETERS = st.builds(
    TokencodeParameters,
    algorithm=st.sampled_from(Algorithm),
    hash_name=st.sampled_from(HashName),
    digits=st.sampled_from([6, 8]),
    period_s=st.sampled_from([30, 60]),
    serial=st.from_regex(r"[0-9]{12}", fullmatch=True).map(TokenSerial),
)


@given(
    seed=st.binary(min_size=16, max_size=16),
    parameters=PARAMETERS,
    at_s=YEARS_S,
    size=st.integers(1, 130),
)
def test_codes_are_those_of_the_libraries(
    seed: bytes, parameters: TokencodeParameters, at_s: int, size: int
) -> None:
    """Across hours, days and years, for every algorithm and period."""
    first = at_s // parameters.period_s
    moments = [Moment(first + number) for number in range(size)]
    codes = tokencodes_at(seed, parameters, moments)
    assert list(codes) == moments
    for moment in {moments[0], moments[size // 2], moments[-1]}:
        shown = tokencode_at(seed, parameters, moment)
        assert shown == f"{codes[moment]:0{parameters.digits}}"
        assert matches(codes, parameters, shown) == matching_moments(
            seed, parameters, shown, moments
        )


@given(digits=st.text(max_size=9))
def test_other_text_matches_nothing(digits: str) -> None:
    parameters = TokencodeParameters(
        algorithm=Algorithm.TOTP, hash_name=HashName.SHA1, digits=6, period_s=30
    )
    codes = {Moment(1): 123456}
    assert matches(codes, parameters, digits) == ((1,) if digits == "123456" else ())
