# SPDX-License-Identifier: Apache-2.0
"""Reads a file in a process as the node does, with readers that never end well."""

import sys
import time

from sparecode_node.services.files import reader_process
from sparecode_node.services.files.token_files import (
    FileRow,
    TokenFile,
    TokenFileFormat,
)


def read(file: TokenFile, *, now_ms: int) -> list[FileRow]:
    """Do what the first word of the file says."""
    match file.content.split()[0]:
        case b"spin":
            while True:
                pass
        case b"fill":
            filled = []
            while True:
                filled.append(bytearray(2**20))
        case b"wait":
            time.sleep(60)
        case _:
            raise RuntimeError(f"the file says {file.content.decode()}")


reader_process.READERS[TokenFileFormat.CSV] = read
sys.exit(reader_process.main())
