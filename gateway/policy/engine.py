"""Stage 8: the input document, one engine behind a deadline, the strict parser of its answer.

Law: undefined, malformed, slow or failed is a `Refusal` (`policy_undefined`, `policy_malformed`, `policy_timeout`,
`policy_error`, `policy_unavailable`), never an effect. The contract is policies/schema/{input,decision}.schema.json.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, cast

from gateway.core.decision import EFFECTS, REACTIONS, Decision, Effect, Obligation, RiskReport, StepUp
from gateway.core.ports import EngineFailure, Network, PolicyEngine
from gateway.core.reasons import Refusal, is_code
from gateway.core.request import RequestFacts
from gateway.core.routes import Route
from gateway.core.subject import Device, Identity, Session
from gateway.policy.reads import key_of

ENTRY_POINT = "data.gateway.authz.decision"

_MAX_REASONS = 32
_MAX_OBLIGATIONS = 32
_MAX_CACHE_S = 60
_MAX_METHODS = 16
_MAX_AGE_S = 86_400
_MEMBERS = frozenset({"effect", "reasons", "obligations", "cache_s", "step_up", "reactions"})
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
    if not isinstance(raw, dict) or not raw.keys() <= _MEMBERS:
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


class Decider:
    """Asks one engine, within `deadline_s`, and remembers answers for as long as the policy itself allows.

    A remembered answer holds for the same bundle version and for inputs that agree in everything the policies can read,
    `now` apart: that is what `cache_s` speaks of. At most `cache_size` answers are kept.
    """

    def __init__(
        self,
        engine: PolicyEngine,
        deadline_s: float = 0.05,
        cache_size: int = 4096,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.engine = engine
        self._deadline_s = deadline_s
        self._cache_size = cache_size
        self._clock = clock
        self._cache: OrderedDict[bytes, tuple[float, Decision]] = OrderedDict()
        self._cached_version = ""

    @property
    def version(self) -> str:
        """The version of the bundle that decides."""
        return self.engine.version

    async def close(self) -> None:
        """Close the engine."""
        await self.engine.close()

    async def decide(self, document: Mapping[str, Any]) -> Decision | Refusal:
        """The decision for one input document. Everything an engine is known to do wrong is a `Refusal`."""
        started = self._clock()
        version = self.engine.version
        try:
            # Policies that never say cache_s do not pay for the key.
            key = self._key(document) if self._cache else None
            if key is not None and (known := self._recall(key, version, started)):
                return known
            if self.engine.in_process:
                raw = await self.engine.evaluate(document)
            else:
                async with asyncio.timeout(self._deadline_s):
                    raw = await self.engine.evaluate(document)
            decision = parse_answer(raw)
            if isinstance(decision, Decision) and decision.cache_s and self.engine.version == version:
                self._remember(key or self._key(document), version, started + decision.cache_s, decision)
        except TimeoutError:
            return Refusal("policy_timeout")
        except EngineFailure as failure:
            return Refusal(failure.reason, failure.detail)
        return decision

    def _recall(self, key: bytes, version: str, now: float) -> Decision | None:
        if version != self._cached_version:
            self._cache.clear()
            return None
        entry = self._cache.get(key)
        if entry is None:
            return None
        if entry[0] <= now:
            del self._cache[key]
            return None
        self._cache.move_to_end(key)
        return entry[1]

    def _remember(self, key: bytes, version: str, expires_at: float, decision: Decision) -> None:
        if version != self._cached_version:
            self._cache.clear()
            self._cached_version = version
        self._cache[key] = (expires_at, decision)
        while len(self._cache) > self._cache_size:
            self._cache.popitem(last=False)

    def _key(self, document: Mapping[str, Any]) -> bytes:
        whole = {name: value for name, value in document.items() if name != "now"}
        try:
            return key_of(whole, self.engine.reads)
        except (ValueError, TypeError, RecursionError) as error:
            raise EngineFailure("policy_error", "the input document cannot be written as JSON") from error
