"""The configuration file -> `Config`, or `ConfigError` with the line and the fix of every problem found."""

from __future__ import annotations

import difflib
import json
import os
import types
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from gateway.config import checks
from gateway.config.document import LIMIT_BYTES, Document, Node, parse
from gateway.config.models import Config, Secret, Service
from gateway.config.problems import ConfigError, Loc, Problem, is_secret

_SHAPES = {
    r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$": "a short name of a-z, 0-9 and hyphens, such as wiki or hr-portal",
    r"^(\*\.)?[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$": "a lower-case host name, such as wiki.corp.internal",
    r"^[A-Z][A-Z0-9-]{0,63}$": "a method in upper case, such as GET",
    r"^[A-Z]{2}$": "a country of two upper-case letters, such as DE",
    r"^https?://[^\s?#]+$": "an address that starts with https://, without query and fragment",
    r"^https?://[^\s/?#]+$": "an address such as https://10.0.0.5:8443, without path, query and fragment",
    r"^/[^\s?#%]*$": "a path that starts with /, decoded (no %), without query",
    r"^/": "a path that starts with /",
}
_TYPES = {
    "string_type": "text",
    "bool_type": "true or false",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "tuple_type": "a list",
    "dict_type": "a mapping of names to values",
    "model_type": "a mapping of keys to values",
    "path_type": "a path",
}
_RECORD_WORDS = frozenset({"record", "recording", "log", "logs", "logging", "access_log", "audit", "trace", "metrics"})


@dataclass(frozen=True, slots=True)
class Loaded:
    """A configuration and the document it came from, for those who have to name lines."""

    config: Config
    document: Document


def load(path: Path, *, environ: Mapping[str, str] | None = None) -> Config:
    """Read one configuration file. Raises `ConfigError` and nothing else; `environ` is os.environ by default."""
    return read(path, environ=environ).config


def read(path: Path, *, environ: Mapping[str, str] | None = None) -> Loaded:
    """As `load`, with the document."""
    path = path.absolute()
    document = parse(_bytes(path), path)
    config = _validate(document)
    config = _anchored(config, path.parent)
    findings = [*checks.unsafe(config), *checks.environment(os.environ if environ is None else environ)]
    if findings:
        raise ConfigError(
            document.problem(finding.loc, finding.message, finding.fix)
            if finding.loc
            else Problem(path, 0, 0, finding.key, finding.message, finding.fix)
            for finding in findings
        )
    return Loaded(config, document)


def _bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(LIMIT_BYTES + 1)
    except FileNotFoundError:
        message, fix = "There is no such file.", "Run `gateway init`, or name the file with --config."
    except (OSError, ValueError) as error:
        message = f"The file cannot be read ({getattr(error, 'strerror', None) or 'bad name'})."
        fix = "Let the user who runs the gateway read it."
    raise ConfigError([Problem(path, 0, 0, "", message, fix)])


def _validate(document: Document) -> Config:
    if not isinstance(document.root.data, dict):
        message = "The file must be a mapping of keys to values."
        raise ConfigError([document.problem((), message, "Run `gateway init` for a file to start from.")])
    try:
        return Config.model_validate_json(json.dumps(document.root.data), strict=True)
    except ValidationError as error:
        # The document is named, never shown: nothing of `error` but its places and kinds goes on from here.
        details = error.errors(include_url=False, include_input=False)
    problems: dict[Loc, Problem] = {}
    for detail in details:
        loc = _place(document.root, detail)
        node = document.find(loc)
        if detail["type"] == "too_short" and node is not None and node.children:
            continue  # the entries that are there have problems of their own
        problems.setdefault(loc, _problem(document, loc, detail))
    raise ConfigError(problems.values())


def _place(root: Node, detail: ErrorDetails) -> Loc:
    """The place of an error without the parts pydantic adds for the members of a union."""
    loc: list[str | int] = []
    node = root
    for part in detail["loc"]:
        child = node.children.get(part)
        if child is not None:
            loc.append(part)
            node = child
    if detail["type"] == "missing":
        loc.append(detail["loc"][-1])
    return tuple(loc)


