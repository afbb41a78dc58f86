# SPDX-License-Identifier: Apache-2.0
"""Schemathesis draws requests from the OpenAPI document, right and wrong ones."""

import asyncio
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings

from tests.http.door import HOST, Door
from tests.http.test_description import DOCUMENT
from tests.http.test_keys import create

schemathesis = pytest.importorskip("schemathesis", reason="schemathesis is missing")
requests = pytest.importorskip("requests", reason="requests is missing")

EXAMPLES = 40
MODES = list(schemathesis.GenerationMode)


def operations() -> Iterator[object]:
    """Return the calls of the document; each request of the test has a right key."""
    document = {**DOCUMENT, "security": []}
    for each in schemathesis.openapi.from_dict(document).get_all_operations():
        yield each.ok()


@pytest.mark.asyncio
@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.value)
@pytest.mark.parametrize("operation", list(operations()), ids=lambda each: each.label)
async def test_every_answer_is_in_the_document(
    door: Door, operation: object, mode: object
) -> None:
    """Status, headers and body; what the document forbids is refused, and no bug shows."""
    key, answered = await create(door.node), 0

    @seed(20)
    @settings(
        max_examples=EXAMPLES,
        phases=(Phase.explicit, Phase.generate),
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(operation.as_strategy(generation_mode=mode))  # type: ignore[attr-defined]
    def ask(case: object) -> None:
        nonlocal answered
        response = case.call(  # type: ignore[attr-defined]
            base_url=f"https://{HOST}:{door.server.port}",
            session=session,
            verify=str(door.folder / "members-ca.pem"),
            headers={"Authorization": f"Bearer {key}"},
        )
        case.validate_response(  # type: ignore[attr-defined]
            response,
            # Some bounds are in no schema, such as those of a challenge.
            excluded_checks=[schemathesis.checks.positive_data_acceptance],
        )
        answered += 1

    with requests.Session() as session:
        session.trust_env = False
        await asyncio.to_thread(ask)
    assert answered
