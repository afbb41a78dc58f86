# SPDX-License-Identifier: Apache-2.0
"""What the commands share: what people type and read, and files on their machine."""
