# SPDX-License-Identifier: Apache-2.0
"""Calls between this node and the primary: proposals, reads, and changes of the cluster."""
