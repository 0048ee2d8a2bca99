"""`gateway zitadel bootstrap`: everything the gateway needs at a Zitadel instance, made where it is missing.

Idempotent: every part is looked for before it is made, and what differs is set. A step that Zitadel refuses is
reported and the others go on; another run tries it again. Secrets, which Zitadel shows once, go into files of mode
0600; one that is lost is made anew.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from gateway.cli.zitadel.policies import POLICIES, Policy
from gateway.core import paths
from gateway.identity.devices.ca_files import write_file
from gateway.identity.zitadel.access import ApiFailure
from gateway.identity.zitadel.api import Zitadel, key_bytes, objects, rfc3339, text
from gateway.identity.zitadel.events import EVENT_TYPES
from gateway.operations.errors import ActionFailed

_PRIVATE = 0o600
_DAY_S = 86_400
_RENEW_DAYS = 14  # before the end
_EQUALS = "TEXT_FILTER_METHOD_EQUALS"
_RUN_TIME_ROLES = ("IAM_OWNER_VIEWER", "IAM_USER_MANAGER")
CLIENT_SECRET, API_KEY, HOOK_KEY, TOKEN = "client.secret", "api-key.json", "webhook.key", "gateway.pat"
_PROJECTS = "project.v2.ProjectService"
_APPLICATIONS = "application.v2.ApplicationService"
_USERS = "user.v2.UserService"
_ACTIONS = "action.v2.ActionService"
_PERMISSIONS = "internal_permission.v2.InternalPermissionService"
FIXES = {
    "unreachable": "Start Zitadel, or correct the address (--url), the port or the CA.",
    "unauthenticated": "Give a valid access token of an IAM_OWNER with --token-file.",
    "forbidden": "The token's user needs the role IAM_OWNER for this.",
    "wrong_host": "Zitadel knows no instance of this name: the issuer must be its public address.",
    "blocked_url": (
        "Zitadel does not call addresses on its deny list. Set ZITADEL_HTTPCLIENT_DENYLIST to the default list without "
        "the gateway's own network (an empty value counts as unset), or publish the gateway on a public address."
    ),
}


class InstanceUnusable(ActionFailed):
    """No call can succeed: nothing answers, the token is not accepted, or it is another instance."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be there. `origin` is the gateway's own, as browsers and Zitadel reach it."""

    origin: str
    slug: str
    folder: Path
    roles: Sequence[str] = ("staff", "admin")
    project: str = "Gateway"
    organization: str = ""
    post_logout: str = paths.LOGOUT
    token_days: int = 90
    key_days: int = 365

    @property
    def redirect_uri(self) -> str:
        """Where a login comes back to."""
        return f"{self.origin}{paths.CALLBACK}{self.slug}"

    @property
    def logout_uri(self) -> str:
        """Where Zitadel posts logout tokens."""
        return f"{self.origin}{paths.BACKCHANNEL_LOGOUT}{self.slug}"

    @property
    def hook_uri(self) -> str:
        """Where Zitadel posts events."""
        return f"{self.origin}{paths.ZITADEL_WEBHOOK}{self.slug}"


@dataclass(slots=True)
class Made:
    """What is there now; `yaml` is what to put into gateway.yaml."""

    project_id: str = ""
    client_id: str = ""
    api_client_id: str = ""
    files: list[Path] = field(default_factory=list)
    failures: list[ActionFailed] = field(default_factory=list)

    def yaml(self, issuer: str, url: str, ca: Path | None, wanted: Wanted) -> str:
        """The issuer's entry."""
        folder = wanted.folder
        outer = f"    ca: {ca}\n" if ca is not None else ""
        inner = f"      url: {url}\n" if url and url.rstrip("/") != issuer else ""
        return (
            "issuers:\n"
            f"  - issuer: {issuer}\n"
            f"{outer}"
            "    profile: zitadel\n"
            f'    audiences: ["{self.project_id}"]\n'
            f'    login: {{client_id: "{self.client_id}", secret: {{file: {folder / CLIENT_SECRET}}}, '
            f"slug: {wanted.slug}}}\n"
            f'    introspection: {{client_id: "{self.api_client_id}", key: {{file: {folder / API_KEY}}}}}\n'
            "    zitadel:\n"
            f"{inner}"
            f"      token: {{file: {folder / TOKEN}}}\n"
            f"      webhook_keys: [{{file: {folder / HOOK_KEY}}}]\n"
        )


