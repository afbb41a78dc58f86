# SPDX-License-Identifier: Apache-2.0
"""Fuzz one target with atheris. The arguments: its name, and those of libFuzzer."""

import sys

import atheris

OURS = ["sparecode_node", "sparecode_client", "pskc", "securid", "tests.fuzz"]
"""What is instrumented: coverage of the rest would lead nowhere."""

with atheris.instrument_imports(include=OURS):
    from tests.fuzz.targets import TARGETS


def main() -> None:
    """Fuzz until the arguments say to stop, or to the first bug."""
    program, name, *arguments = sys.argv
    (target,) = (each for each in TARGETS if each.name == name)
    atheris.Setup([program, *arguments], target.refuses)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
