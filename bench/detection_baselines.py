"""What the login pattern is measured against: a rule that many have, and the formula that all of this comes from."""

from __future__ import annotations

from collections import Counter
from math import log

from gateway.core.signals import Observation
from gateway.risk.user_agents import read


class CountryNeverSeen:
    """1 for a country that this person never signed in from, else 0. What is not known counts as never seen."""

    def __init__(self) -> None:
        self._seen: set[tuple[str, str]] = set()

    def score(self, seen: Observation) -> float:
        """1 or 0."""
        return float((seen.subject, seen.network.country or "") not in self._seen)

    def learn(self, seen: Observation) -> None:
        """One more sign-in."""
        self._seen.add((seen.subject, seen.network.country or ""))


class Freeman:
    """The formula of Freeman et al., "Who Are You?" (NDSS 2016), with the weights of its open implementation.

    score = p(u|attack) / p(u|login) * product over {address, User-Agent} of p(x) / p(x|u, login), each p interpolated
    over the levels of the feature. Attackers choose every person alike. Its logarithm is what is answered. The formula
    leaves open how values are smoothed that nobody had before: here by Good and Turing, which suits it far better than
    one in all sign-ins.
    """

    _LEVELS = (
        (("ip", 0.6), ("asn", 0.3), ("country", 0.1)),
        (("agent", 0.5386), ("browser", 0.2680), ("os", 0.1627), ("type", 0.0307)),
    )

    def __init__(self) -> None:
        self._all: Counter[tuple[str, str]] = Counter()
        self._own: Counter[tuple[str, str, str]] = Counter()
        self._sign_ins: Counter[str] = Counter()
        self._once: Counter[str] = Counter()
        self._total = 0

    def score(self, seen: Observation) -> float:
        """The logarithm of the score; 0 for somebody who was never seen."""
        user = seen.subject
        own_count = self._sign_ins[user]
        if not own_count:
            return 0.0
        values = _values(seen)
        score = log(self._total / own_count / len(self._sign_ins))
        for levels in self._LEVELS:
            everybody = sum(w * (self._all[n, values[n]] or max(self._once[n], 1)) / self._total for n, w in levels)
            own = sum(
                w * (count / own_count if (count := self._own[user, n, values[n]]) else 1 / (own_count + 1))
                for n, w in levels
            )
            score += log(everybody / own)
        return score

    def learn(self, seen: Observation) -> None:
        """One more sign-in."""
        self._total += 1
        self._sign_ins[seen.subject] += 1
        for name, value in _values(seen).items():
            before = self._all[name, value]
            self._once[name] += (before == 0) - (before == 1)
            self._all[name, value] += 1
            self._own[seen.subject, name, value] += 1


def _values(seen: Observation) -> dict[str, str]:
    program = read(seen.agent)
    return {
        "ip": seen.ip,
        "asn": str(seen.network.asn),
        "country": seen.network.country or "",
        "agent": seen.agent,
        "browser": f"{program.browser} {program.version}",
        "os": program.os,
        "type": program.device_type,
    }
