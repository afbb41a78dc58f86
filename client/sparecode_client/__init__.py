# SPDX-License-Identifier: Apache-2.0
"""Client of a Sparecode cluster: any node answers, and a retry never acts twice."""
