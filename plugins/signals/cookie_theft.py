"""`cookie_theft`: a session by cookie goes on in something that does not look like the browser it began in."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar

from gateway.core.decision import RiskTerm
from gateway.core.signals import Observation, Scope, SignalResult

_DIGITS = re.compile(r"[0-9]+(?:[._][0-9]+)*")
# Strongest first: what a browser cannot change while it runs, then what moves with its holder.
_WEIGHTS = {"ja4": 4.0, "agent": 2.5, "hints": 2.0, "version": 0.5, "asn": 1.0, "country": 1.0, "ip": 0.25}


class CookieTheft:
    """Terms for what differs from the session's own picture: JA4_b, User-Agent, client hints, AS, country, address.

    Only for sessions that no device and no key is tied to: the others cannot be used elsewhere at all. A change of the
    network alone is a person on the move and stays below 2.5; a change of cipher suites is another program.
    """

    name = "cookie_theft"
    scope: Scope = "session"
    failures = False
    schema: ClassVar[Mapping[str, Any]] = {
        "type": "object",
        "properties": {"factor": {"type": "number", "minimum": 0, "maximum": 3}},
        "additionalProperties": False,
        "examples": [{}, {"factor": 1.5}],
    }

    def __init__(self, factor: float = 1.0) -> None:
        self.bound = 9.0 * factor
        self._factor = factor

    def assess(self, seen: Observation, memory: Mapping[str, Any]) -> SignalResult:
        """`memory` is the picture: name -> value, "" for what was not there."""
        if seen.kind != "session" or seen.bound:
            return SignalResult((), memory, memory)
        picture = _picture(seen)
        if seen.protocol == "websocket" and memory:
            picture["hints"] = memory["hints"]  # browsers send none there
        if not memory:
            return SignalResult((), picture, picture)
        if picture == memory:
            return SignalResult((), memory, memory)
        odd = [name for name in _WEIGHTS if picture[name] != memory[name]]
        if "agent" in odd:
            odd = [name for name in odd if name != "version"]
        terms = tuple(RiskTerm(f"{self.name}_{name}", _WEIGHTS[name] * self._factor, _WHY[name]) for name in odd)
        return SignalResult(terms, memory, picture)


_WHY = {
    "ja4": "the TLS cipher suites are another program's",
    "agent": "the User-Agent is another browser's",
    "hints": "the client hints are another browser's, or gone",
    "version": "the same browser in another version",
    "asn": "another network",
    "country": "another country",
    "ip": "another address",
}


def _picture(seen: Observation) -> dict[str, str]:
    network = seen.network
    return {
        "ja4": seen.ja4_b,
        "agent": _DIGITS.sub("#", seen.agent)[:160],
        "version": " ".join(_DIGITS.findall(seen.agent))[:80],
        "hints": _DIGITS.sub("#", seen.hints)[:120],
        "asn": seen.place,
        "country": "company" if seen.at_home else network.country or "",
        "ip": seen.ip,
    }
