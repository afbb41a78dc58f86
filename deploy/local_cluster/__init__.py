# SPDX-License-Identifier: Apache-2.0
"""
A cluster on this machine: to try it, to show it, and to test it.

* `setup`: certificates, keys and configuration, as an operator would make them.
* `cluster`: the nodes as processes, and what one does to them: start, stop, kill.
* `story`: the main job, step by step, in words; each step is checked.
* `__main__`: `make run`, `make demo`, `make reset`.
"""
