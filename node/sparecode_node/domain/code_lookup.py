# SPDX-License-Identifier: Apache-2.0
"""
Look up the emergency code at the end of a passcode among the user's sets.

`authentication` decides whether the code may be used.
"""

import hmac
from collections.abc import Mapping, Sequence

from sparecode_node.domain.emergency_access import (
    CodeState,
    EmergencyCode,
    EmergencyCodeSet,
    FormerCode,
    FormerSet,
)
from sparecode_node.domain.ids import TokenSerial
from sparecode_node.domain.passcodes import Reading
from sparecode_node.domain.tokens import Token

Sets = Mapping[TokenSerial, Sequence[EmergencyCodeSet]]
"""A user's sets by token, newest first."""


def find_code(
    readings: Sequence[Reading], tokens: Sequence[Token], sets: Sets
) -> tuple[Token, EmergencyCodeSet, EmergencyCode, Reading] | None:
    """
    Return the typed code with its token, set and reading, or None.

    A live code goes before used and void ones.
    """
    match = None
    for reading in readings:
        candidates = {each.set_id: each.verifier for each in reading.codes}
        for token in tokens:
            for code_set in sets.get(token.serial, ()):
                candidate = candidates.get(code_set.set_id)
                if candidate is None:
                    continue
                for code in code_set.codes:
                    if not hmac.compare_digest(code.verifier, candidate):
                        continue
                    if code.state is CodeState.LIVE:
                        return token, code_set, code, reading
                    match = match or (token, code_set, code, reading)
    return match


def find_former(
    readings: Sequence[Reading],
    former_sets: Sequence[FormerSet],
    former_codes: Sequence[FormerCode],
) -> FormerSet | FormerCode | None:
    """Return the former set or code that was typed, or None (A5)."""
    for reading in readings:
        candidates = {each.set_id: each.verifier for each in reading.codes}
        for code_set in former_sets:
            candidate = candidates.get(code_set.set_id, b"")
            if any(hmac.compare_digest(each, candidate) for each in code_set.verifiers):
                return code_set
        for code in former_codes:
            if code.tag in reading.code_tags:
                return code
    return None
