"""A Zitadel instance that can be set up: projects, applications, targets, users and policies, as documented."""

from __future__ import annotations

import base64
import itertools
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from gateway.identity.zitadel.events import EVENT_TYPES
from tests.support.zitadel_world import Answer, Asked, FakeZitadel, zitadel

BLOCKED: Answer = (400, {"code": 3, "message": "Errors.Target.DeniedURL", "details": [{"id": "EXEC-x"}]})
FORBIDDEN: Answer = (403, {"code": 7, "message": "No matching permissions found"})
UNKNOWN_EVENT: Answer = (
    400,
    {"code": 3, "message": "Errors.Execution.ConditionInvalid", "details": [{"id": "EXEC-y"}]},
)
MISSING: Answer = (404, {"code": 5, "message": "not found"})


class Instance:
    """Holds what was made. `blocked` refuses every webhook target, `weak` are the defaults of a new instance."""

    def __init__(self, fake: FakeZitadel) -> None:
        self.fake = fake
        self.url = fake.url
        self.ids = itertools.count(1000)
        self.projects: list[dict[str, Any]] = []
        self.roles: list[str] = []
        self.applications: list[dict[str, Any]] = []
        self.keys = 0
        self.targets: dict[str, dict[str, Any]] = {}
        self.executions: dict[str, list[str]] = {}
        self.extra_executions: list[dict[str, Any]] = []
        self.users: list[dict[str, Any]] = []
        self.administrators: list[dict[str, Any]] = []
        self.tokens = 0
        self.blocked = False
        self.is_owner = True
        self.unknown_events: set[str] = set()
        self.forbidden: set[str] = set()
        # protojson: what is zero is left out, so lockout and expiry are empty.
        self.policies: dict[str, dict[str, Any]] = {
            "policies/login": {
                "isDefault": True,
                "allowUsernamePassword": True,
                "allowRegister": True,
                "secondFactors": ["SECOND_FACTOR_TYPE_OTP"],
                "passwordCheckLifetime": "864000s",
                "secondFactorCheckLifetime": "64800s",
            },
            "policies/lockout": {},
            "policies/password/complexity": {"minLength": "8", "hasUppercase": True, "hasLowercase": True},
            "policies/password/age": {},
            "settings/oidc": {"accessTokenLifetime": "43200s", "idTokenLifetime": "43200s"},
        }
        self.security: dict[str, Any] = {}
        real = fake.answer
        fake.answer = lambda asked: self.answer(asked) or real(asked)  # type: ignore[method-assign]

    @property
    def changes(self) -> list[str]:
        """What was asked that changes something."""
        reads = ("List", "search", "settings/", "GET")
        return [
            f"{asked.method} {asked.path}"
            for asked in self.fake.asked
            if asked.method != "GET" and not any(word in asked.path for word in reads[:2])
        ]

    def answer(self, asked: Asked) -> Answer | None:
        if asked.headers.get("authorization", "").removeprefix("Bearer ") not in self.fake.tokens:
            return None
        service, _, method = asked.path.rpartition("/")
        if service.startswith("/zitadel."):
            answer = FORBIDDEN if method in self.forbidden else getattr(self, f"_{method}")(asked.body)
            return answer if isinstance(answer, tuple) else (200, answer)
        if asked.path.startswith("/admin/v1/"):
            return self._policy(asked)
        if asked.path.startswith("/v2/settings/"):
            return 200, {"settings": self._settings(asked.path.removeprefix("/v2/settings/"))}
        return None

    def _id(self) -> str:
        return str(next(self.ids))

    # ---- services ----

    def _ListOrganizations(self, _: Any) -> dict[str, Any]:  # noqa: N802
        return {"result": [{"id": "1", "name": "Acme"}]}

    def _ListProjects(self, _: Any) -> dict[str, Any]:  # noqa: N802
        return {"projects": self.projects}

    def _CreateProject(self, body: Any) -> dict[str, Any]:  # noqa: N802
        self.projects.append({**body, "projectId": self._id()})
        return {"projectId": self.projects[-1]["projectId"]}

    def _UpdateProject(self, body: Any) -> dict[str, Any]:  # noqa: N802
        next(one for one in self.projects if one["projectId"] == body["projectId"]).update(body)
        return {}

    def _ListProjectRoles(self, _: Any) -> dict[str, Any]:  # noqa: N802
        return {"projectRoles": [{"key": role} for role in self.roles]}

    def _AddProjectRole(self, body: Any) -> dict[str, Any]:  # noqa: N802
        self.roles.append(body["roleKey"])
        return {}

    def _ListApplications(self, body: Any) -> dict[str, Any]:  # noqa: N802
        wanted = [one["nameFilter"]["name"] for one in body.get("filters", []) if "nameFilter" in one]
        return {"applications": [one for one in self.applications if not wanted or one["name"] in wanted]}

    def _CreateApplication(self, body: Any) -> dict[str, Any]:  # noqa: N802
        kind = "oidcConfiguration" if "oidcConfiguration" in body else "apiConfiguration"
        # protojson: enumerations whose number is zero are left out.
        zero = ("OIDC_APP_TYPE_WEB", "OIDC_AUTH_METHOD_TYPE_BASIC")
        held = {key: value for key, value in body[kind].items() if value not in zero} | {"clientId": self._id()}
        self.applications.append({"applicationId": self._id(), "name": body["name"], kind: held})
        secret = {"clientSecret": "secret-one"} if kind == "oidcConfiguration" else {}
        return {"applicationId": self.applications[-1]["applicationId"], kind: {"clientId": held["clientId"]} | secret}

    def _UpdateApplication(self, body: Any) -> dict[str, Any]:  # noqa: N802
        found = next(one for one in self.applications if one["applicationId"] == body["applicationId"])
        found["oidcConfiguration"].update(body["oidcConfiguration"])
        return {}

    def _GenerateClientSecret(self, _: Any) -> dict[str, Any]:  # noqa: N802
        return {"clientSecret": "secret-two"}

    def _CreateApplicationKey(self, _: Any) -> dict[str, Any]:  # noqa: N802
        self.keys += 1
        file = {"type": "application", "keyId": "k", "key": "-----", "clientId": "c"}
        return {"keyId": "k", "keyDetails": base64.b64encode(json.dumps(file).encode()).decode()}

    def _ListUsers(self, _: Any) -> dict[str, Any]:  # noqa: N802
        return {"result": self.users}

    def _CreateUser(self, body: Any) -> dict[str, Any]:  # noqa: N802
        self.users.append({"userId": self._id(), "username": body["username"]})
        return {"id": self.users[-1]["userId"]}

    def _ListAdministrators(self, _: Any) -> dict[str, Any]:  # noqa: N802
        return {"administrators": self.administrators}

    def _CreateAdministrator(self, body: Any) -> dict[str, Any]:  # noqa: N802
        self.administrators.append({"user": {"id": body["userId"]}, "instance": True, "roles": body["roles"]})
        return {}

    def _AddPersonalAccessToken(self, body: Any) -> dict[str, Any]:  # noqa: N802
        self.tokens += 1
        assert body["expirationDate"].endswith("Z")
        return {"tokenId": "t", "token": f"pat-{self.tokens}"}

    # ---- actions, policies ----

    def _ListTargets(self, _: Any) -> dict[str, Any]:  # noqa: N802
        return {"targets": list(self.targets.values())}

    def _CreateTarget(self, body: Any) -> dict[str, Any] | Answer:  # noqa: N802
        if refusal := self._refusal():
            return refusal
        name = self._id()
        self.targets[name] = {"id": name, **body}
        return {"id": name, "signingKey": "signing-key-one"}

    def _UpdateTarget(self, body: Any) -> dict[str, Any] | Answer:  # noqa: N802
        if refusal := self._refusal():
            return refusal
        self.targets[body["id"]].update(body)
        return {"signingKey": "signing-key-two"} if "expirationSigningKey" in body else {}

    def _DeleteTarget(self, body: Any) -> dict[str, Any]:  # noqa: N802
        del self.targets[body["id"]]
        return {}

    def _refusal(self) -> Answer | None:
        return BLOCKED if self.blocked else None if self.is_owner else FORBIDDEN

    def _ListExecutions(self, _: Any) -> dict[str, Any]:  # noqa: N802
        found = [{"condition": {"event": {"event": name}}, "targets": ids} for name, ids in self.executions.items()]
        return {"executions": found + self.extra_executions}

    def _SetExecution(self, body: Any) -> dict[str, Any] | Answer:  # noqa: N802
        event = body["condition"]["event"]["event"]
        if event in self.unknown_events:
            return UNKNOWN_EVENT
        self.executions[event] = body["targets"]
        return {"setDate": "2026-01-01T00:00:00Z"}

    def _policy(self, asked: Asked) -> Answer:
        name = asked.path.removeprefix("/admin/v1/")
        if name == "events/types/_search":
            return 200, {"eventTypes": [{"type": kind} for kind in EVENT_TYPES if kind not in self.unknown_events]}
        # The admin service of Zitadel: GET policies/lockout, PUT policies/password/lockout, and not the other.
        written = {"policies/password/lockout": "policies/lockout", "policies/lockout": ""}
        name = written.get(name, name) if asked.method == "PUT" else name
        if name not in self.policies:
            return MISSING
        if asked.method == "PUT":
            # A policy is replaced as a whole; what only can be read stays.
            kept = {key: value for key, value in self.policies[name].items() if key in {"secondFactors", "isDefault"}}
            self.policies[name] = kept | {key: value for key, value in asked.body.items() if value}
            return 200, {}
        return 200, {"settings" if name == "settings/oidc" else "policy": self.policies[name]}

    def _settings(self, name: str) -> dict[str, Any]:
        if name == "security":
            return self.security
        held = self.policies[{"password/expiry": "policies/password/age"}.get(name, f"policies/{name}")]
        shown = {key: value for key, value in held.items() if key != "isDefault"}
        return {key.replace("has", "requires") if key.startswith("has") else key: value for key, value in shown.items()}


@contextmanager
def instance() -> Iterator[Instance]:
    with zitadel() as fake:
        yield Instance(fake)
