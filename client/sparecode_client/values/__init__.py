# SPDX-License-Identifier: Apache-2.0
"""
What callers pass and receive: plain values, in Python's own types.

Every time has a zone. `repr` leaves secrets out.
"""
