# SPDX-License-Identifier: Apache-2.0
"""Formats of the files that are read and written."""
