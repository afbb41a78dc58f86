# SPDX-License-Identifier: Apache-2.0
"""
Metrics, liveness and readiness of one node, for Prometheus and probes.

`catalog` defines every metric; `docs/metrics.md` is generated from it. Labels have few
values, all known in advance: listeners, methods, statuses, members, and words of the
rules. No label contains the name of a user, administrator or token. The names of RADIUS
clients and of channels, which super administrators chose, are the only typed text; of
channels only if callers need a token or a certificate.
"""
