"""`token_replay`: a bearer token, or something that may be used once, is used by a second holder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from gateway.core.decision import RiskTerm
from gateway.core.signals import Observation, Scope, SignalResult

_HOLDERS = 6
_REPLAYS = frozenset({"factor_replayed", "login_expired", "token_replayed"})


class TokenReplay:
    """Terms for an unbound token in the hands of two, and for one-time values of this session that were used twice.

    `token_replay_twice`: two (network, JA4) pairs in turn within `window_s`. `token_replay_place`: another country than
    that of the first use. `token_replay_once`: a one-time value came again, within the last hour.
    """

    name = "token_replay"
    scope: Scope = "session"
    failures = True
    schema: ClassVar[Mapping[str, Any]] = {
        "type": "object",
        "properties": {
            "window_s": {"type": "number", "minimum": 5, "maximum": 3600},
            "factor": {"type": "number", "minimum": 0, "maximum": 3},
        },
        "additionalProperties": False,
        "examples": [{}, {"window_s": 30, "factor": 1.5}],
    }

    def __init__(self, window_s: float = 60.0, factor: float = 1.0) -> None:
        self.bound = 8.0 * factor
        self._window_s, self._factor = window_s, factor

    def assess(self, seen: Observation, memory: Mapping[str, Any]) -> SignalResult:
        """`memory` is {"h": {pair: last time}, "c": country of the first use, "t": twice until, "r": last replay}."""
        if seen.failed:
            again = {**memory, "r": seen.now} if seen.failed in _REPLAYS else memory
            return SignalResult((), again, again)
        terms = []
        if 0 <= seen.now - memory.get("r", -1e12) < 60 * self._window_s:
            terms.append(RiskTerm(f"{self.name}_once", 2.0 * self._factor, "a one-time value was used again"))
        if seen.kind == "session" or seen.bound:
            return SignalResult(tuple(terms), memory, memory)
        following = self._following(seen, memory)
        if following.get("t", 0.0) > seen.now:
            terms.append(RiskTerm(f"{self.name}_twice", 4.0 * self._factor, "two holders in turn, within seconds"))
        here = "" if seen.at_home else seen.network.country or ""
        if here and following["c"] and here != following["c"]:
            terms.append(RiskTerm(f"{self.name}_place", 2.0 * self._factor, f"{here}, first used in {following['c']}"))
        learned = following if not here or following["c"] == here else {**following, "c": here}
        return SignalResult(tuple(terms), following, learned)

    def _following(self, seen: Observation, memory: Mapping[str, Any]) -> Mapping[str, Any]:
        pair = f"{seen.place} {seen.ja4_b}"
        holders: Mapping[str, float] = memory.get("h", {})
        newest = max(holders, key=lambda name: holders[name], default="")
        if newest == pair:
            return memory  # not written anew: it takes one turn more to see the next holder
        recent = {name: at for name, at in holders.items() if 0 <= seen.now - at <= self._window_s}
        twice = recent.pop(pair, None) is not None
        latest = dict(sorted(recent.items(), key=lambda item: item[1])[-(_HOLDERS - 1) :])
        first = memory.get("c", "" if seen.at_home else seen.network.country or "")
        following = {**memory, "h": {**latest, pair: seen.now}, "c": first}
        return {**following, "t": seen.now + 10 * self._window_s} if twice else following
