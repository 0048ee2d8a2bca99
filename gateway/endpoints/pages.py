"""Pages of login, of a person's sessions and second factors: view models made of the models of `gateway.identity`.

A model becomes what a person reads: times as spans, programs and codes as text. Nothing is decided.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from gateway.core.reasons import reason
from gateway.core.request import RequestFacts
from gateway.replies.documents import page_reply
from gateway.replies.rendering import NO_BRANDING, Branding, RenderedPage, render, strings
from gateway.replies.replies import Reply, deny
from gateway.risk import user_agents

_UNITS = (("day", 86_400), ("hour", 3_600), ("minute", 60), ("second", 1))
_SOON_S = 45


class Pages:
    """Renders "choose", "me", "signed_out", "step_up" and "factors". `issuers` are where people log in and out."""

    def __init__(
        self,
        *,
        issuers: Sequence[str] = (),
        branding: Branding = NO_BRANDING,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._issuers = list(dict.fromkeys(_origin(issuer) for issuer in issuers))
        self._branding = branding
        self._clock = clock

    def __call__(
        self, name: str, facts: RequestFacts, model: Mapping[str, Any], *, status: int = 200, code: str = "local"
    ) -> Reply:
        """The page, with this HTTP status and reason code; a denial where it cannot be rendered."""
        page = self._rendered(name, model)
        if page is None:
            return deny(facts, ("gateway_error",), "-", branding=self._branding)
        return page_reply(page, facts, status=status, code=code)

    def _rendered(self, name: str, model: Mapping[str, Any]) -> RenderedPage | None:
        try:
            view = _VIEWS[name](model, self._clock())
        except (LookupError, TypeError, ValueError, AttributeError, OSError):
            return None
        script = name in {"step_up", "factors"}
        return render(name, view, self._branding, script=script, form_action=self._form_action(name, model))

    def _form_action(self, name: str, model: Mapping[str, Any]) -> Sequence[str]:
        """Where the page's forms may lead: browsers apply `form-action` to every redirect that follows as well."""
        if name in {"choose", "signed_out"}:
            return ()
        # What waits goes on at its service, which may send the browser wherever it likes.
        return ("'self'", *(["https:"] if model.get("held") else []), *self._issuers)


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


# ---- what each page shows ----


def _choose(model: Mapping[str, Any], now: float) -> dict[str, Any]:
    del now
    return {"ways": [{**way, "name": urlsplit(way["issuer"]).hostname or way["issuer"]} for way in model["ways"]]}


def _signed_out(model: Mapping[str, Any], now: float) -> dict[str, Any]:
    del model, now
    return {}


def _me(model: Mapping[str, Any], now: float) -> dict[str, Any]:
    sessions = [
        {
            **session,
            **_program(session["browser"]),
            "used": _moment(session["last_seen_at"], now),
            "since": _moment(session["created_at"], now),
            "ends": _moment(session["ends_at"], now),
        }
        for session in model["sessions"]
    ]
    return {**model, "sessions": sorted(sessions, key=lambda session: not session["current"])}


def _step_up(model: Mapping[str, Any], now: float) -> dict[str, Any]:
    del now
    labels = strings()["step_up"]["labels"]
    factors = [
        {
            **factor,
            "named": labels.format(labels=", ".join(named)) if (named := [*filter(None, factor["labels"])]) else "",
        }
        for factor in model["factors"]
    ]
    return {
        **model,
        "factors": factors,
        "why": [reason(code) for code in model["why"]],
        "span": _span(model["max_age_s"]),
        "error": _error(model),
    }


def _factors(model: Mapping[str, Any], now: float) -> dict[str, Any]:
    factors = [
        {
            **factor,
            "added": _moment(factor["created_at"], now),
            "used": None if factor["used_at"] is None else _moment(factor["used_at"], now),
            "about": _about(factor["about"]),
        }
        for factor in model["factors"]
    ]
    enrolment = model["enrolment"]
    secret = str(enrolment["show"].get("secret", "")) if enrolment else ""
    return {
        **model,
        "factors": factors,
        "secret": " ".join(secret[at : at + 4] for at in range(0, len(secret), 4)),
        "here": f"{model['action']}?held={model['held']}" if model["held"] else model["action"],
        "error": _error(model),
    }


_VIEWS: Mapping[str, Callable[[Mapping[str, Any], float], dict[str, Any]]] = {
    "choose": _choose,
    "signed_out": _signed_out,
    "me": _me,
    "step_up": _step_up,
    "factors": _factors,
}


def _error(model: Mapping[str, Any]) -> object:
    return reason(model["error"]) if model["error"] else None


def _about(about: Mapping[str, Any]) -> str:
    """The note about a factor, "" for none."""
    texts = strings()["factors"]
    if "left" in about:
        return str(texts["left"].format(left=about["left"]))
    return str(texts["synced"]) if about.get("synced") else ""


def _program(agent: str) -> dict[str, str]:
    """A browser's name and picture."""
    program, texts = user_agents.read(agent), strings()
    names, icon = texts["programs"], "phone" if program.device_type in {"phone", "tablet"} else "laptop"
    browser, system = names.get(program.browser, program.browser), names.get(program.os, program.os)
    if browser and system:
        return {"title": texts["me"]["browser"].format(browser=browser, os=system), "icon": icon}
    return {"title": browser or system or texts["me"]["unknown_browser"], "icon": icon}


def _moment(at: float, now: float) -> dict[str, str]:
    """A time for machines, and as text."""
    texts, away = strings()["time"], at - now
    if abs(away) < _SOON_S:
        text = texts["over"] if away > 0 else texts["now"]
    else:
        text = texts["ahead" if away > 0 else "ago"].format(span=_span(abs(away)))
    return {"iso": datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds"), "text": text}


def _span(seconds: float) -> str:
    """A span in its largest unit."""
    units = strings()["time"]["units"]
    unit, length = next(((unit, length) for unit, length in _UNITS if round(seconds / length, 2) >= 1), _UNITS[-1])
    count = max(1, round(seconds / length))
    one, many = units[unit]
    return str((one if count == 1 else many).format(n=count))
