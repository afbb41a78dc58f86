# SPDX-License-Identifier: Apache-2.0
"""Snapshots of the state: how they are kept, and checked before a node starts."""
