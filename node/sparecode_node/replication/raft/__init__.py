# SPDX-License-Identifier: Apache-2.0
"""Consensus: PySyncObj's engine with fences around it, and what it lacks."""
