# SPDX-License-Identifier: Apache-2.0
"""
The command `sparecode` of administrators, operators and agents.

Exit codes: 0 done; 1 refused by the rules; 2 wrong usage; 3 no node or no quorum, or
overloaded; 4 not permitted or not signed in.
"""

from sparecode_client.cli.app import app

__all__ = ["app", "main"]


def main() -> None:
    """Run `sparecode` with the arguments of this process."""
    app()
