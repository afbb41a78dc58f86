# SPDX-License-Identifier: Apache-2.0
"""The read side: read-only connections to the local state."""
