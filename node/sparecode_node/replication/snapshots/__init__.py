# SPDX-License-Identifier: Apache-2.0
"""Snapshots of the state: storing, checking, and installing them."""
