# SPDX-License-Identifier: Apache-2.0
"""How a call reaches the cluster: channels, deadlines, retries and conversions."""
