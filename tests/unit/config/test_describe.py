"""The schema and the page in the documentation say what the models say."""

from __future__ import annotations

from typing import Any

import jsonschema
import pytest
import yaml

from gateway.config import SCHEMA_LINE, json_schema, markdown
from tests.support.paths import ROOT

PAGE = ROOT / "docs" / "configuration.md"
GOOD = """
tls: [{certificate: a, key: b}]
services:
  wiki: {host: wiki.corp, upstream: 'http://a', introspect: 5, paths: {/a: {methods: [GET]}}}
  shop: {host: shop.corp, upstream: {urls: ['http://a']}, introspect: never}
"""


def test_the_page_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == markdown(), "run `gateway config docs -o docs/configuration.md`"


def test_the_schema_is_valid_and_takes_a_good_file() -> None:
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(yaml.safe_load(GOOD), schema)
    assert SCHEMA_LINE == "# yaml-language-server: $schema=gateway.schema.json"


@pytest.mark.parametrize(
    ("old", "new"), [("upstream:", "upstreem:"), ("[GET]", "[get]"), ("never", "sometimes"), ("wiki.corp", "WIKI")]
)
def test_the_schema_refuses_a_bad_file(old: str, new: str) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(yaml.safe_load(GOOD.replace(old, new)), json_schema())


def test_every_key_is_described() -> None:
    schema = json_schema()
    definitions: dict[str, Any] = schema["$defs"]
    for title, definition in {"Config": schema, **definitions}.items():
        for key, field in definition["properties"].items():
            model = definitions.get(field.get("$ref", "").rpartition("/")[2], {})
            assert field.get("description") or model.get("description"), f"{title}.{key}"
