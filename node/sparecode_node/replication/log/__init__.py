# SPDX-License-Identifier: Apache-2.0
"""The durable log: a journal file of entries, term and vote."""
