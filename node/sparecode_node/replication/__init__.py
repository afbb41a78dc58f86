# SPDX-License-Identifier: Apache-2.0
"""
Replication of calls by Raft: the only package that knows the engine, PySyncObj.

DESIGN.md has the map of the modules, what is taken from PySyncObj, and what is not.
"""
