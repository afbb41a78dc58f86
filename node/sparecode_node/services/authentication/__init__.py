# SPDX-License-Identifier: Apache-2.0
"""Authentication of a user, and its next step."""
