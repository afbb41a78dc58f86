# SPDX-License-Identifier: Apache-2.0
"""Offline verification of an exported audit log: needs files, and no node."""
