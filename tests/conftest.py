# SPDX-License-Identifier: Apache-2.0
"""What every test may use."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of our own."""
    parser.addoption(
        "--rewrite",
        action="store_true",
        help="record the output of the golden scripts anew: commit only what "
        "you understand",
    )


@pytest.fixture(scope="session")
def rewrite(request: pytest.FixtureRequest) -> bool:
    """Whether golden scripts are to be recorded anew."""
    return bool(request.config.getoption("--rewrite"))
