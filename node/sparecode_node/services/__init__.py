# SPDX-License-Identifier: Apache-2.0
"""Use cases: authorize, draw time and randomness, propose, explain."""
