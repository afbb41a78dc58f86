# SPDX-License-Identifier: Apache-2.0
"""Emergency access of a token: sets of one-time tokencodes, and the token's return."""

import enum


class RecoveryPolicy(enum.StrEnum):
    """What happens when the lost token is used again (R)."""

    DENY = "deny"
    ALLOW_AND_DISABLE = "allow_and_disable"
    ALLOW_AFTER_EXPIRY = "allow_after_expiry"
