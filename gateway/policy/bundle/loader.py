"""A bundle: the Rego modules and the data that decide, checked as a whole before any of it is used.

A policy folder holds *.rego files at any depth (*_test.rego is left out) and data/**/*.json. A data file's members are
merged where its folder says, as OPA does for a folder: data/gateway/settings.json is merged into data.gateway. The
configured services come in as data.gateway.services.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from gateway.config import Allow, Service, rules_of
from gateway.core.ports.pipeline import EngineFailure
from gateway.policy.bundle import input_paths as reads
from gateway.policy.bundle import lint as typos
from gateway.policy.bundle import portability as portable
from gateway.policy.bundle.merge import merge
from gateway.policy.bundle.model import Bundle, BundleError
from gateway.policy.contract import ENTRY_POINT, document_json
from gateway.policy.engines import embedded as rego

_ENTRY = tuple(ENTRY_POINT.split(".")[1:])
_RESERVED = ("gateway_bundle", "gateway_served", "gateway_probe", "system")
_VERSION_DIGITS = 12


def load(path: Path, services: Mapping[str, Any], *, strict: bool = False) -> Bundle:
    """The bundle of a policy folder; `services` as from `service_data`. Raises `BundleError`, the first problem."""
    bundle, found = examine(path, services, strict=strict)
    if bundle is None:
        raise found[0]
    return bundle


def examine(
    path: Path, services: Mapping[str, Any], *, strict: bool = False
) -> tuple[Bundle | None, Sequence[BundleError]]:
    """The bundle and no problems, or None and every problem that can be seen.

    `strict`, as the gateway itself loads it: what says nothing because of a wrong name is a problem too.
    """
    found: list[BundleError] = []
    modules = list(_modules(path, found))
    data = _data(path / "data", services, found)
    outlines: list[tuple[str, portable.Outline]] = []
    for name, source in modules:
        try:
            outlines.append((name, portable.outline(rego.syntax((name, source)), source)))
        except rego.RegoError as error:
            found.append(BundleError(name, error.line, error.message, "Correct the syntax; `opa check` says more."))
    if not found:
        found += _portability(outlines)
        found += _places(outlines, data)
    if found:
        return None, found
    try:
        data_json = document_json(data)
        rego.prepare(modules, data_json)
        packages = merge(modules)
        read = reads.paths(module.tree for _, module in outlines)
        if strict and (found := [*_typos(outlines)]):
            return None, found
    except rego.RegoError as error:
        return None, [BundleError(error.file, error.line, error.message, "Correct it; `opa check --strict` says more.")]
    except ValueError as error:
        return None, [BundleError("policy", 0, str(error), "Give one of the two another alias.")]
    except EngineFailure:
        return None, [BundleError("data", 0, "a value cannot be written as JSON", "Numbers must be finite.")]
    digest = hashlib.sha256(document_json([modules, data]).encode()).hexdigest()
    return Bundle(tuple(modules), packages, read, data, data_json, digest[:_VERSION_DIGITS]), ()


def service_data(services: Mapping[str, Service]) -> dict[str, Any]:
    """data.gateway.services: every service with its defaults filled in, and each path rule in full under `paths`."""
    return {
        name: {
            "plane": service.plane,
            "department": service.department,
            "sensitivity": service.sensitivity,
            "device": service.device,
            "allow": _allow(service.allow, service),
            "paths": {
                "": {"device": service.device, "allow": _allow(service.allow, service)},
                **{
                    prefix: {"device": rule.device, "allow": _allow(rule.allow or service.allow, service)}
                    for prefix, rule in rules_of(service).items()
                },
            },
        }
        for name, service in services.items()
    }


def _allow(allow: Allow, service: Service) -> dict[str, Any]:
    departments = allow.departments or ((service.department,) if service.department else ())
    mfa = (service.plane == "staff" and not allow.public) if allow.mfa is None else allow.mfa
    return {
        "public": allow.public,
        "roles": list(allow.roles),
        "departments": list(departments),
        "countries": list(allow.countries),
        "mfa": mfa if isinstance(mfa, bool) else {"methods": list(mfa.methods), "max_age_s": mfa.max_age_s},
        "read_only_roles": list(allow.read_only_roles),
    }


def _files(folder: Path, suffix: str) -> Iterator[tuple[str, Path]]:
    """Files below a folder, in order. Hidden folders are left out: mounted config maps keep second copies there."""
    for file in sorted(folder.rglob(f"*{suffix}")):
        parts = file.relative_to(folder).parts
        if file.is_file() and not any(part.startswith(".") for part in parts):
            yield "/".join(parts), file


def _text(name: str, file: Path, found: list[BundleError]) -> str | None:
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        found.append(BundleError(name, 0, "the file is not UTF-8", "Save it as UTF-8."))
    except OSError as error:
        found.append(BundleError(name, 0, f"the file cannot be read ({error.strerror})", "Check its permissions."))
    return None


def _modules(path: Path, found: list[BundleError]) -> Iterator[rego.Module]:
    for name, file in _files(path, ".rego"):
        if not name.endswith("_test.rego") and (source := _text(name, file, found)) is not None:
            yield name, source


def _data(folder: Path, services: Mapping[str, Any], found: list[BundleError]) -> dict[str, Any]:
    data: dict[str, Any] = {"gateway": {"services": dict(services)}}
    for name, file in _files(folder, ".json"):
        text = _text(name, file, found)
        if text is None:
            continue
        label = f"data/{name}"
        try:
            value = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
        except json.JSONDecodeError as error:
            found.append(BundleError(label, error.lineno, error.msg, "Correct the JSON."))
            continue
        except (ValueError, RecursionError) as error:
            found.append(BundleError(label, 0, str(error), "Correct the JSON."))
            continue
        for part in reversed(name.split("/")[:-1]):
            value = {part: value}
        if not isinstance(value, dict):
            found.append(BundleError(label, 0, "the file is no JSON object", "Give every value a name."))
        elif (clash := _merge(data, value, ())) is not None:
            what = f"data.{'.'.join(clash)} is there already"
            fix = "data.gateway.services comes from the configuration; every other place may be filled once."
            found.append(BundleError(label, 0, what, fix))
    return data


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a member stands twice in one object")
    return value


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON number")


def _merge(into: dict[str, Any], value: Mapping[str, Any], at: tuple[str, ...]) -> tuple[str, ...] | None:
    """Merge objects in place; answers the path of a value that both have."""
    for name, member in value.items():
        here = (*at, name)
        if here[0] in _RESERVED or here == ("gateway", "services"):
            return here
        if name not in into:
            into[name] = member
        elif isinstance(into[name], dict) and isinstance(member, dict):
            if (clash := _merge(into[name], member, here)) is not None:
                return clash
        else:
            return here
    return None


def _portability(outlines: Sequence[tuple[str, portable.Outline]]) -> Iterator[BundleError]:
    functions = {(*module.package, name): arity for _, module in outlines for name, arity in module.functions.items()}
    rules: dict[tuple[str, ...], frozenset[str]] = {}
    for _, module in outlines:
        rules[module.package] = rules.get(module.package, frozenset()) | module.rules
    for file, module in outlines:
        for problem in portable.problems(module, functions, rules[module.package]):
            yield BundleError(file, problem.line, problem.message, problem.fix)
    if (loop := portable.recursion(outlines)) is not None:
        yield BundleError(loop[0], loop[1].line, loop[1].message, loop[1].fix)


def _typos(outlines: Sequence[tuple[str, portable.Outline]]) -> Iterator[BundleError]:
    rules: dict[tuple[str, ...], frozenset[str]] = {}
    for _, module in outlines:
        rules[module.package] = rules.get(module.package, frozenset()) | module.rules
    found = list(typos.unasked(outlines, _ENTRY))
    for file, module in outlines:
        found += [(file, problem) for problem in typos.unknown_input(module)]
        found += [(file, problem) for problem in typos.unbound(module, rules[module.package])]
    for file, problem in found:
        yield BundleError(file, problem.line, problem.message, problem.fix)


def _places(outlines: Sequence[tuple[str, portable.Outline]], data: Mapping[str, Any]) -> Iterator[BundleError]:
    """The entry point is there, and no rule stands where data stands."""
    if not any((*module.package, rule) == _ENTRY for _, module in outlines for rule in module.rules):
        message = f"no rule gives {ENTRY_POINT}"
        yield BundleError("policies", 0, message, "Keep gateway/authz.rego, or write `package gateway.authz` anew.")
    for file, module in outlines:
        for rule in sorted(module.rules):
            path = (*module.package, rule)
            if path[0] in _RESERVED or _occupied(data, path):
                message = f"data.{'.'.join(path)} is data (or reserved), and a rule as well"
                yield BundleError(file, 1, message, "Give the rule or its package another name.")


def _occupied(data: object, path: Sequence[str]) -> bool:
    for part in path:
        if not isinstance(data, Mapping):
            return True
        if part not in data:
            return False
        data = data[part]
    return True
