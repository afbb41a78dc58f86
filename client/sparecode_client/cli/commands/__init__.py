# SPDX-License-Identifier: Apache-2.0
"""The commands of `sparecode`: one module per group of commands."""
