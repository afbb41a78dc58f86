# SPDX-License-Identifier: Apache-2.0
"""Issuing emergency codes and turning emergency access off."""
