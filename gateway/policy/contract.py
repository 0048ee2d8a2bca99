"""Stage 8: the input document, one engine behind a deadline, the strict parser of its answer.

Law: undefined, malformed, slow or failed is a `Refusal` (`policy_undefined`, `policy_malformed`, `policy_timeout`,
`policy_error`, `policy_unavailable`), never an effect. The contract is policies/schema/{input,decision}.schema.json.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, cast

from gateway.core.decision import EFFECTS, REACTIONS, Decision, Effect, Obligation, RiskReport, StepUp
from gateway.core.ports.pipeline import EngineFailure, Network
from gateway.core.reasons import Refusal, is_code
from gateway.core.request import RequestFacts
from gateway.core.routes import Route
from gateway.core.subject import Device, Identity, Session

ENTRY_POINT = "data.gateway.authz.decision"

_MAX_REASONS = 32
_MAX_OBLIGATIONS = 32
_MAX_CACHE_S = 60
_MAX_METHODS = 16
_MAX_AGE_S = 86_400
ANSWER_MEMBERS = frozenset({"effect", "reasons", "obligations", "cache_s", "step_up", "reactions"})
_STEP_UP = frozenset({"methods", "max_age_s"})
_SEPARATORS = (",", ":")
_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, check_circular=False, separators=_SEPARATORS).encode


def document_json(document: object) -> str:
    """The JSON text every engine gets. Raises `EngineFailure` for what JSON cannot say (NaN, a lone surrogate)."""
    try:
        text = _encode(document)
        if not text.isascii():
            text.encode()
    except (ValueError, TypeError, RecursionError) as error:
        raise EngineFailure("policy_error", "the input document cannot be written as JSON") from error
    return text


def build_document(
    facts: RequestFacts,
    route: Route,
    device: Device | None,
    identity: Identity | None,
    session: Session | None,
    risk: RiskReport,
    network: Network,
    now: float,
    grants: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """The input document. `now` is in seconds since the epoch."""
    return {
        "request": facts.document(),
        "service": route.document(),
        "device": None if device is None else device.document(),
        "identity": None if identity is None else identity.document(),
        "session": None if session is None else session.document(now),
        "risk": risk.document(),
        "client": {
            "ip": facts.client_ip,
            "country": network.country,
            "asn": network.asn,
            "vpn": network.vpn,
            "ja4": facts.peer.ja4,
        },
        "grants": list(grants),
        "now": now,
    }


def parse_answer(raw: object) -> Decision | Refusal:
    """An engine's raw answer as a `Decision`; None is `policy_undefined`, anything out of shape `policy_malformed`.

    The answer is an object with `effect` and `reasons` (1 to 32 codes) and, where wanted, `obligations` (up to 32
    objects with a string `kind`), `cache_s` (a whole number, 0 to 60), `step_up` (`methods`, up to 16 names, and
    `max_age_s`, 1 to 86,400) and `reactions` (of those the gateway knows). Never raises.
    """
    if raw is None:
        return Refusal("policy_undefined")
    if not isinstance(raw, dict) or not raw.keys() <= ANSWER_MEMBERS:
        return _malformed("members")
    effect = raw.get("effect")
    if not isinstance(effect, str) or effect not in EFFECTS:
        return _malformed("effect")
    reasons = raw.get("reasons")
    if not isinstance(reasons, list) or not 0 < len(reasons) <= _MAX_REASONS or not all(map(is_code, reasons)):
        return _malformed("reasons")
    demanded = raw.get("obligations", [])
    if not isinstance(demanded, list) or len(demanded) > _MAX_OBLIGATIONS:
        return _malformed("obligations")
    obligations = []
    for entry in demanded:
        kind = entry.get("kind") if isinstance(entry, dict) else None
        if not isinstance(kind, str) or not kind:
            return _malformed("obligations")
        params = {name: value for name, value in entry.items() if name != "kind"}
        obligations.append(Obligation(kind, MappingProxyType(params)))
    cache_s = _whole(raw.get("cache_s", 0), 0, _MAX_CACHE_S)
    if cache_s is None:
        return _malformed("cache_s")
    step_up = _step_up(raw["step_up"]) if "step_up" in raw else None
    if "step_up" in raw and step_up is None:
        return _malformed("step_up")
    reactions = raw.get("reactions", [])
    if not isinstance(reactions, list) or not all(isinstance(name, str) and name in REACTIONS for name in reactions):
        return _malformed("reactions")
    return Decision(
        cast("Effect", effect),
        tuple(reasons),
        tuple(obligations),
        cache_s,
        step_up,
        tuple(name for name in REACTIONS if name in reactions),
    )


def _step_up(raw: object) -> StepUp | None:
    """What has to be proven; None when it is out of shape."""
    if not isinstance(raw, dict) or not raw.keys() <= _STEP_UP:
        return None
    methods, max_age_s = raw.get("methods", []), _whole(raw.get("max_age_s", StepUp().max_age_s), 1, _MAX_AGE_S)
    if not isinstance(methods, list) or len(methods) > _MAX_METHODS or not all(map(is_code, methods)):
        return None
    return None if max_age_s is None else StepUp(tuple(methods), max_age_s)


def _whole(raw: object, least: int, most: int) -> int | None:
    """A whole number within bounds, else None. One engine prints 5 as 5.0: both are the same number in Rego."""
    number = int(raw) if isinstance(raw, float) and raw.is_integer() else raw
    return number if type(number) is int and least <= number <= most else None


def _malformed(part: str) -> Refusal:
    return Refusal("policy_malformed", part)
