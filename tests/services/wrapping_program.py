# SPDX-License-Identifier: Apache-2.0
"""A program for `[keys] wrap_command`, with its key in a file: for tests alone."""

import os
from pathlib import Path

from sparecode_node.services.secrets.wrap_command import WrapCommand
from tests.generators import tool

PROGRAM = """#!/bin/sh
if [ ! -s {key} ]; then echo 'the key is lost' >&2; exit 65; fi
case $1 in
wrap) printf 'WRAPPED\\n' ;;
unwrap) read -r _ ;;
esac
exec {openssl} enc -aes-256-ctr -iv 0 -K "$(cat {key})" 2>/dev/null
"""


def program(folder: Path) -> WrapCommand:
    """
    Return a command that wraps with a new key in the folder, `program.key`.

    It authenticates nothing, and always uses the same nonce: good enough to see what
    the node does with its results.
    """
    key, path = folder / "program.key", folder / "wrapping-program"
    key.write_text(os.urandom(32).hex())
    path.write_text(PROGRAM.format(key=key, openssl=tool("openssl")))
    path.chmod(0o755)
    return WrapCommand(argv=(str(path),))
