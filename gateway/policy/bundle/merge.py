"""All files of a package as one module, for an OPA server that is filled over its REST API.

That API takes one module at a time and refuses a module whose rules it does not know yet, so files of one package that
use each other can only go in together. Pure functions; what cannot be merged without a change of meaning is refused.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from gateway.policy.bundle import portability as portable
from gateway.policy.engines import embedded as rego


def merge(modules: Sequence[rego.Module]) -> dict[str, str]:
    """Package path (joined by "/") -> source. Raises ValueError where an import of one file would touch another."""
    packages: dict[tuple[str, ...], list[tuple[str, str, portable.Outline]]] = {}
    for name, source in modules:
        module = portable.outline(rego.syntax((name, source)), source)
        packages.setdefault(module.package, []).append((name, source, module))
    return {"/".join(package): _one(package, files) for package, files in packages.items()}


def _one(package: tuple[str, ...], files: Sequence[tuple[str, str, portable.Outline]]) -> str:
    imports: dict[str, tuple[str, ...]] = {}
    for name, _, module in files:
        for alias, path in module.aliases.items():
            if imports.setdefault(alias, path) != path:
                raise ValueError(f"{name} and another file of its package import two things as {alias}")
    bodies = []
    for name, source, module in files:
        foreign = imports.keys() - module.aliases.keys()
        if names := foreign & (set(_variables(module.tree["rules"])) | module.rules):
            raise ValueError(f"{name} uses the name {min(names)}, which another file of its package imports")
        head = {module.tree["package"]["span"]["line"], *module.roots.values()}
        if any(next(iter(rule.values()))["span"]["line"] in head for rule in module.tree["rules"]):
            raise ValueError(f"{name} has a rule on the line of its package or of an import")
        lines = source.splitlines()
        bodies.append("\n".join("" if number in head else line for number, line in enumerate(lines, 1)))
    statements = [f"import {_reference(path)} as {alias}" for alias, path in imports.items() if path[0] != "rego"]
    return "\n\n".join([f"package {_reference(package)}", *statements, *bodies]) + "\n"


def _reference(path: Sequence[str]) -> str:
    return path[0] + "".join(f"[{json.dumps(part)}]" for part in path[1:])


def _variables(node: Any) -> Iterator[str]:
    waiting = [node]
    while waiting:
        current = waiting.pop()
        if isinstance(current, Mapping):
            if "Var" in current:
                yield current["Var"]["value"]
            waiting.extend(current.values())
        elif isinstance(current, list):
            waiting.extend(current)
