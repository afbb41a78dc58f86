# SPDX-License-Identifier: Apache-2.0
"""Tokens: enrollment, import and everyday changes."""
