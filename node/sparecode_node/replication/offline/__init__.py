# SPDX-License-Identifier: Apache-2.0
"""Inspection and repair of a node's files while the node is stopped."""
