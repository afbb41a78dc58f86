# SPDX-License-Identifier: Apache-2.0
"""Connections between members: gRPC over mutual TLS."""
