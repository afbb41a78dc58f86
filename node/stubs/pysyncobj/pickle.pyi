# SPDX-License-Identifier: Apache-2.0
# For whoever puts a refusal in the place of these.

from collections.abc import Callable
from typing import IO, Any

def to_bytes(data: str | bytes) -> bytes: ...

load: Callable[[IO[bytes]], Any]
loads: Callable[[bytes], Any]
dump: Callable[..., None]
dumps: Callable[..., bytes]
