# SPDX-License-Identifier: Apache-2.0
"""Who may call what, and the record of refusals."""
