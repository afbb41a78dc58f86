# SPDX-License-Identifier: Apache-2.0
"""*If Token Becomes Available*: labels of the three recovery policies (R)."""

from sparecode_node.console.kit.languages import N_
from sparecode_node.domain.emergency_access import RecoveryPolicy

RECOVERY = {
    RecoveryPolicy.DENY: (
        N_("Deny authentication with token"),
        (
            N_(
                "For a token that is stolen or permanently lost. It stays refused, even after "
                "the codes have ended, until an administrator reinstates it."
            )
        ),
    ),
    RecoveryPolicy.ALLOW_AND_DISABLE: (
        (
            N_(
                "Allow authentication with token at any time and disable online emergency "
                "tokencodes"
            )
        ),
        (
            N_(
                "For a token left at home. The first sign-in with it voids all unused codes, "
                "and the token works as before."
            )
        ),
    ),
    RecoveryPolicy.ALLOW_AFTER_EXPIRY: (
        (
            N_(
                "Allow authentication with token only after the emergency tokencode lifetime "
                "has expired and disable online emergency tokencodes"
            )
        ),
        (
            N_(
                "For a mislaid token. It is refused while the codes are live, and works again "
                "when their lifetime ends. Needs an expiration."
            )
        ),
    ),
}
"""Label and explanation of each."""

CASES = {
    RecoveryPolicy.DENY: N_("stolen or lost"),
    RecoveryPolicy.ALLOW_AND_DISABLE: N_("left at home"),
    RecoveryPolicy.ALLOW_AFTER_EXPIRY: N_("mislaid"),
}
"""What a caller says about the token, for each."""