def _problem(document: Document, loc: Loc, detail: ErrorDetails) -> Problem:
    kind, context = detail["type"], detail.get("ctx", {})
    model, description = _model(loc)
    node = document.find(loc)
    if kind == "missing":
        return document.problem(loc, f"`{loc[-1]}` is missing.", f"Add it: {description}")
    if kind == "extra_forbidden":
        owner, _ = _model(loc[:-1])
        return _unknown(document, loc, owner)
    if model is Secret and kind == "model_type":
        message = "A secret never stands in this file." if node and node.data is not None else "The secret is missing."
        return document.problem(loc, message, "Name its place: `{file: secrets/name}` or `{env: NAME}`.")
    if node is not None and node.data is None:
        return document.problem(loc, "This key has no value.", f"Give it one, or remove it. {description}")
    if kind in _TYPES:
        wanted = _TYPES[kind]
        scalar = node is not None and isinstance(node.data, (bool, int, float))
        fix = 'Put it in quotes: "...".' if wanted == "text" and scalar else f"Write {wanted}. {description}"
        return document.problem(loc, f"This must be {wanted}.", fix)
    if kind == "string_pattern_mismatch":
        wanted = _SHAPES.get(context.get("pattern", ""), "of another form")
        what = "The name" if detail["loc"][-1] == "[key]" else "This"
        return document.problem(loc, f"{what} must be {wanted}.", f"Correct it. {description}".strip())
    if kind == "literal_error":
        return document.problem(loc, f"This must be {context['expected']}.", f"Write one of these. {description}")
    if kind in {"too_short", "missing_argument"}:
        return document.problem(loc, "At least one entry is needed.", f"Add one. {description}")
    if loc[:1] == ("trusted_proxies",):
        return document.problem(loc, "This must be a network without host bits.", "Write it like 10.0.0.0/8.")
    message = detail["msg"].replace("Input should", "This must", 1).rstrip(".")
    return document.problem(loc, f"{message}.", f"Correct it. {description}".strip())


def _unknown(document: Document, loc: Loc, owner: type[BaseModel] | None) -> Problem:
    name, known = str(loc[-1]), sorted(owner.model_fields) if owner else []
    if owner is Secret or is_secret(loc):
        fix = f"Write one of: {', '.join(known)}." if known else "Remove it."
        return document.problem(loc[:-1], "A key here is unknown.", fix)
    if owner is Service and name in _RECORD_WORDS:
        message = f"`{name[:80]}` is unknown: a service cannot choose what is recorded."
        return document.problem(loc, message, "Remove it; `plane: staff` is always recorded, `plane: user` never.")
    nearest = difflib.get_close_matches(name[:80], known, n=1, cutoff=0.5)
    fix = f"Did you mean `{nearest[0]}`?" if nearest else f"Remove it, or write one of: {', '.join(known)}."
    return document.problem(loc, f"`{name[:80]}` is unknown.", fix)


def _model(loc: Loc) -> tuple[type[BaseModel] | None, str]:
    """The model that stands at a place of the file (None for a plain value), and what the place is for."""
    annotation: Any = Config
    description = "What the gateway needs to know."
    for part in loc:
        annotation = _bare(annotation)
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            field = annotation.model_fields.get(str(part))
            if field is None:
                return None, ""
            annotation, description = field.annotation, field.description or ""
        elif get_origin(annotation) in {tuple, dict}:
            arguments = get_args(annotation)
            annotation = arguments[1] if get_origin(annotation) is dict else arguments[0]
        else:
            return None, description
    annotation = _bare(annotation)
    is_model = isinstance(annotation, type) and issubclass(annotation, BaseModel)
    return (annotation if is_model else None), description


def _bare(annotation: Any) -> Any:
    """An annotation without Annotated and None; of a union, the member with most structure."""
    while get_origin(annotation) in {Annotated, Union, types.UnionType}:
        if get_origin(annotation) is Annotated:
            annotation = get_args(annotation)[0]
            continue
        members = [_bare(member) for member in get_args(annotation) if member is not type(None)]
        models = [m for m in members if (isinstance(m, type) and issubclass(m, BaseModel)) or get_origin(m) is tuple]
        annotation = (models or [m for m in members if get_origin(m) is not Literal] or members)[0]
    return annotation


def _anchored[Value](value: Value, folder: Path) -> Value:
    """A value with every relative path below it made absolute."""
    anchored: Any = value
    if isinstance(value, Path):
        anchored = folder / value
    elif isinstance(value, BaseModel):
        changed: dict[str, Any] = {}
        for name in type(value).model_fields:
            old = getattr(value, name)
            if (new := _anchored(old, folder)) is not old:
                changed[name] = new
        anchored = value.model_copy(update=changed) if changed else value
    elif isinstance(value, tuple):
        items = tuple(_anchored(item, folder) for item in value)
        anchored = items if any(new is not old for new, old in zip(items, value, strict=True)) else value
    elif isinstance(value, dict):
        entries = {name: _anchored(item, folder) for name, item in value.items()}
        anchored = entries if any(entries[name] is not value[name] for name in value) else value
    return anchored  # type: ignore[no-any-return]
