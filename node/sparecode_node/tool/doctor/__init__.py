# SPDX-License-Identifier: Apache-2.0
"""
`sparecode-node doctor`: whether the machine is fit, and what the node holds whole.

It reads and changes nothing, but for a file that it writes to measure the disk,
and works whether the node runs or not.
"""
