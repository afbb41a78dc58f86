# SPDX-License-Identifier: Apache-2.0
"""The gRPC edge: translates between the wire and the services; decides nothing."""
