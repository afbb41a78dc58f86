# SPDX-License-Identifier: Apache-2.0
"""
The RADIUS door: translates packets to the use cases of agents, and decides nothing.

    listener     UDP: whose packets they are
    radsec       TLS: connections of agents
    exchange     bounds, duplicates, counters, and the answers of both
    dialog       a request becomes a use case, its decision a reply
    packets      the form and the signature of packets, over pyrad
    request_ids  the ids that the copies of a request share
    duplicates   requests in progress, and answers that may be repeated
    sources      the client that an address belongs to
    answers      answers, apart from the packet that they answer
"""
