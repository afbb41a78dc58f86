# SPDX-License-Identifier: Apache-2.0
"""Calls and reads that a replica forwards to the primary."""
