"""Projects, applications, machine users and their tokens of the emulated instance: what a bootstrap needs (Connect)."""

from __future__ import annotations

import base64
import json
import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from gateway.demo.idp.accounts import ORG, PROJECT
from gateway.demo.idp.token_issuer import Key, TokenIssuer, snowflake
from gateway.demo.zitadel.courier import Courier
from gateway.demo.zitadel.wire import (
    EXISTS,
    INVALID,
    NOT_FOUND,
    RIGHTS,
    ApiError,
    Call,
    Endpoint,
    Holder,
    connect,
    moment,
)

OPAQUE, JWT = "OIDC_TOKEN_TYPE_BEARER", "OIDC_TOKEN_TYPE_JWT"
_ZERO = ("OIDC_APP_TYPE_WEB", "OIDC_AUTH_METHOD_TYPE_BASIC", "API_AUTH_METHOD_TYPE_BASIC", OPAQUE)


@dataclass(slots=True)
class App:
    """A client. `settings` is its oidcConfiguration or apiConfiguration as protojson."""

    id: str
    client_id: str
    name: str
    project: str
    kind: str
    settings: dict[str, Any]
    secret: str = field(repr=False)
    key: Key | None = field(default=None, repr=False)

    def uris(self, name: str) -> list[str]:
        """A list among the settings."""
        return list(self.settings.get(name) or ())


