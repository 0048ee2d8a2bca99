"""Second targets: headers by which a request names another resource than its own (RFC 4918 section 10.3, copy sources).

Law: what a request names is judged as if it had been asked for. `Destination` is written, whatever the method;
a copy source is read. What cannot be read as a path of the same host is refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from urllib.parse import quote

from gateway.core.canonical import canonical_path, canonical_url
from gateway.core.reasons import Refusal
from gateway.core.request import RequestFacts

DESTINATION = "destination"
# Object stores: what a PUT copies from. S3 and those that speak it, Swift, Azure Blob Storage.
SOURCES = frozenset(
    {
        *("x-amz-copy-source", "x-goog-copy-source", "x-oss-copy-source", "x-cos-copy-source", "x-obs-copy-source"),
        *("x-bce-copy-source", "x-tos-copy-source", "x-copy-from", "x-ms-copy-source", "x-ms-rename-source"),
    }
)
_NAMES = SOURCES | {DESTINATION}
_TREE = frozenset({"COPY", "MOVE"})


@dataclass(frozen=True, slots=True)
class SecondTarget:
    """Another resource that a request names, as requests of their own; with `tree` what is below it is meant too."""

    requests: tuple[RequestFacts, ...]
    tree: bool


def second_targets(facts: RequestFacts) -> tuple[SecondTarget, ...] | Refusal:
    """What a request names beside its own target; `malformed_request` for what names no resource of this host."""
    if not any(name in _NAMES for name, _ in facts.headers):
        return ()
    tree = facts.method in _TREE
    targets = [SecondTarget((facts,), tree)] if tree else []
    for name in sorted({name for name, _ in facts.headers if name in _NAMES}):
        values = facts.header_values(name)
        path = _path(facts, name, values[0])
        if len(values) > 1 or path is None:
            return Refusal("malformed_request", name)
        methods = (facts.method, "PUT") if name == DESTINATION else ("GET",)
        other = replace(facts, path=path[0], segments=path[1], query="", query_fields=())
        targets.append(SecondTarget(tuple(replace(other, method=method) for method in dict.fromkeys(methods)), tree))
    return tuple(targets)


def destination_path(facts: RequestFacts, value: str) -> str | None:
    """The canonical path that a `Destination` names, None for none of ours."""
    path = _path(facts, DESTINATION, value)
    return None if path is None else path[0]


def in_terms_of(origin: str, facts: RequestFacts, headers: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """The headers with a judged `Destination` as a URL of the service's own `origin`.

    A service takes one of another origin for another server's (RFC 4918 section 9.8.5).
    """
    if not any(name == DESTINATION for name, _ in headers):
        return headers
    return [
        (name, f"{origin}{destination_path(facts, value) or ''}" if name == DESTINATION else value)
        for name, value in headers
    ]


def at_prefix(facts: RequestFacts, prefix: tuple[str, ...]) -> RequestFacts:
    """The same request for the resource at a rule's path."""
    return replace(facts, path=f"/{'/'.join(quote(segment, safe='') for segment in prefix)}", segments=prefix)


def _path(facts: RequestFacts, name: str, value: str) -> tuple[str, tuple[str, ...]] | None:
    if not value.isascii() or "#" in value:
        return None
    if name in SOURCES:
        # S3 writes "bucket/key" too, and a version behind a question mark.
        value = value.partition("?")[0]
        if "://" not in value:
            value = f"/{value.removeprefix('/')}"
    if "?" in value:
        return None
    if not value.startswith("/"):
        value = next((path for origin in _origins(facts) if (path := _below(origin, value)) is not None), "")
    return canonical_path(value.encode("ascii")) if value else None


def _origins(facts: RequestFacts) -> Iterator[str]:
    yield facts.origin
    if facts.authority != facts.host:
        yield f"https://{facts.host}"


def _below(origin: str, url: str) -> str | None:
    """The path of a URL of this origin."""
    canonical = canonical_url(url)
    path = canonical.removeprefix(origin) if canonical is not None and canonical.startswith(origin) else ""
    return path if path.startswith("/") else None
