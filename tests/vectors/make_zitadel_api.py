"""Makes zitadel_api.json anew from Zitadel's published interface descriptions.

`python tests/vectors/make_zitadel_api.py PROTO`, where PROTO is the unpacked npm package `@zitadel/proto` (1.3.1, MIT),
in an environment with `zitadel-client` (4.1.9, Apache-2.0), `protobuf` and `googleapis-common-protos`. REST calls are
taken from the descriptors of the protos, Connect calls from the SDK, which has newer services. Only names and types:
the calls below, and what they refer to.
"""

from __future__ import annotations

import base64
import importlib
import json
import re
import sys
from enum import Enum
from pathlib import Path
from typing import Any

CONNECT = {
    "action.v2.ActionService": (
        *("CreateTarget", "ListTargets", "UpdateTarget", "DeleteTarget", "SetExecution", "ListExecutions"),
    ),
    "application.v2.ApplicationService": (
        *("ListApplications", "CreateApplication", "UpdateApplication", "GenerateClientSecret"),
        "CreateApplicationKey",
    ),
    "internal_permission.v2.InternalPermissionService": (
        *("ListAdministrators", "CreateAdministrator", "UpdateAdministrator"),
    ),
    "org.v2.OrganizationService": ("ListOrganizations",),
    "project.v2.ProjectService": (
        *("ListProjects", "CreateProject", "UpdateProject", "ListProjectRoles", "AddProjectRole"),
    ),
    "user.v2.UserService": ("ListUsers", "CreateUser", "AddPersonalAccessToken"),
}
REST = re.compile(
    r"/admin/v1/(policies/(login|lockout|password/(lockout|complexity|age))|settings/oidc|events/(types/)?_search)"
    r"|/v2/(sessions(/search|/\{[a-z_]+\})?|users/\{[a-z_]+\}(/(lock|unlock|deactivate|reactivate|authentication_methods))?"
    r"|settings/(login|lockout|security|password/(complexity|expiry)))"
)
FILES = ("admin", "session/v2/session_service", "user/v2/user_service", "settings/v2/settings_service")
WELL_KNOWN = {
    "google.protobuf.Timestamp": "time",
    "google.protobuf.Duration": "duration",
    "google.protobuf.Struct": "any",
    "google.protobuf.Any": "any",
}


class Protos:
    """The descriptors of the npm package and everything that they import."""

    def __init__(self, folder: Path) -> None:
        self.pb = importlib.import_module("google.protobuf.descriptor_pb2")
        self.annotations = importlib.import_module("google.api.annotations_pb2")
        self.messages: dict[str, Any] = {}
        self.enums: dict[str, Any] = {}
        self.files = [self._read(path) for path in sorted((folder / "es").rglob("*_pb.js"))]

    def _read(self, path: Path) -> Any:
        encoded = re.search(r'fileDesc\("([A-Za-z0-9+/=_-]+)"', path.read_text())
        assert encoded is not None, path
        raw = encoded[1] + "=" * (-len(encoded[1]) % 4)
        document = self.pb.FileDescriptorProto.FromString(base64.b64decode(raw, altchars=b"+/"))
        self._index(document.package, document)
        return document

    def _index(self, scope: str, holder: Any) -> None:
        for message in getattr(holder, "message_type", ()) or getattr(holder, "nested_type", ()):
            self.messages[f"{scope}.{message.name}"] = message
            self._index(f"{scope}.{message.name}", message)
        for enum in holder.enum_type:
            self.enums[f"{scope}.{enum.name}"] = enum

    def calls(self) -> dict[str, tuple[str, str]]:
        found = {}
        for document in self.files:
            prefix = "/admin/v1" if document.name == "zitadel/admin.proto" else ""
            if not any(document.name == f"zitadel/{name}.proto" for name in FILES):
                continue
            for service in document.service:
                for method in service.method:
                    rule = method.options.Extensions[self.annotations.http]
                    verb = rule.WhichOneof("pattern")
                    path = prefix + (getattr(rule, verb) if verb else "")
                    if verb and REST.fullmatch(path):
                        found[f"{verb.upper()} {path}"] = (method.input_type[1:], method.output_type[1:])
        return found

    def type_of(self, field: Any) -> tuple[str, str]:
        """(type of one value, name of what it refers to)."""
        kinds = self.pb.FieldDescriptorProto
        if field.type == kinds.TYPE_MESSAGE:
            name = field.type_name[1:]
            return (WELL_KNOWN[name], "") if name in WELL_KNOWN else (f"message:{name}", name)
        if field.type == kinds.TYPE_ENUM:
            return f"enum:{field.type_name[1:]}", field.type_name[1:]
        plain = {kinds.TYPE_STRING: "string", kinds.TYPE_BOOL: "bool", kinds.TYPE_BYTES: "bytes"}
        return plain.get(field.type, "number"), ""

    def collect(self, name: str, messages: dict[str, dict[str, str]], enums: dict[str, list[str]]) -> None:
        if name in messages or name in WELL_KNOWN:
            return
        if name in self.enums:
            enums[name] = [value.name for value in self.enums[name].value]
            return
        fields = messages[name] = {}
        for field in self.messages[name].field:
            kind, refers = self.type_of(field)
            entry = self.messages.get(refers)
            if entry is not None and entry.options.map_entry:
                kind = "map:" + self.type_of(entry.field[1])[0]
                refers = self.type_of(entry.field[1])[1]
            elif field.label == self.pb.FieldDescriptorProto.LABEL_REPEATED:
                kind = f"list:{kind}"
            json_name = re.sub(r"_([a-z0-9])", lambda match: match[1].upper(), field.name)
            fields[json_name] = kind
            if refers:
                self.collect(refers, messages, enums)


