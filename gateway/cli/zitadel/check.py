"""`gateway zitadel check`: what a live instance has that is weaker than the company's promise, each with its fix.

Nothing is changed, with one exception that the caller chooses: whether Zitadel's deny list holds the gateway's address
can only be learnt by saving a webhook target, so one without executions is made and deleted at once.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from gateway.cli.zitadel.bootstrap import FIXES
from gateway.cli.zitadel.policies import CHECK_LIFE_S, LIFETIMES_S, LOCKOUT_ATTEMPTS, MAX_AGE_DAYS, MIN_LENGTH
from gateway.identity.zitadel.access import ApiFailure
from gateway.identity.zitadel.api import Zitadel, number, objects, seconds, text
from gateway.identity.zitadel.events import EVENT_TYPES

_REQUIRES = ("requiresUppercase", "requiresLowercase", "requiresNumber", "requiresSymbol")
_BOOTSTRAP = "Run `gateway zitadel bootstrap`, or set it in the console."
_NEWER = "Use Zitadel 4.17.3 or newer, or look at it in the console."
_ACTIONS = "/zitadel.action.v2.ActionService"
_PAGE = {"pagination": {"limit": 1_000}}

# Hashing is not shown by any API, so it can only be said, not checked.
HASHING_NOTE = (
    "Password hashing cannot be read from outside. Zitadel's default is bcrypt with cost 14; for Argon2id set "
    "ZITADEL_SYSTEMDEFAULTS_PASSWORDHASHER_HASHER_ALGORITHM=argon2id, _TIME=3, _MEMORY=32768 and _THREADS=4. "
    "Existing hashes are renewed at the next sign-in."
)


@dataclass(frozen=True, slots=True)
class Weakness:
    """Something weaker than promised, or that could not be looked at (`is_unknown`)."""

    what: str
    message: str
    fix: str
    is_unknown: bool = False


@dataclass(frozen=True, slots=True)
class Expected:
    """What this gateway needs to find there; an empty text is not looked for."""

    client_id: str = ""
    project_id: str = ""
    logout_uri: str = ""
    hook_uri: str = ""


@dataclass(slots=True)
class Seen:
    """What was read: documents as protojson, by name; `unknown` are those that could not be read."""

    documents: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    unknown: dict[str, ApiFailure] = field(default_factory=dict)
    probe: ApiFailure | None = None


async def look(api: Zitadel, expected: Expected, *, probe: bool) -> Seen | ApiFailure:
    """Read everything; a failure only when nothing can be read at all."""
    seen = Seen()
    reads: dict[str, tuple[str, str, Mapping[str, Any] | None, str]] = {
        "login": ("GET", "/v2/settings/login", None, "settings"),
        "lockout": ("GET", "/v2/settings/lockout", None, "settings"),
        "complexity": ("GET", "/v2/settings/password/complexity", None, "settings"),
        "expiry": ("GET", "/v2/settings/password/expiry", None, "settings"),
        "security": ("GET", "/v2/settings/security", None, "settings"),
        "lifetimes": ("GET", "/admin/v1/settings/oidc", None, "settings"),
        "event types": ("POST", "/admin/v1/events/types/_search", {}, ""),
        "applications": ("POST", "/zitadel.application.v2.ApplicationService/ListApplications", _PAGE, ""),
        "projects": ("POST", "/zitadel.project.v2.ProjectService/ListProjects", _PAGE, ""),
        "targets": ("POST", f"{_ACTIONS}/ListTargets", _PAGE, ""),
        "executions": ("POST", f"{_ACTIONS}/ListExecutions", _PAGE, ""),
    }
    for name, (method, path, value, member) in reads.items():
        answer = await api.rest(method, path, value)
        if isinstance(answer, ApiFailure):
            if answer.kind in {"unreachable", "unauthenticated", "wrong_host"}:
                return answer
            seen.unknown[name] = answer
            continue
        found = answer.get(member, {}) if member else answer
        seen.documents[name] = found if isinstance(found, dict) else {}
    if probe and expected.hook_uri:
        seen.probe = await _probe(api, expected.hook_uri)
    return seen


async def _probe(api: Zitadel, endpoint: str) -> ApiFailure | None:
    """What Zitadel says to a target at this address; None when it takes it."""
    name = f"gateway-check-{secrets.token_hex(4)}"
    asked = {"name": name, "endpoint": endpoint, "timeout": "1s", "payloadType": "PAYLOAD_TYPE_JSON", "restAsync": {}}
    answer = await api.rest("POST", f"{_ACTIONS}/CreateTarget", asked)
    if isinstance(answer, ApiFailure):
        return answer
    left = await api.rest("POST", f"{_ACTIONS}/DeleteTarget", {"id": text(answer, "id")})
    return left if isinstance(left, ApiFailure) else None


def judge(seen: Seen, expected: Expected) -> list[Weakness]:
    """What is weaker than promised, in the order it is worth repairing."""
    weaknesses = [
        Weakness(name, f"Cannot be read: {failure.kind}: {failure.detail}.", FIXES.get(failure.kind, _NEWER), True)
        for name, failure in seen.unknown.items()
    ]
    documents = seen.documents
    for name, judged in (
        ("login", _login),
        ("lockout", _lockout),
        ("expiry", _expiry),
        ("complexity", _complexity),
        ("lifetimes", _lifetimes),
        ("security", _security),
    ):
        if name in documents:
            weaknesses += judged(documents[name])
    if "event types" in documents:
        weaknesses += _event_types(documents["event types"])
    if "applications" in documents:
        weaknesses += _application(documents["applications"], expected)
    if "projects" in documents:
        weaknesses += _project(documents["projects"], expected)
    if "targets" in documents and "executions" in documents:
        weaknesses += _webhook(documents["targets"], documents["executions"], expected)
    if seen.probe is not None:
        weaknesses.append(_deny_list(seen.probe, expected))
    return weaknesses


def _login(login: Mapping[str, Any]) -> Iterator[Weakness]:
    if login.get("forceMfa") is not True:
        local = login.get("forceMfaLocalOnly") is True
        message = "A second factor is not forced" + (" for people of external providers." if local else ".")
        yield Weakness("login.forceMfa", message, _BOOTSTRAP)
    if not login.get("secondFactors") and not login.get("multiFactors"):
        yield Weakness("login.secondFactors", "No second factor can be used.", "Allow TOTP, U2F and passkeys.")
    if login.get("allowRegister") is True:
        yield Weakness("login.allowRegister", "Anybody can register.", "Turn self-registration off.")
    for name, limit in CHECK_LIFE_S.items():
        if seconds(login.get(name)) > limit:
            message = f"One check counts for {seconds(login.get(name)) / 3_600:.0f} hours."
            yield Weakness(f"login.{name}", message, f"Set it to {limit}s or less. {_BOOTSTRAP}")


def _lockout(lockout: Mapping[str, Any]) -> Iterator[Weakness]:
    for name in ("maxPasswordAttempts", "maxOtpAttempts"):
        attempts = number(lockout.get(name))
        if not attempts:
            yield Weakness(f"lockout.{name}", "Lockout is off: guessing never ends.", _BOOTSTRAP)
        elif attempts > 2 * LOCKOUT_ATTEMPTS:
            message = f"An account is locked after {attempts} attempts."
            yield Weakness(f"lockout.{name}", message, f"Set it to {LOCKOUT_ATTEMPTS}.")


def _expiry(expiry: Mapping[str, Any]) -> Iterator[Weakness]:
    days = number(expiry.get("maxAgeDays"))
    if not 0 < days <= MAX_AGE_DAYS:
        message = f"Passwords live for {days} days." if days else "Passwords never expire."
        yield Weakness("password.maxAgeDays", message, f"Set it to {MAX_AGE_DAYS} days or less. {_BOOTSTRAP}")


def _complexity(complexity: Mapping[str, Any]) -> Iterator[Weakness]:
    length = number(complexity.get("minLength"))
    if length < MIN_LENGTH:
        message = f"Passwords may have {length} characters."
        yield Weakness("password.minLength", message, f"Set it to {MIN_LENGTH} or more. {_BOOTSTRAP}")
    lacking = [name.removeprefix("requires").lower() for name in _REQUIRES if complexity.get(name) is not True]
    if lacking:
        yield Weakness("password.requires", f"Passwords need no {', no '.join(lacking)}.", _BOOTSTRAP)


def _lifetimes(held: Mapping[str, Any]) -> Iterator[Weakness]:
    for name, limit in LIFETIMES_S.items():
        life = seconds(held.get(name))
        if not 0 < life <= limit:
            message = f"Lives for {life:.0f} s." if life else "Is not set, so Zitadel's long default holds."
            yield Weakness(f"lifetimes.{name}", message, f"Set it to {limit}s or less. {_BOOTSTRAP}")


def _security(security: Mapping[str, Any]) -> Iterator[Weakness]:
    if security.get("enableImpersonation") is True:
        yield Weakness("security.enableImpersonation", "Impersonation is on.", "Turn it off in the security settings.")


def _application(document: Mapping[str, Any], expected: Expected) -> Iterator[Weakness]:
    if not expected.client_id:
        return
    oidc = [
        found for one in objects(document, "applications") if isinstance(found := one.get("oidcConfiguration"), dict)
    ]
    app = next((one for one in oidc if text(one, "clientId") == expected.client_id), None)
    if app is None:
        yield Weakness("application", f"There is no application {expected.client_id}.", _BOOTSTRAP)
        return
    told = text(app, "backChannelLogoutUri")
    if told != expected.logout_uri:
        message = f"Back-channel logout goes to {told}." if told else "There is no back-channel logout URI."
        yield Weakness("application.backChannelLogoutUri", message, f"Set it to {expected.logout_uri}. {_BOOTSTRAP}")
    for name in ("accessTokenRoleAssertion", "idTokenRoleAssertion"):
        if app.get(name) is not True:
            yield Weakness(f"application.{name}", "Roles are not asserted in this token.", _BOOTSTRAP)
    if app.get("developmentMode") is True:
        yield Weakness("application.developmentMode", "Plain http redirects are allowed.", "Turn it off.")
    if text(app, "authMethodType") == "OIDC_AUTH_METHOD_TYPE_NONE":
        yield Weakness("application.authMethodType", "The gateway is a public client.", _BOOTSTRAP)
    if "OIDC_GRANT_TYPE_IMPLICIT" in (app.get("grantTypes") or ()):
        yield Weakness("application.grantTypes", "The implicit grant is allowed.", _BOOTSTRAP)


def _project(document: Mapping[str, Any], expected: Expected) -> Iterator[Weakness]:
    if not expected.project_id:
        return
    projects = objects(document, "projects")
    project = next((one for one in projects if text(one, "projectId", "id") == expected.project_id), None)
    if project is None:
        yield Weakness("project", f"There is no project {expected.project_id}.", _BOOTSTRAP)
        return
    if project.get("projectRoleAssertion") is not True:
        yield Weakness("project.projectRoleAssertion", "Roles are not asserted.", _BOOTSTRAP)
    if project.get("authorizationRequired") is not True:
        message = "People without any role of the project can sign in to it."
        yield Weakness("project.authorizationRequired", message, _BOOTSTRAP)


def _event_types(document: Mapping[str, Any]) -> Iterator[Weakness]:
    """Events that end sessions here and that this instance does not know by these names."""
    known = {text(entry, "type") for entry in objects(document, "eventTypes")}
    if known and (lacking := [name for name in EVENT_TYPES if name not in known]):
        yield Weakness("events.types", f"This instance knows no events {', '.join(lacking)}.", _NEWER)


def _webhook(targets: Mapping[str, Any], executions: Mapping[str, Any], expected: Expected) -> Iterator[Weakness]:
    ours = {text(one, "id") for one in objects(targets, "targets") if text(one, "endpoint") == expected.hook_uri}
    conditions: set[str] = set()
    for execution in objects(executions, "executions"):
        condition = execution.get("condition")
        kinds = condition if isinstance(condition, dict) else {}
        for kind in ("request", "response", "event"):
            asked = kinds.get(kind)
            if isinstance(asked, dict) and asked.get("all") is True:
                message = f"An action for all {kind}s: it has stopped every login before."
                yield Weakness(f"actions.{kind}.all", message, "Name the events one by one.")
        event = kinds.get("event")
        if isinstance(event, dict) and ours & set(map(str, execution.get("targets") or ())):
            conditions.add(text(event, "event"))
    if not expected.hook_uri:
        return
    if not ours:
        yield Weakness("actions.target", f"No webhook target is {expected.hook_uri}.", _BOOTSTRAP)
    elif lacking := [name for name in EVENT_TYPES if name not in conditions]:
        yield Weakness("actions.executions", f"These events are not told: {', '.join(lacking)}.", _BOOTSTRAP)


def _deny_list(failure: ApiFailure, expected: Expected) -> Weakness:
    failed = f"{failure.kind}: {failure.detail}"
    if failure.kind == "blocked_url":
        return Weakness("deny_list", f"Zitadel refuses to call {expected.hook_uri}: {failed}.", FIXES["blocked_url"])
    fix = "Run the check once with the token of an IAM_OWNER, or leave this out with --no-probe."
    return Weakness("deny_list", f"Whether Zitadel may call the gateway is not known: {failed}.", fix, True)
