# SPDX-License-Identifier: Apache-2.0
"""
The gRPC edge: translates and decides nothing.

* `server`: listeners with their limits, one per kind of caller
* `tls`: certificates and keys from files, checked before they are used
* `interceptors`: what happens around every call: deadline, size, errors, log line
* `errors`: the one table from what went wrong to a status
* `identity`, `calls`: who calls, and for how long
* `conversion`: protobuf to values and back
* `health`: alive, and ready to serve
* `authentication`, `sessions`, `users`, `tokens`, `emergency_access`, `agents`,
  `cluster`: a servicer each, named like its proto
"""
