# SPDX-License-Identifier: Apache-2.0
"""Channels, and the delivery of notices to other systems (N1-N3)."""
