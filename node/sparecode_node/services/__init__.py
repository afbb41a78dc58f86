# SPDX-License-Identifier: Apache-2.0
"""
Use cases: authorize, draw time and randomness, build the command, propose, explain.

What a service cannot know is drawn from `ambient`; what is slow goes through
`kdf`; what is secret goes through `sealing` before it leaves this package.
"""