class Sdk:
    """The pydantic models of the SDK."""

    def __init__(self) -> None:
        self.models = importlib.import_module("zitadel_client.models")

    def calls(self) -> dict[str, tuple[str, str]]:
        found = {}
        for service, methods in CONNECT.items():
            stem = service.rpartition(".")[2]
            snake = re.sub(r"(?<!^)(?=[A-Z])", "_", stem).lower()
            module = importlib.import_module(f"zitadel_client.api.{snake}_api")
            assert module.__file__ is not None
            source = Path(module.__file__).read_text()
            for method in methods:
                assert f"'/zitadel.{service}/{method}'" in source, method
                found[f"POST /zitadel.{service}/{method}"] = (f"{stem}{method}Request", f"{stem}{method}Response")
        return found

    def collect(self, name: str, messages: dict[str, dict[str, str]], enums: dict[str, list[str]]) -> None:
        model = getattr(self.models, name)
        if issubclass(model, Enum):
            enums[name] = [value.value for value in model]
            return
        if name in messages:
            return
        fields = messages[name] = {}
        for member, field in model.model_fields.items():
            kind, refers = self.type_of(field.annotation)
            fields[field.alias or member] = kind
            if refers:
                self.collect(refers, messages, enums)

    def type_of(self, annotation: Any) -> tuple[str, str]:
        arguments = [part for part in getattr(annotation, "__args__", ()) if part is not type(None)]
        origin = str(getattr(annotation, "__origin__", ""))
        if "list" in origin.lower():
            kind, refers = self.type_of(arguments[0])
            return f"list:{kind}", refers
        if "dict" in origin.lower():
            kind, refers = self.type_of(arguments[1])
            return f"map:{kind}", refers
        if "Union" in origin and len(arguments) > 1:
            # Bytes are base64 text; a 64-bit number is text, too.
            return ("bytes" if "bytes" in str(arguments).lower() else "number"), ""
        if arguments and not hasattr(annotation, "model_fields"):
            return self.type_of(arguments[0])
        name = getattr(annotation, "__name__", str(annotation))
        if hasattr(self.models, name):
            prefix = "enum" if issubclass(annotation, Enum) else "message"
            return f"{prefix}:{name}", name
        plain = {"str": "string", "bool": "bool", "int": "number", "float": "number", "datetime": "time"}
        return plain.get(name, "any"), ""


def main(folder: Path) -> None:
    messages: dict[str, dict[str, str]] = {}
    enums: dict[str, list[str]] = {}
    calls: dict[str, list[str]] = {}
    source: Protos | Sdk
    for source in (Protos(folder), Sdk()):
        for call, (request, answer) in source.calls().items():
            calls[call] = [request, answer]
            source.collect(request, messages, enums)
            source.collect(answer, messages, enums)
    document = {
        "source": "npm @zitadel/proto 1.3.1 (MIT); PyPI zitadel-client 4.1.9 (Apache-2.0); see make_zitadel_api.py",
        "calls": calls,
        "messages": messages,
        "enums": enums,
    }
    lines = [f" {json.dumps(key)}: {_lines(value)}" for key, value in document.items()]
    target = Path(__file__).with_name("zitadel_api.json")
    target.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


def _lines(value: Any) -> str:
    """One entry a line, so that a change can be read."""
    if not isinstance(value, dict):
        return json.dumps(value)
    return "{\n" + ",\n".join(f"  {json.dumps(key)}: {json.dumps(value[key])}" for key in sorted(value)) + "\n }"


if __name__ == "__main__":
    main(Path(sys.argv[1]))
