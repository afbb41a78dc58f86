# SPDX-License-Identifier: Apache-2.0
"""Pages for people without a session, reached by a link in a mail."""
