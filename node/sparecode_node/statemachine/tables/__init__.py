# SPDX-License-Identifier: Apache-2.0
"""
Rows to domain objects and back, a module for each subject.

`find_*` returns None for what is not there; `save_*` inserts or replaces.
"""
