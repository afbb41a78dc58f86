# SPDX-License-Identifier: Apache-2.0
"""Prompts that a script answers, without a terminal."""

import subprocess
import sys

PROGRAM = (
    "from sparecode_client.cli.terminal.prompts import secret\n"
    "print(secret('PIN', None, confirm=True))"
)


def test_a_script_that_answers_a_prompt_gets_no_warning() -> None:
    """Over SSH or from cron there is no terminal: nothing echoes, so nothing is warned of."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        input="4719\n4719\n",
        capture_output=True,
        text=True,
        check=True,
        start_new_session=True,
        timeout=60,
    )
    assert done.stdout == "4719\n"
    assert "PIN" in done.stderr
    assert "arning" not in done.stderr
    assert "4719" not in done.stderr
