# SPDX-License-Identifier: Apache-2.0
"""The contract of Sparecode in Python: what protoc generates, and nothing by hand."""
