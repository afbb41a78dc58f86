# SPDX-License-Identifier: Apache-2.0
"""
The Security Console: the use cases of `services`, as pages for a browser.

Like `rpc`, the console is an edge: it translates requests and decides nothing. The
same table says what a role may do, and the same rules check every field. DESIGN.md
has the rules of the pages and a map of the modules.
"""
