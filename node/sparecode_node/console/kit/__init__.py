# SPDX-License-Identifier: Apache-2.0
"""What the console's pages share: forms, rendering, words, security."""
