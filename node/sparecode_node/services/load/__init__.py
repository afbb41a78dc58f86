# SPDX-License-Identifier: Apache-2.0
"""Bounds on how much a node does at a time."""
