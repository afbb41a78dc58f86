# SPDX-License-Identifier: Apache-2.0
"""
What Prometheus and probes read: metrics, liveness and readiness of one node.

`catalog` names every metric; `docs/metrics.md` is made from it. Labels have few
values, all known beforehand: listeners, methods, statuses, members, vocabularies
of the rules. No name of a user, an administrator, an agent or a token is one,
and nothing that somebody typed.
"""
