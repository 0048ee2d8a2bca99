"""The configuration's JSON Schema for editors and docs/configuration.md, both made from the models."""

from __future__ import annotations

from typing import Any

from gateway.config.models import Config

SCHEMA_LINE = "# yaml-language-server: $schema=gateway.schema.json"


def json_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of the configuration file."""
    schema = Config.model_json_schema()
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "gateway.yaml",
        **{key: value for key, value in schema.items() if key != "title"},
    }


def markdown() -> str:
    """Every key with its type, default and meaning."""
    schema = json_schema()
    definitions: dict[str, Any] = schema["$defs"]
    lines = [
        "# Configuration",
        "",
        "One YAML file, `gateway.yaml`. This page is made by `gateway config docs`.",
        "",
        "- An unknown key is an error. So is a scalar that YAML readers disagree about (`no`, `0777`, `12:30`).",
        "- Relative paths start at the file's own folder.",
        "- Secrets never stand in the file: a secret is `{file: path}` (mode 0600) or `{env: NAME}`.",
        f"- `gateway config schema` writes the JSON Schema. Editors find it by the line `{SCHEMA_LINE}`.",
        "- `gateway check` looks at the file and at everything it names.",
        "",
    ]
    lines += _section("The file", {**schema, "description": "The top level."}, definitions)
    for name in _in_order(schema, definitions):
        lines += _section(name, definitions[name], definitions)
    return "\n".join(lines).rstrip() + "\n"


def _in_order(schema: dict[str, Any], definitions: dict[str, Any]) -> list[str]:
    """The definitions as a reader meets them from the top."""
    order: list[str] = []

    def visit(part: Any) -> None:
        if isinstance(part, dict):
            name = part.get("$ref", "").rpartition("/")[2]
            if name and name not in order:
                order.append(name)
                visit(definitions[name])
            for value in part.values():
                visit(value)
        elif isinstance(part, list):
            for value in part:
                visit(value)

    visit(schema["properties"])
    return order


def _section(title: str, definition: dict[str, Any], definitions: dict[str, Any]) -> list[str]:
    required = definition.get("required", [])
    description = definition.get("description", "")
    lines = [f"## {title}", "", description, "", "| key | type | default | meaning |", "| --- | --- | --- | --- |"]
    for key, field in definition["properties"].items():
        default = "**required**" if key in required else _default(field.get("default"))
        # A description that is its model's own is left out of the schema.
        model = definitions.get(field.get("$ref", "").rpartition("/")[2], {})
        meaning = field.get("description") or model.get("description", "")
        cells = (f"`{key}`", _type(field), default, meaning)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return [*lines, ""]


def _default(value: Any) -> str:
    if value is None or value in ("", [], {}) or isinstance(value, dict):
        return ""
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return f"`{text.lower() if isinstance(value, bool) else text}`"


def _type(field: dict[str, Any]) -> str:
    for union in ("anyOf", "oneOf"):
        if union in field:
            return " or ".join(_type(member) for member in field[union] if member.get("type") != "null")
    if "$ref" in field:
        name = field["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "enum" in field:
        return " or ".join(f"`{word}`" for word in field["enum"])
    if "const" in field:
        return f"`{field['const']}`"
    if field.get("type") == "array":
        return f"list of {_type(field['items'])}"
    if field.get("type") == "object":
        patterns: dict[str, Any] = field.get("patternProperties", {})
        values: dict[str, Any] = field.get("additionalProperties") or next(iter(patterns.values()), {})
        return f"mapping to {_type(values)}"
    kinds = {"string": "text", "integer": "whole number", "number": "number", "boolean": "true or false"}
    formats = {"path": "path", "ipv4network": "IPv4 network", "ipv6network": "IPv6 network"}
    return formats.get(field.get("format", ""), kinds.get(field.get("type", ""), "value"))
