# SPDX-License-Identifier: Apache-2.0
"""The OpenAPI document, the page about it, and whether the door answers as they say."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from sparecode_node.http.description import OPENAPI
from sparecode_node.http.problems import STATUS
from sparecode_node.http.v1 import FIRST_FIELDS, NEXT_FIELDS
from sparecode_node.statemachine.results import Decision
from tests.http.door import Door

DOCUMENT = json.loads(OPENAPI)
SCHEMAS = DOCUMENT["components"]["schemas"]
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=40),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=9), inner, max_size=3)
    ),
    max_leaves=5,
)


def valid(name: str, body: object) -> bool:
    """Return whether a body fits a schema of the document."""
    root = {
        "$ref": f"#/components/schemas/{name}",
        "components": DOCUMENT["components"],
    }
    return bool(Draft202012Validator(root).is_valid(body))


def test_the_document_has_every_field() -> None:
    assert set(SCHEMAS["Authenticate"]["properties"]) == FIRST_FIELDS
    assert set(SCHEMAS["Continue"]["properties"]) == NEXT_FIELDS
    assert SCHEMAS["Answer"]["properties"]["decision"]["enum"] == [
        each.name for each in Decision
    ]


def test_every_schema_is_one_of_json_schema() -> None:
    for schema in SCHEMAS.values():
        Draft202012Validator.check_schema(schema)
    assert DOCUMENT["openapi"] == "3.1.0"


def test_the_page_has_the_statuses_of_the_table_of_errors() -> None:
    text = (Path(__file__).parents[2] / "docs/http.md").read_text()
    _, _, table = text.partition("| gRPC | HTTP |\n")
    told = re.findall(r"^\| ([A-Z_]+) \| (\d+) \|$", table, re.MULTILINE)
    named = {code.name: status for code, status in STATUS.items()}
    assert len(told) > 5
    assert {code: int(status) for code, status in told}.items() <= named.items()


@pytest.mark.asyncio
async def test_both_are_served_to_anyone(door: Door) -> None:
    """They hold no secret; the page loads nothing and runs nothing."""
    async with door.stranger() as stranger:
        document = await stranger.get("/openapi.json")
        page = await stranger.get("/docs")
    assert document.json() == DOCUMENT
    policy = page.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'")
    assert "<script" not in page.text
    assert "src=" not in page.text
    for path in DOCUMENT["paths"]:
        assert path in page.text


@pytest.mark.asyncio
@pytest.mark.parametrize("path", DOCUMENT["paths"])
async def test_null_stands_for_a_missing_field_alone(door: Door, path: str) -> None:
    """As the document says of each field; a program that leaves none out may send it."""
    body = DOCUMENT["paths"][path]["post"]["requestBody"]["content"]
    name = body["application/json"]["schema"]["$ref"].rpartition("/")[2]
    fields, required = SCHEMAS[name]["properties"], set(SCHEMAS[name]["required"])
    for field in fields:
        sent = dict.fromkeys(required, "AQAB") | {field: None}
        answer = await door.client.post(path, json=sent)
        is_refused = f"{field}: must be text" in answer.text
        assert is_refused == (field in required), (field, answer.text)
        assert valid(name, sent) != is_refused, field


@pytest.mark.asyncio
@pytest.mark.parametrize("path", ["/v1/authenticate", "/v1/continue"])
async def test_answers_to_any_body_are_as_documented(door: Door, path: str) -> None:
    """Each status is in the document, and each body fits its schema."""
    call = DOCUMENT["paths"][path]["post"]
    bodies: list[Any] = []
    names = sorted(FIRST_FIELDS | NEXT_FIELDS)

    @settings(
        max_examples=60,
        database=None,
        deadline=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(VALUES | st.dictionaries(st.sampled_from(names), VALUES, max_size=6))
    def draw(body: object) -> None:
        bodies.append(body)

    draw()
    for body in bodies:
        response = await door.client.post(
            path,
            content=json.dumps(body).encode(),
            headers={"content-type": "application/json"},
        )
        documented = call["responses"][str(response.status_code)]["content"]
        kind = response.headers["content-type"]
        name = documented[kind]["schema"]["$ref"].rpartition("/")[2]
        assert valid(name, response.json()), (body, response.text)
        assert response.status_code < 500, (body, response.text)
    assert len(bodies) > 20
