# SPDX-License-Identifier: Apache-2.0
"""Users, administrators, agents, and the policy they work under."""
