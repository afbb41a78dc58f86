# SPDX-License-Identifier: Apache-2.0
"""PINs: where they stand in a passcode, and what makes one acceptable (K2)."""

import enum


class PinRule(enum.StrEnum):
    """How a token's passcode is made of PIN and tokencode."""

    PREPENDED = "prepended"
    NONE = "none"
