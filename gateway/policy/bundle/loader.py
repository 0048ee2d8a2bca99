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
from gateway.policy.bundle.annotations import annotations_of, reason_texts
from gateway.policy.bundle.characters import misleading_characters
from gateway.policy.bundle.lint import as_error, wrong_names
from gateway.policy.bundle.model import Bundle, BundleError
from gateway.policy.contract import ENTRY_POINT, document_json
from gateway.policy.engines.compiled_policy import CompiledPolicy, Module, PolicyRejected

_RESERVED = ("gateway_bundle", "gateway_served", "gateway_scaffold", "system")
_VERSION_DIGITS = 12
_MAX_FILE_BYTES = 64 << 20


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
    problems: list[BundleError] = []
    modules = list(_modules(path, problems))
    data = _data(path / "data", services, problems)
    try:
        data_json = document_json(data).encode()
        policy = CompiledPolicy.load(modules, data_json, entry=ENTRY_POINT)
    except PolicyRejected as rejected:
        problems += map(as_error, rejected.problems)
        return None, problems
    except EngineFailure:
        problems.append(BundleError("data", 0, "a value cannot be written as JSON", "Numbers must be finite."))
        return None, problems
    problems += _in_the_way(policy)
    texts, wrong_texts = reason_texts(annotations_of(policy.annotations()))
    problems += wrong_texts
    if strict and not problems:
        problems += wrong_names(policy, data)
    if problems:
        policy.close()
        return None, problems
    digest = hashlib.sha256(document_json(modules).encode() + b"\0" + data_json).hexdigest()
    return Bundle(tuple(modules), data_json, digest[:_VERSION_DIGITS], policy, texts), ()


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


def _text(name: str, file: Path, problems: list[BundleError]) -> str | None:
    try:
        if file.stat().st_size > _MAX_FILE_BYTES:
            fix = f"Split it, or leave out what no rule reads; a file has at most {_MAX_FILE_BYTES >> 20} MiB."
            problems.append(BundleError(name, 0, "the file is too large", fix))
            return None
        # As it stands: Python's text mode would make a new line of a carriage return that OPA reads as a comment.
        return file.read_bytes().decode("utf-8")
    except UnicodeDecodeError:
        problems.append(BundleError(name, 0, "the file is not UTF-8", "Save it as UTF-8."))
    except OSError as error:
        problems.append(BundleError(name, 0, f"the file cannot be read ({error.strerror})", "Check its permissions."))
    return None


def _modules(path: Path, problems: list[BundleError]) -> Iterator[Module]:
    for name, file in _files(path, ".rego"):
        if not name.endswith("_test.rego") and (source := _text(name, file, problems)) is not None:
            problems += misleading_characters(name, source)
            yield name, source


def _data(folder: Path, services: Mapping[str, Any], problems: list[BundleError]) -> dict[str, Any]:
    data: dict[str, Any] = {"gateway": {"services": dict(services)}}
    for name, file in _files(folder, ".json"):
        text = _text(name, file, problems)
        if text is None:
            continue
        label = f"data/{name}"
        try:
            value = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
        except json.JSONDecodeError as error:
            problems.append(BundleError(label, error.lineno, error.msg, "Correct the JSON."))
            continue
        except (ValueError, RecursionError) as error:
            problems.append(BundleError(label, 0, str(error), "Correct the JSON."))
            continue
        for part in reversed(name.split("/")[:-1]):
            value = {part: value}
        if not isinstance(value, dict):
            problems.append(BundleError(label, 0, "the file is no JSON object", "Give every value a name."))
        elif (clash := _merge(data, value, ())) is not None:
            what = f"data.{'.'.join(clash)} is there already"
            fix = "data.gateway.services comes from the configuration; every other place may be filled once."
            problems.append(BundleError(label, 0, what, fix))
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


def _in_the_way(policy: CompiledPolicy) -> Iterator[BundleError]:
    """Packages where something else stands: what the gateway itself keeps in an OPA server, and OPA's own."""
    for file, package in policy.packages.items():
        if package[0] in _RESERVED:
            yield BundleError(file, 1, f"the package name {package[0]} is reserved", "Give the package another name.")
        if package[:2] == ("gateway", "services"):
            message = "data.gateway.services comes from the configuration"
            yield BundleError(file, 1, message, "Give the package another name.")
