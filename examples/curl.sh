#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Checks a passcode by HTTP: curl.sh USER, with the passcode on stdin.
#
# Set SPARECODE_HTTP (https://NODE:7305), SPARECODE_CA, SPARECODE_AGENT_CERTIFICATE and
# SPARECODE_AGENT_KEY. Exit code 0: accepted; 1: not accepted; another: no decision. The key of
# the request is the same in each retry, so a retry never spends a second code.
set -eu
answer=$(
    # The passcode is in no argument: other users of the machine see those.
    jq -R --arg username "$1" '{username: $username, passcode: .}' |
    curl --silent --show-error --fail --retry 3 --max-time 10 \
        --cacert "$SPARECODE_CA" \
        --cert "$SPARECODE_AGENT_CERTIFICATE" --key "$SPARECODE_AGENT_KEY" \
        --header "Content-Type: application/json" \
        --header "Idempotency-Key: $(cat /proc/sys/kernel/random/uuid)" \
        --data @- "$SPARECODE_HTTP/v1/authenticate"
) || exit 3
decision=$(printf '%s' "$answer" | jq -r .decision)
echo "$decision"
[ "$decision" = ACCEPTED ]
