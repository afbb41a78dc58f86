# SPDX-License-Identifier: Apache-2.0
"""
Use cases: authorize, draw time and randomness, build the command, propose, answer.

Time and randomness come from `ambient`, slow hashes from `kdf`. Secrets are sealed by
`sealing` before they leave this package.
"""
