# SPDX-License-Identifier: Apache-2.0
"""The state file, and what the primary adds to a command before it is proposed."""
