# SPDX-License-Identifier: Apache-2.0
"""
HTTPS listeners in the node's own event loop, for the console and for agents.

    connections  connections, bounded from the moment they are accepted
    server       an application on an address: certificates, timeouts, start and stop
"""