class Bootstrap:
    """One run. `told` hears of every part: what it is, and "kept", "made", "changed", "failed" or "skipped"."""

    def __init__(self, api: Zitadel, wanted: Wanted, told: Callable[[str, str], None]) -> None:
        self._api, self._wanted, self._told = api, wanted, told
        self._made = Made()

    async def run(self) -> Made:
        """Make everything that can be made; `failures` of the answer holds what Zitadel refused, step by step.

        Raises ActionFailed where no step can succeed: nothing answers, or the token or the instance is wrong.
        """
        self._wanted.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        organization = await self._organization()
        await self._step(f"project {self._wanted.project}", self._project(organization))
        applications = {
            "application Gateway login": self._web_application,
            "application Gateway introspection": self._api_application,
        }
        for name, make in applications.items():
            if self._made.project_id:
                await self._step(name, make())
            else:
                self._told(f"{name}: it needs the project", "skipped")
        await self._step("webhook", self._target())
        await self._step("machine user", self._run_time_user(organization))
        for policy in POLICIES:
            await self._step(policy.name, self._policy(policy))
        return self._made

    async def _step(self, name: str, step: Awaitable[None]) -> None:
        """One step. A refusal is kept and the run goes on, unless no other step could succeed either."""
        try:
            await step
        except InstanceUnusable:
            raise
        except ActionFailed as failure:
            self._made.failures.append(failure)
            self._told(f"{name}: {failure}", "failed")

    async def _policy(self, policy: Policy) -> None:
        self._told(policy.name, await policy.apply(self._ask))

    # ---- parts ----

    async def _organization(self) -> str:
        if self._wanted.organization:
            return self._wanted.organization
        answer = await self._connect("org.v2.OrganizationService", "ListOrganizations", {"query": {"limit": 2}})
        found = objects(answer, "result")
        if len(found) != 1 or not (name := text(found[0], "id")):
            raise ActionFailed(
                "There is not exactly one organisation.", "Name the one that owns the project: --org ID."
            )
        return name

    async def _project(self, organization: str) -> None:
        name = self._wanted.project
        query = {"filters": [{"projectNameFilter": {"projectName": name, "method": _EQUALS}}]}
        projects = objects(await self._connect(_PROJECTS, "ListProjects", query), "projects")
        project = next((item for item in projects if text(item, "name") == name), None)
        if project is None:
            asked: dict[str, Any] = {"organizationId": organization, "name": name}
            asked |= {"projectRoleAssertion": True, "authorizationRequired": True}
            answer = await self._connect(_PROJECTS, "CreateProject", asked)
            self._made.project_id = _id(answer, "projectId", "id")
            self._told(f"project {name}", "made")
        else:
            self._made.project_id = _id(project, "projectId", "id")
            if project.get("projectRoleAssertion") is True and project.get("authorizationRequired") is True:
                self._told(f"project {name}", "kept")
            else:
                asked = {
                    "projectId": self._made.project_id,
                    "projectRoleAssertion": True,
                    "authorizationRequired": True,
                }
                await self._connect(_PROJECTS, "UpdateProject", asked)
                self._told(f"project {name}", "changed")
        answer = await self._connect(_PROJECTS, "ListProjectRoles", {"projectId": self._made.project_id})
        present = {text(role, "key") for role in objects(answer, "projectRoles")}
        for role in self._wanted.roles:
            if role not in present:
                asked = {"projectId": self._made.project_id, "roleKey": role, "displayName": role}
                await self._connect(_PROJECTS, "AddProjectRole", asked)
            self._told(f"role {role}", "kept" if role in present else "made")

    async def _application(self, name: str) -> dict[str, Any] | None:
        filters = [
            {"projectIdFilter": {"projectId": self._made.project_id}},
            {"nameFilter": {"name": name, "method": _EQUALS}},
        ]
        found = objects(await self._connect(_APPLICATIONS, "ListApplications", {"filters": filters}), "applications")
        return next((one for one in found if text(one, "name") == name), None)

    async def _web_application(self) -> None:
        wanted, name = self._wanted, "Gateway login"
        settings: dict[str, Any] = {
            "redirectUris": [wanted.redirect_uri],
            "postLogoutRedirectUris": [wanted.origin + wanted.post_logout],
            "responseTypes": ["OIDC_RESPONSE_TYPE_CODE"],
            "grantTypes": ["OIDC_GRANT_TYPE_AUTHORIZATION_CODE", "OIDC_GRANT_TYPE_REFRESH_TOKEN"],
            "applicationType": "OIDC_APP_TYPE_WEB",
            "authMethodType": "OIDC_AUTH_METHOD_TYPE_BASIC",
            "accessTokenType": "OIDC_TOKEN_TYPE_JWT",
            "accessTokenRoleAssertion": True,
            "idTokenRoleAssertion": True,
            "backChannelLogoutUri": wanted.logout_uri,
        }
        application = await self._application(name)
        if application is None:
            asked = {"projectId": self._made.project_id, "name": name, "oidcConfiguration": settings}
            answer = await self._connect(_APPLICATIONS, "CreateApplication", asked)
            created = _object(answer, "oidcConfiguration")
            self._made.client_id = _id(created, "clientId")
            self._keep(CLIENT_SECRET, _id(created, "clientSecret").encode())
            self._told(f"application {name}", "made")
            return
        present, app = _object(application, "oidcConfiguration"), _id(application, "applicationId", "id")
        self._made.client_id = _id(present, "clientId")
        # protojson leaves out what is zero, and these enumerations begin with what is wanted.
        zero = {"applicationType": "OIDC_APP_TYPE_WEB", "authMethodType": "OIDC_AUTH_METHOD_TYPE_BASIC"}
        same = all(
            (present | {k: present.get(k, v) for k, v in zero.items()}).get(key) == settings[key] for key in settings
        )
        if not same:
            asked = {"applicationId": app, "projectId": self._made.project_id, "oidcConfiguration": settings}
            await self._connect(_APPLICATIONS, "UpdateApplication", asked)
        if not self._has(CLIENT_SECRET):
            asked = {"applicationId": app, "projectId": self._made.project_id}
            answer = await self._connect(_APPLICATIONS, "GenerateClientSecret", asked)
            self._keep(CLIENT_SECRET, _id(answer, "clientSecret").encode())
        self._told(f"application {name}", "kept" if same else "changed")

    async def _api_application(self) -> None:
        name = "Gateway introspection"
        application = await self._application(name)
        if application is None:
            method = {"authMethodType": "API_AUTH_METHOD_TYPE_PRIVATE_KEY_JWT"}
            asked: dict[str, Any] = {"projectId": self._made.project_id, "name": name, "apiConfiguration": method}
            application = await self._connect(_APPLICATIONS, "CreateApplication", asked)
            self._told(f"application {name}", "made")
        else:
            self._told(f"application {name}", "kept")
        self._made.api_client_id = _id(_object(application, "apiConfiguration"), "clientId")
        if not self._lasts(API_KEY, self._wanted.key_days):
            asked = {"applicationId": _id(application, "applicationId", "id"), "projectId": self._made.project_id}
            asked["expirationDate"] = rfc3339(time.time() + self._wanted.key_days * _DAY_S)
            answer = await self._connect(_APPLICATIONS, "CreateApplicationKey", asked)
            key = key_bytes(answer.get("keyDetails"))
            if key is None:
                _garbled("CreateApplicationKey")
            self._keep(API_KEY, key)
            self._told("key of the API application", "made")

    async def _target(self) -> None:
        wanted, name = self._wanted, f"gateway-{self._wanted.slug}"
        settings: dict[str, Any] = {
            "name": name,
            "endpoint": wanted.hook_uri,
            "timeout": "10s",
            "payloadType": "PAYLOAD_TYPE_JSON",
        }
        settings |= {"restAsync": {}}
        query = {"filters": [{"targetNameFilter": {"targetName": name, "method": _EQUALS}}]}
        targets = objects(await self._connect(_ACTIONS, "ListTargets", query), "targets")
        present = next((item for item in targets if text(item, "name") == name), None)
        if present is None:
            answer = await self._connect(_ACTIONS, "CreateTarget", settings)
            target, key = _id(answer, "id"), text(answer, "signingKey")
            # Zitadel 4.15: a fresh target may not fire before it was updated once.
            await self._connect(_ACTIONS, "UpdateTarget", {"id": target} | settings)
        else:
            target, key = _id(present, "id"), ""
            renew = {} if self._has(HOOK_KEY) else {"expirationSigningKey": "0s"}
            drifted = (
                text(present, "endpoint") != wanted.hook_uri
                or text(present, "payloadType") not in {"", settings["payloadType"]}
                or not {"restWebhook", "restCall"}.isdisjoint(present)
            )
            if renew or drifted:
                asked = {"id": target} | settings | renew
                key = text(await self._connect(_ACTIONS, "UpdateTarget", asked), "signingKey")
        if key:
            self._keep(HOOK_KEY, key.encode())
        elif not self._has(HOOK_KEY):
            _garbled("a target without a signing key")
        self._told(f"webhook target {name}", "made" if present is None else "kept" if not key else "changed")
        for event in EVENT_TYPES:
            await self._step(f"webhook for {event}", self._execution(event, target))
        self._told(f"webhook for {len(EVENT_TYPES)} kinds of events", "kept" if present is not None else "made")

    async def _execution(self, event: str, target: str) -> None:
        # One by one: `all` and whole groups have stopped logins before. An older Zitadel refuses events it lacks.
        asked = {"condition": {"event": {"event": event}}, "targets": [target]}
        await self._connect(_ACTIONS, "SetExecution", asked)

    async def _run_time_user(self, organization: str) -> None:
        name = "gateway"
        query: dict[str, Any] = {
            "queries": [{"userNameQuery": {"userName": name, "method": "TEXT_QUERY_METHOD_EQUALS"}}]
        }
        users = objects(await self._connect(_USERS, "ListUsers", query), "result")
        machine_user = next((item for item in users if text(item, "username", "userName") == name), None)
        if machine_user is None:
            asked: dict[str, Any] = {"organizationId": organization, "username": name, "machine": {"name": "Gateway"}}
            machine_user = await self._connect(_USERS, "CreateUser", asked)
            self._told(f"machine user {name}", "made")
        else:
            self._told(f"machine user {name}", "kept")
        user = _id(machine_user, "userId", "id")
        query = {"filters": [{"inUserIdsFilter": {"ids": [user]}}]}
        administrators = objects(await self._connect(_PERMISSIONS, "ListAdministrators", query), "administrators")
        machine_user = next((item for item in administrators if item.get("instance") is True), None)
        if machine_user is None or not set(_RUN_TIME_ROLES) <= set(machine_user.get("roles") or ()):
            asked = {"userId": user, "resource": {"instance": True}, "roles": list(_RUN_TIME_ROLES)}
            method = "CreateAdministrator" if machine_user is None else "UpdateAdministrator"
            await self._connect(_PERMISSIONS, method, asked)
            self._told("roles of the machine user", "made")
        if not self._lasts(TOKEN, self._wanted.token_days):
            expires = rfc3339(time.time() + self._wanted.token_days * _DAY_S)
            asked = {"userId": user, "expirationDate": expires}
            answer = await self._connect(_USERS, "AddPersonalAccessToken", asked)
            self._keep(TOKEN, _id(answer, "token").encode())
            self._told("access token of the machine user", "made")

    # ---- asking, keeping ----

    async def _connect(self, service: str, method: str, value: Mapping[str, Any]) -> dict[str, Any]:
        return await self._ask("POST", f"/zitadel.{service}/{method}", value)

    async def _ask(self, method: str, path: str, value: Mapping[str, Any] | None) -> dict[str, Any]:
        answer = await self._api.rest(method, path, value)
        if isinstance(answer, ApiFailure):
            if answer.kind == "unchanged":
                return {}
            failed(answer, path.rpartition("/")[2])
        return answer

    def _has(self, name: str) -> bool:
        return (self._wanted.folder / name).is_file()

    def _lasts(self, name: str, days: int) -> bool:
        """Whether a credential of so many days is there and has more than two weeks before it; by its file's date."""
        try:
            age_s = time.time() - (self._wanted.folder / name).stat().st_mtime
        except OSError:
            return False
        return age_s < max(days - _RENEW_DAYS, days / 2) * _DAY_S

    def _keep(self, name: str, secret: bytes) -> None:
        path = self._wanted.folder / name
        try:
            write_file(path, secret, _PRIVATE)
        except OSError as error:
            raise ActionFailed(f"{path} cannot be written: {error.strerror}.") from error
        self._made.files.append(path)


def failed(failure: ApiFailure, step: str) -> NoReturn:
    """Tell the operator what Zitadel said, word for word, and what would help."""
    kind = InstanceUnusable if failure.kind in {"unreachable", "unauthenticated", "wrong_host"} else ActionFailed
    raise kind(f"Zitadel refuses ({step}): {failure.kind}: {failure.detail}.", FIXES.get(failure.kind, ""))


def _object(document: Mapping[str, Any], name: str) -> dict[str, Any]:
    found = document.get(name)
    return found if isinstance(found, dict) else {}


def _id(document: Mapping[str, Any], *names: str) -> str:
    return text(document, *names) or _garbled(f"no {names[0]}")


def _garbled(what: str) -> NoReturn:
    raise ActionFailed(f"Zitadel's answer cannot be used: {what}.", "Use Zitadel 4.17.3 or newer.")
