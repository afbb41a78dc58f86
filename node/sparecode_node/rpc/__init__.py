# SPDX-License-Identifier: Apache-2.0
"""
The gRPC edge. It translates between the wire and the use cases, and decides nothing.

* `server`: listeners with their limits, one per kind of caller
* `tls`: certificates and keys, read from files and checked
* `interceptors`: the handling of every call: deadline, size, errors, log line
* `errors`: the statuses of gRPC for the table of errors
* `identity`, `calls`: the caller and the time that a call may take
* `conversion`, `uploads`: protobuf to values and back; uploaded files
* `health`: whether this node is alive, and ready to serve
* `stderr`: the lines that gRPC writes to standard error
* `authentication`, `sessions`, `users`, `tokens`, `emergency_access`, `agents`,
  `administrators`, `audit`, `policy`, `cluster`: one servicer each, named like its proto
* `joining`, `join_client`, `tickets`: both sides of joining, and the ticket as text
"""
