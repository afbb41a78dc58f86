# SPDX-License-Identifier: Apache-2.0
"""Agents: programs that check passcodes, and the kind of resource each protects."""

import enum


class Protects(enum.StrEnum):
    """What an agent protects. Emergency codes do not cover `CLOUD` (A4)."""

    AUTHENTICATION_MANAGER = "authentication_manager"
    CLOUD = "cloud"
