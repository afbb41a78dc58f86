# SPDX-License-Identifier: Apache-2.0
"""Tokencodes: HOTP (RFC 4226) and TOTP (RFC 6238), their windows and drift."""

import enum


class Algorithm(enum.StrEnum):
    """How a token makes its tokencodes."""

    TOTP = "totp"
    HOTP = "hotp"


class HashName(enum.StrEnum):
    """The hash under HMAC (RFC 6238, 1.2)."""

    SHA1 = "sha1"
    SHA256 = "sha256"
    SHA512 = "sha512"
