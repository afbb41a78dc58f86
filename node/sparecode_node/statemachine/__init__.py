# SPDX-License-Identifier: Apache-2.0
"""The replicated state: commands applied to SQLite, the same on every node."""
