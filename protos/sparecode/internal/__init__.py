# SPDX-License-Identifier: Apache-2.0
"""What nodes say to each other and keep on disk; no caller may rely on it."""
