"""Which parts of the input a bundle can read: found in the syntax trees, never guessed.

Policies are pure, so two inputs that agree in everything the policies can read have the same answer. Where the trees do
not say which part is read (a variable as a key, the input handed on as a whole), the longest prefix that they do say
counts as read with everything below it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pydantic_core import to_json

type Path = tuple[str, ...]


def paths(trees: Iterable[Mapping[str, Any]]) -> tuple[Path, ...]:
    """The parts read, none inside another; `((),)` when the input is read as a whole."""
    found = {path for tree in trees for path in _visit(tree)}
    return tuple(sorted(path for path in found if not any(path[:size] in found for size in range(len(path)))))


def _visit(node: object) -> Iterator[Path]:
    if isinstance(node, list):
        for item in node:
            yield from _visit(item)
    elif isinstance(node, dict):
        if len(node) == 1 and (kind := next(iter(node))) in {"Var", "RefDot", "RefBrack"}:
            yield from _reference(kind, node[kind])
        else:
            for part in node.values():
                yield from _visit(part)


def _reference(kind: str, body: Mapping[str, Any]) -> Iterator[Path]:
    """A reference from its end to its root: the keys that are known without a gap from the root on are the path."""
    keys: list[str | None] = []
    while kind != "Var":
        if kind == "RefDot":
            keys.append(body["field"][1])
        elif kind == "RefBrack":
            index_kind, index = next(iter(body["index"].items()))
            # An escape in a literal is not worked out here: what follows it counts as read.
            known = index_kind == "String" and "\\" not in index["value"]
            keys.append(index["value"] if known else None)
            yield from _visit(body["index"])
        else:
            # A call or a comprehension that is indexed: what it is made of is looked at by itself.
            yield from _visit({kind: body})
            return
        kind, body = next(iter(body["refr"].items()))
    if body["value"] == "input":
        path: list[str] = []
        for key in reversed(keys):
            if key is None:
                break
            path.append(key)
        yield tuple(path)


def key_of(document: Mapping[str, Any], reads: Iterable[Path]) -> bytes:
    """What is read of `document`, as bytes; two documents with the same bytes have the same answer.

    Raises ValueError for what JSON cannot say.
    """
    values: list[list[Any]] = []
    for path in reads:
        value: Any = document
        for name in path:
            if not isinstance(value, dict) or name not in value:
                values.append([])
                break
            value = value[name]
        else:
            values.append([value])
    return to_json(values)
