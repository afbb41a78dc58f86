# SPDX-License-Identifier: Apache-2.0
"""
A cluster in one process, for the tests of programs that use the client library.

`sparecode_client.testing` starts it by the entry point `cluster` of the group
`sparecode.testing`: client and node do not import each other.
"""
