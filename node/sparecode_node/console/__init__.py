# SPDX-License-Identifier: Apache-2.0
"""
The Security Console: the use cases of `services`, as pages for a browser.

An edge, as `rpc` is: it translates and decides nothing. Permissions and the bounds of
fields come from the same tables and rules as in `rpc`. `app` has the routes, `visits`
the parts that every request shares, `security` the headers and cookies of every answer.
Each subject has a module in `pages/`. `server` listens.
"""
