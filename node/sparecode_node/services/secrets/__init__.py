# SPDX-License-Identifier: Apache-2.0
"""Keys, seals and hashes."""
