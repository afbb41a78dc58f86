# SPDX-License-Identifier: Apache-2.0
"""
The Security Console: the use cases of `services`, as pages for a browser.

Beside `rpc`, and like it an edge: it translates and decides nothing. What a role
may do is asked of the same table, what is wrong with a field is said by the same
rules. `app` has the routes, `visits` what every request is given, `security` what
every answer carries; each subject of the pages has a module, and `server` listens.
"""
