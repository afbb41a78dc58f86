# SPDX-License-Identifier: Apache-2.0
"""The rules, as pure functions of values: no clock, no randomness, no IO."""
