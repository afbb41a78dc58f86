# SPDX-License-Identifier: Apache-2.0
"""The replicated state: commands applied to SQLite, alike on every node."""
