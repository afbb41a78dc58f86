# SPDX-License-Identifier: Apache-2.0
"""Messages and services of the public API."""
