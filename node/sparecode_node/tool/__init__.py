# SPDX-License-Identifier: Apache-2.0
"""Commands of `sparecode-node` that run beside the daemon or before it."""
