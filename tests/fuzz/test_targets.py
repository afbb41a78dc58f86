# SPDX-License-Identifier: Apache-2.0
"""
The fuzzer's targets, run by hypothesis: changed examples, and any bytes.

This is a short walk over the same ground, always the same one. `make fuzz` goes on with
atheris, which follows the coverage.
"""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.targets import TARGETS, Target


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_examples_break_no_parser(target: Target) -> None:
    """Among them all that fuzzing has found."""
    for example in target.examples:
        assert target.refuses(example) in {True, False}


@st.composite
def changed(draw: st.DrawFn, examples: tuple[bytes, ...]) -> bytes:
    """Return an example with a few pieces replaced, moved or cut."""
    data = draw(st.sampled_from(examples))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(data)))
        end = min(len(data), start + draw(st.sampled_from((0, 1, 2, 8, 64))))
        piece = draw(
            st.one_of(
                st.binary(max_size=8),
                st.sampled_from((data[start:end] * 2, b"-1", b"999999999999999999999")),
            )
        )
        data = data[:start] + piece + data[end:]
    return data


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_changed_examples_break_no_parser(target: Target) -> None:
    short = tuple(each for each in target.examples if len(each) < 10_000)

    @settings(
        max_examples=60,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(changed(short) | st.binary(max_size=200) if short else st.binary())
    def run(data: bytes) -> None:
        assert target.refuses(data) in {True, False}

    run()
