# SPDX-License-Identifier: Apache-2.0
"""
Conversion between rows and domain objects, one module for each subject.

`find_*` returns None for a missing row; `save_*` inserts or replaces a row.
"""
