# SPDX-License-Identifier: Apache-2.0
"""
`sparecode-node doctor`: checks a node's machine, files, data and cluster.

It changes nothing, except for a temporary file that it writes to measure the disk.
It works whether the node runs or not.
"""
