# SPDX-License-Identifier: Apache-2.0
"""
The HTTP door: JSON for agents. It translates to the use cases, and decides nothing.

    server       the listener and its limits
    app          routes, and the handling of every call: limits, errors, one log line
    v1           `/v1/authenticate` and `/v1/continue`
    privacyidea  privacyIDEA's `/validate/check`, for its plug-ins
    plugins      what the operator lets those plug-ins do without a certificate or a key
    description  the OpenAPI, and the page for people
    callers      the agent that calls
    bodies       bounded bodies, and the fields of JSON
    problems     refusals and errors (RFC 9457)
"""