class Apps:
    """What is registered; `holder` knows personal access tokens."""

    def __init__(self, office: TokenIssuer, courier: Courier, clock: Callable[[], float]) -> None:
        self.by_client: dict[str, App] = {}
        self.projects: dict[str, dict[str, Any]] = {PROJECT: {"projectId": PROJECT, "name": "Acme"}}
        self.roles: dict[str, list[str]] = {PROJECT: ["staff", "admin", "guest"]}
        self.machines: dict[str, str] = {}
        self._administrators: dict[str, list[str]] = {}
        self._tokens: dict[str, str] = {}
        self._office, self._courier, self._clock = office, courier, clock

    def holder(self, token: str) -> Holder | None:
        """Whose personal access token it is."""
        user = self._tokens.get(token)
        return None if user is None else Holder(user, frozenset(self._administrators.get(user, ())))

    def machine(self, name: str, roles: Iterable[str]) -> str:
        """A personal access token of a new machine user with these roles."""
        user, token = snowflake(), secrets.token_urlsafe(40)
        self.machines[user], self._administrators[user], self._tokens[token] = name, list(roles), user
        return token

    def register(self, client_id: str, name: str, kind: str, settings: dict[str, Any], project: str = PROJECT) -> App:
        """A new client. Raises ApiError."""
        self.check(settings)
        app = App(snowflake(), client_id, name, project, kind, settings, secrets.token_urlsafe(32))
        self.by_client[client_id] = app
        self._office.clients[client_id] = project
        return app

    def check(self, settings: dict[str, Any]) -> None:
        """Raises ApiError for settings that Zitadel refuses."""
        # Zitadel C15: the deny list is checked on save, for back-channel logout URIs too.
        if self._courier.denies(settings.get("backChannelLogoutUri", "")):
            raise ApiError(INVALID, "Errors.Project.App.Blocked.BackchannelLogoutURL", "COMMAND-b1Kxz")

    def endpoints(self) -> list[Endpoint]:
        """Zitadel C14: the newer services have Connect and gRPC only."""
        projects = {
            "ListProjects": ("read", self._list_projects),
            "CreateProject": ("write", self._create_project),
            "UpdateProject": ("write", self._update_project),
            "ListProjectRoles": ("read", self._list_roles),
            "AddProjectRole": ("write", self._add_role),
        }
        applications = {
            "ListApplications": ("read", self._list),
            "CreateApplication": ("write", self._create),
            "UpdateApplication": ("write", self._update),
            "GenerateClientSecret": ("write", self._renew_secret),
            "CreateApplicationKey": ("write", self._create_key),
        }
        users = {
            "ListUsers": ("read", self._list_users),
            "CreateUser": ("write", self._create_user),
            "AddPersonalAccessToken": ("write", self._add_token),
        }
        permissions = {
            "ListAdministrators": ("read", self._list_administrators),
            "CreateAdministrator": ("write", self._set_administrator),
            "UpdateAdministrator": ("write", self._set_administrator),
        }
        organizations = {"ListOrganizations": ("read", lambda _: {"result": [{"id": ORG, "name": "Acme"}]})}
        return [
            *connect("project.v2.ProjectService", projects),
            *connect("application.v2.ApplicationService", applications),
            *connect("user.v2.UserService", users),
            *connect("internal_permission.v2.InternalPermissionService", permissions),
            *connect("org.v2.OrganizationService", organizations),
        ]

    # ---- projects ----

    def _list_projects(self, call: Call) -> dict[str, Any]:
        wanted = _named(call, "projectNameFilter", "projectName")
        return {"projects": [one for one in self.projects.values() if wanted in {None, one["name"]}]}

    def _create_project(self, call: Call) -> dict[str, Any]:
        if any(one["name"] == call.body["name"] for one in self.projects.values()):
            raise ApiError(EXISTS, "Errors.Project.AlreadyExists", "V3-DKcYh")
        name = snowflake()
        self.projects[name], self.roles[name] = {**call.body, "projectId": name}, []
        return {"projectId": name}

    def _update_project(self, call: Call) -> dict[str, Any]:
        self._project(call).update(call.body)
        return {"changeDate": moment(self._clock())}

    def _list_roles(self, call: Call) -> dict[str, Any]:
        return {"projectRoles": [{"key": role} for role in self.roles[self._project(call)["projectId"]]]}

    def _add_role(self, call: Call) -> dict[str, Any]:
        roles = self.roles[self._project(call)["projectId"]]
        if call.body["roleKey"] in roles:
            raise ApiError(EXISTS, "Errors.Project.Role.AlreadyExists", "COMMAND-unique")
        roles.append(call.body["roleKey"])
        return {}

    def _project(self, call: Call) -> dict[str, Any]:
        project = self.projects.get(call.body["projectId"])
        if project is None:
            raise ApiError(NOT_FOUND, "Errors.Project.NotFound", "PROJECT-9ds2f")
        return project

    # ---- applications ----

    def _list(self, call: Call) -> dict[str, Any]:
        name, project = _named(call, "nameFilter", "name"), _named(call, "projectIdFilter", "projectId")
        found = [app for app in self.by_client.values() if name in {None, app.name} and project in {None, app.project}]
        return {"applications": [_application(app) for app in found]}

    def _create(self, call: Call) -> dict[str, Any]:
        kind = "oidcConfiguration" if "oidcConfiguration" in call.body else "apiConfiguration"
        project = self._project(call)["projectId"]
        app = self.register(snowflake(), call.body["name"], kind, dict(call.body[kind]), project)
        secret = {} if "PRIVATE_KEY" in app.settings.get("authMethodType", "") else {"clientSecret": app.secret}
        return {"applicationId": app.id, kind: {"clientId": app.client_id, **secret}}

    def _update(self, call: Call) -> dict[str, Any]:
        app = self._app(call)
        new = dict(call.body.get(app.kind, {}))
        self.check(new)
        app.settings.update(new)
        return {"changeDate": moment(self._clock())}

    def _renew_secret(self, call: Call) -> dict[str, Any]:
        app = self._app(call)
        app.secret = secrets.token_urlsafe(32)
        return {"clientSecret": app.secret}

    def _create_key(self, call: Call) -> dict[str, Any]:
        app = self._app(call)
        app.key = Key()
        file = {"type": "application", "keyId": app.key.kid, "key": app.key.pem()}
        file |= {"appId": app.id, "clientId": app.client_id}
        return {"keyId": app.key.kid, "keyDetails": base64.b64encode(json.dumps(file).encode()).decode()}

    def _app(self, call: Call) -> App:
        wanted = next((app for app in self.by_client.values() if app.id == call.body["applicationId"]), None)
        if wanted is None:
            raise ApiError(NOT_FOUND, "Errors.Project.App.NotFound", "COMMAND-app0f")
        return wanted

    # ---- machine users ----

    def _list_users(self, call: Call) -> dict[str, Any]:
        queries = call.body.get("queries", ())
        wanted = next((one["userNameQuery"]["userName"] for one in queries if "userNameQuery" in one), None)
        found = [(user, name) for user, name in self.machines.items() if wanted in {None, name}]
        return {"result": [{"userId": user, "username": name, "state": "USER_STATE_ACTIVE"} for user, name in found]}

    def _create_user(self, call: Call) -> dict[str, Any]:
        if call.body["username"] in self.machines.values():
            raise ApiError(EXISTS, "Errors.User.AlreadyExists", "COMMAND-k2unb")
        user = snowflake()
        self.machines[user] = call.body["username"]
        return {"id": user, "creationDate": moment(self._clock())}

    def _add_token(self, call: Call) -> dict[str, Any]:
        user = call.body["userId"]
        if user not in self.machines:
            raise ApiError(NOT_FOUND, "User could not be found", "QUERY-Dfbg2")
        token = secrets.token_urlsafe(40)
        self._tokens[token] = user
        return {"tokenId": snowflake(), "token": token, "creationDate": moment(self._clock())}

    def _list_administrators(self, call: Call) -> dict[str, Any]:
        queries = call.body.get("filters", ())
        wanted = next((one["inUserIdsFilter"]["ids"] for one in queries if "inUserIdsFilter" in one), None)
        found = [(user, roles) for user, roles in self._administrators.items() if wanted is None or user in wanted]
        return {"administrators": [{"user": {"id": u}, "instance": True, "roles": list(r)} for u, r in found]}

    def _set_administrator(self, call: Call) -> dict[str, Any]:
        roles = call.body["roles"]
        if not set(roles) <= RIGHTS.keys():
            raise ApiError(INVALID, "Errors.IAM.MemberInvalid", "INSTANCE-4m0fS")
        self._administrators[call.body["userId"]] = list(roles)
        return {}


def _named(call: Call, kind: str, member: str) -> str | None:
    found = next((one[kind][member] for one in call.body.get("filters", ()) if kind in one), None)
    return None if found is None else str(found)


def _application(app: App) -> dict[str, Any]:
    # protojson: an enumeration whose number is zero is left out.
    settings = {key: value for key, value in app.settings.items() if value not in _ZERO}
    return {
        "applicationId": app.id,
        "projectId": app.project,
        "name": app.name,
        app.kind: {**settings, "clientId": app.client_id},
    }
