# SPDX-License-Identifier: Apache-2.0
"""What commands share: options, prompts, output, and files on this machine."""
