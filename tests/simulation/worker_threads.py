# SPDX-License-Identifier: Apache-2.0
"""What a worker thread does, and what the engine's thread does after it, as two steps."""

from collections.abc import Callable

from sparecode_node.replication.errors import Fatal
from sparecode_node.replication.replica.replica import Replica


def steps_of(
    work: Callable[[], object], then: Callable[[], object]
) -> tuple[Callable[[], None], Callable[[Replica], None]]:
    """Return the step of a worker thread, and that of the engine, which gets its error."""
    errors: list[BaseException] = []

    def tried() -> None:
        try:
            work()
        except (Exception, Fatal) as error:  # noqa: BLE001 - raised below.
            errors.append(error)

    def go_on(_replica: Replica) -> None:
        for error in errors:
            raise error
        then()

    return tried, go_on
