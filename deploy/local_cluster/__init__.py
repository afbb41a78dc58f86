# SPDX-License-Identifier: Apache-2.0
"""
A cluster on this machine, for trying, showing and testing Sparecode.

* `setup`: certificates, keys and configuration, made as an operator makes them.
* `cluster`: the nodes as processes: start, stop, kill.
* `story`: issuing and using codes step by step; each step is printed and checked.
* `__main__`: `make run`, `make demo`, `make reset`.
"""
