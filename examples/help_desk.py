# SPDX-License-Identifier: Apache-2.0
"""
Issues emergency codes for a user who has lost the token.

    python examples/help_desk.py alice

Set SPARECODE_NODES, SPARECODE_CA, SPARECODE_ADMINISTRATOR and the path of a file with
the password, SPARECODE_PASSWORD_FILE.
"""

import os
import sys
from datetime import timedelta
from pathlib import Path

from sparecode_client import Admin, RecoveryPolicy, SparecodeError

LIFETIME = timedelta(days=7)


def issue(admin: Admin, username: str, count: int = 5) -> tuple[list[str], list[str]]:
    """
    Return codes for the user's token, and what would make agents refuse them.

    Raises:
        LookupError: The user has no token, or several.
    """
    tokens = admin.get_user(username).token_serials
    if len(tokens) != 1:
        raise LookupError(f"{username} has {len(tokens)} tokens")
    explanation = admin.explain_user(username)
    issued = admin.issue_tokencodes(
        tokens[0],
        count=count,
        lifetime=LIFETIME,
        recovery_policy=RecoveryPolicy.ALLOW_AND_DISABLE,
    )
    warnings = [
        f"{each.words} {each.next_step}"
        for each in explanation.blockers
        if each.concerns_codes_of(tokens[0])
    ]
    return [each.code for each in issued.codes], warnings


def main() -> int:
    """Print codes for the user that the command line names."""
    environment = os.environ
    if not sys.argv[1:] or "SPARECODE_PASSWORD_FILE" not in environment:
        print(__doc__, file=sys.stderr)
        return 2
    password = Path(environment["SPARECODE_PASSWORD_FILE"]).read_text().strip()
    with Admin(
        environment["SPARECODE_NODES"].split(","), ca=environment["SPARECODE_CA"]
    ) as admin:
        try:
            admin.login(environment["SPARECODE_ADMINISTRATOR"], password)
            codes, warnings = issue(admin, sys.argv[1])
            admin.logout()
        except (LookupError, SparecodeError) as error:
            print(error, file=sys.stderr)
            return 1
    print("\n".join(codes))
    for each in warnings:
        print(f"Warning: {each}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
