"""Actions v2 of the emulated instance: targets, executions, and signed webhooks for events."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from gateway.demo.idp.accounts import ORG
from gateway.demo.idp.token_issuer import snowflake
from gateway.demo.zitadel.courier import Courier
from gateway.demo.zitadel.events import EVENT_TYPES, Event
from gateway.demo.zitadel.switches import Switches
from gateway.demo.zitadel.wire import INVALID, NOT_FOUND, ApiError, Call, Endpoint, connect, moment, seconds

_KINDS = ("restAsync", "restWebhook", "restCall")
_INSTANCE = "100000000000000001"


@dataclass(slots=True)
class Target:
    """Where events are posted. `keys` sign: the newest first, older ones while a rotation lasts."""

    id: str
    settings: dict[str, Any]
    keys: list[str] = field(repr=False)
    awake: bool = True


class Actions:
    """Targets and executions; `heard` is the event log's listener."""

    def __init__(self, courier: Courier, switches: Switches, clock: Callable[[], float]) -> None:
        self.targets: dict[str, Target] = {}
        self.executions: dict[str, tuple[dict[str, Any], list[str]]] = {}
        self._courier, self._switches, self._clock = courier, switches, clock

    def endpoints(self) -> list[Endpoint]:
        """The calls of the Actions service: Connect, and its REST paths."""
        calls = {
            "CreateTarget": ("write", self._create),
            "ListTargets": ("read", self._search),
            "UpdateTarget": ("write", self._update),
            "DeleteTarget": ("write", self._delete),
            "SetExecution": ("write", self._execute),
            "ListExecutions": ("read", self._executions),
        }
        return [
            *connect("action.v2.ActionService", calls),
            Endpoint("POST", "/v2/actions/targets", "write", self._create, 201),
            Endpoint("POST", "/v2/actions/targets/search", "read", self._search),
            Endpoint("POST", "/v2/actions/targets/{id}", "write", self._update),
            Endpoint("DELETE", "/v2/actions/targets/{id}", "write", self._delete),
            Endpoint("PUT", "/v2/actions/executions", "write", self._execute),
            Endpoint("POST", "/v2/actions/executions/search", "read", self._executions),
        ]

    def _create(self, call: Call) -> dict[str, Any]:
        settings = {name: value for name, value in call.body.items() if name != "expirationSigningKey"}
        if not settings.get("name") or not any(kind in settings for kind in _KINDS):
            raise ApiError(INVALID, "Errors.Target.Invalid", "COMMAND-39f35d8uri")
        self._check(settings)
        target = Target(snowflake(), settings, [secrets.token_urlsafe(32)], not self._switches.fresh_targets_sleep)
        self.targets[target.id] = target
        # Zitadel C12: signingKey is shown once.
        return {"id": target.id, "creationDate": moment(self._clock()), "signingKey": target.keys[0]}

    def _check(self, settings: Mapping[str, Any]) -> None:
        endpoint = settings.get("endpoint", "")
        if urlsplit(endpoint).scheme not in {"http", "https"}:
            raise ApiError(INVALID, "Errors.Target.InvalidURL", "COMMAND-1r2cd")
        seconds(settings.get("timeout", "10s"))
        # Zitadel C15: the deny list is checked on save.
        if self._courier.denies(endpoint):
            raise ApiError(INVALID, "Errors.Target.DeniedURL", "COMMAND-d8nxt")

    def _update(self, call: Call) -> dict[str, Any]:
        target = self._target(call)
        change = {name: value for name, value in call.body.items() if name not in {"id", "expirationSigningKey"}}
        self._check(target.settings | change)
        target.settings |= change
        target.awake = True
        answer = {"changeDate": moment(self._clock())}
        if "expirationSigningKey" in call.body:
            # Zitadel C12: several v1 while a key rotates.
            kept = target.keys[:1] if seconds(call.body["expirationSigningKey"]) > 0 else []
            target.keys = [secrets.token_urlsafe(32), *kept]
            answer["signingKey"] = target.keys[0]
        return answer

    def _delete(self, call: Call) -> dict[str, Any]:
        del self.targets[self._target(call).id]
        return {"deletionDate": moment(self._clock())}

    def _target(self, call: Call) -> Target:
        target = self.targets.get(call.path.get("id") or call.body.get("id", ""))
        if target is None:
            raise ApiError(NOT_FOUND, "Errors.Target.NotFound", "COMMAND-k4s7a")
        return target

    def _search(self, call: Call) -> dict[str, Any]:
        named = [
            one["targetNameFilter"]["targetName"] for one in call.body.get("filters", ()) if "targetNameFilter" in one
        ]
        found = [target for target in self.targets.values() if not named or target.settings["name"] in named]
        listed = [{"id": target.id, **target.settings} for target in found]
        return {"pagination": {"totalResult": str(len(listed))}, "targets": listed}

    def _execute(self, call: Call) -> dict[str, Any]:
        condition, targets = call.body["condition"], call.body.get("targets", [])
        event = condition.get("event", {}).get("event")
        if event is not None and event not in EVENT_TYPES:
            # Zitadel C12: a condition on an event that the instance does not have is refused.
            raise ApiError(INVALID, "Errors.Execution.ConditionInvalid", "COMMAND-74aaqj8fv9")
        if any(name not in self.targets for name in targets):
            raise ApiError(INVALID, "Errors.Target.NotFound", "COMMAND-17e8fq1ggk")
        self.executions[json.dumps(condition, sort_keys=True)] = (condition, targets)
        return {"setDate": moment(self._clock())}

    def _executions(self, _: Call) -> dict[str, Any]:
        listed = [{"condition": condition, "targets": targets} for condition, targets in self.executions.values()]
        return {"pagination": {"totalResult": str(len(listed))}, "executions": listed}

    # ---- delivery ----

    def heard(self, event: Event) -> None:
        """Post the event to every target that an execution names for it."""
        for condition, names in list(self.executions.values()):
            if _fits(condition.get("event", {}), event.kind):
                for target in [self.targets[name] for name in names if name in self.targets]:
                    if target.awake:
                        self._courier.later("hook", self._delivery(target, event))

    def _delivery(self, target: Target, event: Event) -> Callable[[], None]:
        body = json.dumps(self._document(event)).encode()

        def deliver() -> None:
            # Zitadel C12: event delivery is at most once; one attempt, any error ends it.
            signature = sign(target.keys, body, int(self._clock()))
            headers = {"content-type": "application/json", "ZITADEL-Signature": signature}
            timeout_s = min(seconds(target.settings.get("timeout", "10s")), 10.0)
            self._courier.post(target.settings["endpoint"], body, headers, timeout_s)

        return deliver

    def _document(self, event: Event) -> dict[str, Any]:
        payload: Any = dict(event.payload or {})
        # Zitadel C12: event_payload is an object or base64 text.
        if self._switches.base64_payload:
            payload = base64.b64encode(json.dumps(payload).encode()).decode()
        return {
            "aggregateID": event.aggregate_id,
            "aggregateType": event.aggregate_type,
            "resourceOwner": ORG,
            "instanceID": _INSTANCE,
            "version": "v2",
            "sequence": event.sequence,
            "event_type": event.kind,
            "created_at": moment(event.at),
            "userID": event.editor,
            "event_payload": payload,
        }


def sign(keys: list[str], body: bytes, at: int) -> str:
    """Zitadel C12: t=<unix>,v1=<hex HMAC-SHA256(key, "<t>." + body)>, one v1 for each key."""
    made = [hmac.new(key.encode(), f"{at}.".encode() + body, hashlib.sha256).hexdigest() for key in keys]
    return ",".join((f"t={at}", *(f"v1={one}" for one in made)))


def _fits(condition: Mapping[str, Any], kind: str) -> bool:
    if "event" in condition:
        return bool(condition["event"] == kind)
    if "group" in condition:
        return kind.startswith(str(condition["group"]).rstrip(".*") + ".")
    return condition.get("all") is True
