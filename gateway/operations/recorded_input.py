"""The input of a recorded decision, as far as the record holds it: no query, no header, no token is recorded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.config import Config, rules_of


def recorded_input(event: Mapping[str, Any], config: Config) -> dict[str, Any]:
    """The input document with the members that the record and the configuration know; others are left out."""
    document: dict[str, Any] = {
        "request": _request(event),
        "service": _service(event, config),
        "device": {"id": event["device"], "verified": True} if event.get("device") else None,
        "identity": _identity(event),
        "session": {"id": event["session"]} if event.get("session") else None,
        "risk": _risk(event),
        "client": {"ip": event.get("client_ip", ""), "ja4": event.get("ja4", "")},
        "grants": [],
    }
    if "ts" in event:
        document["now"] = event["ts"]
    return document


def _request(event: Mapping[str, Any]) -> dict[str, Any]:
    request = {name: event[name] for name in ("method", "host", "protocol") if name in event}
    if "path" in event:
        request["path"] = [segment for segment in str(event["path"]).strip("/").split("/") if segment]
    return request


def _service(event: Mapping[str, Any], config: Config) -> dict[str, Any]:
    name = event.get("service") or ""
    service = config.services.get(name)
    if service is None:
        return {"name": name}
    path = f"{event.get('path', '')}".rstrip("/") + "/"
    rules = rules_of(service)
    rule = max((prefix for prefix in rules if path.startswith(f"{prefix.rstrip('/')}/")), key=len, default="")
    return {
        "name": name,
        "plane": service.plane,
        "department": service.department,
        "sensitivity": rules[rule].sensitivity,
        "rule": rule,
    }


def _identity(event: Mapping[str, Any]) -> dict[str, Any] | None:
    if "subject" not in event:
        return None
    names = {"iss": "issuer", "sub": "subject", "name": "name", "client_id": "client_id"}
    return {member: event[name] for member, name in names.items() if name in event}


def _risk(event: Mapping[str, Any]) -> dict[str, Any]:
    terms = [{"name": name, "value": value} for name, value in (event.get("risk_terms") or {}).items()]
    return {"score": event.get("risk", 0), "level": event.get("risk_level", "low"), "terms": terms}
