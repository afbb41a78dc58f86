# SPDX-License-Identifier: Apache-2.0
"""The commands of `sparecode-node` that set up, check and recover a node."""
