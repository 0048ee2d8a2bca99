"""`impossible_travel`: two sessions of one person are so far apart that nobody could have travelled in between."""

from __future__ import annotations

from collections.abc import Mapping
from math import asin, cos, radians, sin, sqrt
from typing import Any, ClassVar

from gateway.core.decision import RiskTerm
from gateway.core.signals import Observation, Scope, SignalResult

_EARTH_KM = 6_371.0
_SESSIONS, _KEPT_S, _STEP_S = 8, 43_200.0, 300.0
# Two good databases differ by this much in the median, so it is the radius where a file gives none.
_RADIUS_KM = 300.0


class ImpossibleTravel:
    """A term for a speed above `speed_kmh`, both accuracy radii subtracted, more for a new network and a new device.

    Without positions another country within half an hour counts as too fast. Where network and device are the same, the
    data are wrong rather than the person fast. What a suspicious session says of its place is not believed.
    """

    name = "impossible_travel"
    scope: Scope = "subject"
    failures = False
    schema: ClassVar[Mapping[str, Any]] = {
        "type": "object",
        "properties": {
            "speed_kmh": {"type": "number", "minimum": 100, "maximum": 5000},
            "weight": {"type": "number", "minimum": 0, "maximum": 5},
        },
        "additionalProperties": False,
        "examples": [{}, {"speed_kmh": 1000, "weight": 3}],
    }

    def __init__(self, speed_kmh: float = 900.0, weight: float = 2.0) -> None:
        self.bound = 2 * weight
        self._speed_kmh, self._weight = speed_kmh, weight

    def assess(self, seen: Observation, memory: Mapping[str, Any]) -> SignalResult:
        """`memory`: session -> [time, country, latitude, longitude, radius, place, device]."""
        network = seen.network
        if seen.at_home or (network.country is None and network.latitude is None):
            return SignalResult((), memory, memory)
        device = seen.device_id or f"{seen.ja4_b}|{seen.agent[-48:]}"
        radius_km = network.accuracy_km if network.accuracy_km is not None else _RADIUS_KM
        spot = [network.country or "", network.latitude, network.longitude, radius_km, seen.place, device]
        worst, why = 0.0, ""
        for session, (at, *other_spot) in memory.items():
            if session == seen.session or seen.now - at > _KEPT_S:
                continue
            value = self._judge(max(0.0, seen.now - at), other_spot, spot)
            if value > worst:
                worst, why = value, f"{spot[0] or '?'}, another session {other_spot[0] or '?'}"
        terms = (RiskTerm(self.name, worst, why),) if worst else ()
        return SignalResult(terms, memory, self._with(memory, seen, spot))

    def _judge(self, elapsed_s: float, other: list[Any], here: list[Any]) -> float:
        novel = (other[4] != here[4]) + (other[5] != here[5])
        if not novel:
            return 0.0
        if other[1] is None or here[1] is None:
            fast = other[0] != here[0] and elapsed_s < 6 * _STEP_S
            return self._weight / 2 * novel if fast else 0.0
        km = _distance_km(other[1], other[2], here[1], here[2]) - other[3] - here[3]
        # A spot is written anew every _STEP_S only, so up to that much of the time was spent there.
        hours = (max(0.0, elapsed_s - _STEP_S) + 60.0) / 3600
        return self._weight * (1 + 0.5 * novel) if km > 0 and km / hours > self._speed_kmh else 0.0

    @staticmethod
    def _with(memory: Mapping[str, Any], seen: Observation, spot: list[Any]) -> Mapping[str, Any]:
        at, *before = memory.get(seen.session, (0.0,))
        if before == spot and 0 <= seen.now - at < _STEP_S:
            return memory
        kept = {name: item for name, item in memory.items() if name != seen.session and seen.now - item[0] < _KEPT_S}
        latest = sorted(kept.items(), key=lambda item: item[1][0])[-(_SESSIONS - 1) :]
        return {**dict(latest), seen.session: [seen.now, *spot]}


def _distance_km(lat1: float, lon1: float, lat2: float, lon2: float) -> float:
    """Along the great circle; degrees in."""
    north, east = radians(lat2 - lat1) / 2, radians(lon2 - lon1) / 2
    share = sin(north) ** 2 + cos(radians(lat1)) * cos(radians(lat2)) * sin(east) ** 2
    return 2 * _EARTH_KM * asin(sqrt(min(1.0, share)))
