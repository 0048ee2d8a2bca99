"""Login pattern: how much more a login looks like somebody else than like this person. Pure functions over JSON.

An additive log-likelihood ratio, each person backed off to everybody (after Freeman et al., NDSS 2016, without its
known traps). For each trait of a sign-in:

    term = weight * log(max(p_everybody, least) / p_person)     p_person = (sqrt(n) + p_everybody) / (sqrt(N) + 1)

`n` of this person's `N` believed sign-ins had this value. Roots, because what was seen twice is this person's already,
and people do one thing most of the time. `p_everybody` counts people, not sign-ins, so that nobody who signs in often
becomes the norm. What is new to the person and to everybody scores highest. Every term is held between its two bounds,
and they sum to the score. Learned from sign-ins that were believed, and from no others.

Weights and bounds were fitted to worlds of `bench/detection_world.py` that are used for nothing else (seeds 1 to 3, and
an attacker of the victim's own country and kind of browser beside the others), each within 0.6 to 1.5 of what an
earlier fit without that attacker gave, so that no habit of one world decides. They are scaled so
that in the assessor's sum 4.0 (`Thresholds.high`) asks honest people with a history less than once in 200 sign-ins.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from math import asin, cos, isfinite, log, log1p, radians, sin, sqrt
from typing import Any

from gateway.core.decision import RiskTerm
from gateway.core.signals import Observation
from gateway.risk.user_agents import Program, read

FORMAT = 1
_LEAST = 0.02
_PRIOR, _PRIOR_OF = 0.2, 2.0  # what is added to a count of people, while there are few of them
_MOST_SIGN_INS = 120  # then every count is halved: what is not seen any more fades away
_FADED = 0.4
_EARTH_KM = 6_371.0
# The radius where the data give none: two good databases differ by this much in the median.
_RADIUS_KM, _NEAR_KM, _SPEED_KMH = 300.0, 50.0, 900.0
_MOST_PLACES, _MOST_PROGRAMS, _HOURS = 10, 8, 24


@dataclass(frozen=True, slots=True)
class Trait:
    """How one thing is weighed: its term lies between -`relief` and `bound`.

    `kept` values are counted for a person, `shared` for everybody; 0: not for everybody, because two people hardly ever
    have the same one, or nothing is counted at all. `least`: the share of attackers that show a value is taken to be
    at least this, however few people have it here. It is larger for networks, of which attackers use more than staff.
    """

    weight: float
    relief: float
    bound: float
    what: str
    kept: int = 0
    shared: int = 0
    least: float = _LEAST


COUNTED: Mapping[str, Trait] = {
    "ip": Trait(1.05, 0.09, 3.26, "the address range", 24),
    "asn": Trait(0.53, 0.0, 3.1, "the network", 16, 160, least=0.08),
    "country": Trait(0.09, 1.26, 1.26, "the country", 10, 64),
    "program": Trait(0.73, 0.69, 3.72, "the browser on this system", 10, 64),
    "browser": Trait(0.18, 0.24, 1.64, "the browser", 8, 32),
    "os": Trait(0.04, 0.59, 1.02, "the operating system", 8, 24),
    "type": Trait(0.06, 0.06, 0.78, "the kind of device", 5, 8),
    "tls": Trait(0.2, 0.25, 1.56, "the TLS cipher suites", 8, 48),
    "hints": Trait(0.06, 0.34, 1.08, "the client hints", 8, 48),
    "enrolled": Trait(0.73, 0.28, 2.24, "an enrolled device", 2, 2),
}
MEASURED: Mapping[str, Trait] = {
    "hour": Trait(0.76, 1.95, 1.1, "the hour"),
    "older": Trait(2.33, 0.0, 2.79, "an older browser"),
    "distance": Trait(0.1, 0.0, 1.21, "far from every known place"),
    "travel": Trait(1.09, 0.0, 2.54, "faster than anybody travels"),
}


class LoginPatternModel:
    """Meets `scoring.LoginPattern`. `program` overrides what the User-Agent says, where that is known better."""

    def score(
        self,
        seen: Observation,
        profile: Mapping[str, Any],
        population: Mapping[str, Any],
        *,
        program: Program | None = None,
    ) -> Sequence[RiskTerm]:
        """The terms of a sign-in, of either sign; what says nothing is left out."""
        profile, population = _of_format(profile), _of_format(population)
        program = read(seen.agent) if program is None else program
        counts, everybody = profile.get("t", {}), population.get("t", {})
        size, people = sqrt(profile.get("n", 0.0)) + 1.0, population.get("n", 0) + _PRIOR_OF
        terms: list[RiskTerm] = []
        new = set()
        for name, value in _values(seen, program).items():
            trait = COUNTED[name]
            n = counts.get(name, {}).get(value, 0.0)
            common = trait.least
            if trait.shared:
                common = min(1.0, (everybody.get(name, {}).get(value, 0) + _PRIOR) / people)
            ratio = log(max(common, trait.least) * size / (sqrt(n) + common))
            if not n:
                new.add(name)
            _add(terms, name, trait, ratio, value or "unknown")
        if profile:
            _add_hour(terms, seen, profile)
            # Positions are wrong so often that in a known network and browser they say nothing.
            if new & {"asn", "program"}:
                _add_place(terms, seen, profile)
            newest = profile["b"].get(_family(program), 0)
            if program.version < newest:
                why = f"{program.version}, had {newest}"
                _add(terms, "older", MEASURED["older"], log1p(newest - program.version), why)
        return tuple(terms)

    def learn(
        self,
        seen: Observation,
        profile: Mapping[str, Any],
        population: Mapping[str, Any],
        *,
        program: Program | None = None,
    ) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        """Profile and population with a sign-in that was believed; the population itself where it stays the same."""
        before, everybody = _of_format(profile), _of_format(population)
        program = read(seen.agent) if program is None else program
        values = _values(seen, program)
        counts = {name: dict(before.get("t", {}).get(name, {})) for name in COUNTED}
        fresh = [name for name, value in values.items() if value not in counts[name] and COUNTED[name].shared]
        for name, value in values.items():
            counts[name][value] = counts[name].get(value, 0.0) + 1.0
            if len(counts[name]) > COUNTED[name].kept:
                del counts[name][_rarest(counts[name], value)]
        hours = list(before.get("h", [0.0] * _HOURS))
        hours[_hour(seen)] += 1.0
        number = before.get("n", 0.0) + 1.0
        spot = _spot(seen)
        places = _with_place(before.get("p", []), spot)
        if number >= _MOST_SIGN_INS:
            number, hours = number / 2, [count / 2 for count in hours]
            counts = {name: _halved(seldom) for name, seldom in counts.items()}
            places = [[*place[:3], place[3] / 2] for place in places if place[3] / 2 > _FADED]
        programs = {**before.get("b", {}), _family(program): program.version}
        after = {
            "v": FORMAT,
            "n": number,
            "t": counts,
            "h": hours,
            "p": places,
            "b": dict(list(programs.items())[-_MOST_PROGRAMS:]),
            "l": [seen.now, *spot] if spot else [],
        }
        if not fresh:
            return after, population
        return after, _counted(everybody, values, fresh, newcomer=not before)


def in_words(profile: Mapping[str, Any]) -> Mapping[str, str]:
    """What a profile holds, for people: each trait with its values, the most frequent first."""
    profile = _of_format(profile)
    if not profile:
        return {}
    hours = {f"{hour:02} UTC": count for hour, count in enumerate(profile["h"]) if count}
    places = {f"{north}, {east} (within {radius:.0f} km)": count for north, east, radius, count in profile["p"]}
    counted = {trait.what.removeprefix("the "): profile["t"].get(name, {}) for name, trait in COUNTED.items()}
    counted |= {"hour": hours, "place": places}
    rows = {trait: ", ".join(_often(counts)) for trait, counts in counted.items() if counts}
    return {"sign-ins": f"{profile['n']:.0f} (older ones fade)"} | rows


def _often(counts: Mapping[str, float]) -> Sequence[str]:
    """Each value with how often it was seen."""
    ordered = sorted(counts.items(), key=lambda item: -item[1])
    return [
        f"{value or 'unknown'} ({count:.0f} x)" if round(count) > 1 else value or "unknown" for value, count in ordered
    ]


def _add(terms: list[RiskTerm], name: str, trait: Trait, ratio: float, why: str) -> None:
    value = round(max(-trait.relief, min(trait.bound, trait.weight * ratio)), 3)
    if value:
        terms.append(RiskTerm(f"login_{name}", value, f"{trait.what}: {why}"))


def _add_hour(terms: list[RiskTerm], seen: Observation, profile: Mapping[str, Any]) -> None:
    """Against an attacker who comes at any hour: counted with the hours beside it, half of each."""
    hour, hours = _hour(seen), profile["h"]
    near = hours[hour] + (hours[hour - 1] + hours[(hour + 1) % _HOURS]) / 2
    ratio = log((2 * profile["n"] + _HOURS / 2) / (_HOURS * (near + 0.5)))
    _add(terms, "hour", MEASURED["hour"], ratio, f"{hour:02} UTC")


def _add_place(terms: list[RiskTerm], seen: Observation, profile: Mapping[str, Any]) -> None:
    """Distance to the known places, and the speed since the last sign-in, all radii subtracted."""
    here = _spot(seen)
    if not here or not profile["p"]:
        return
    km = min(_apart_km(here, place) for place in profile["p"])
    if km > 0:
        _add(terms, "distance", MEASURED["distance"], log1p(km / 100), f"{km:.0f} km")
    if last := profile["l"]:
        km, hours = _apart_km(here, last[1:]), max(seen.now - last[0], 60.0) / 3600
        if km > 0 and km / hours > _SPEED_KMH:
            _add(terms, "travel", MEASURED["travel"], 1 + log(km / hours / _SPEED_KMH), f"{km:.0f} km in {hours:.1f} h")


def _of_format(document: Mapping[str, Any]) -> Mapping[str, Any]:
    """What was learned; nothing where another version wrote it."""
    return document if document.get("v") == FORMAT else {}


def _values(seen: Observation, program: Program) -> dict[str, str]:
    """What a sign-in shows of each trait; "" for what is not known."""
    home = seen.at_home
    return {
        "ip": seen.place if home else _range(seen.ip),
        "asn": seen.place,
        "country": seen.place if home else seen.network.country or "",
        "program": _family(program),
        "browser": program.browser[:40],
        "os": program.os[:40],
        "type": program.device_type[:20],
        "tls": seen.ja4_b[:16],
        "hints": sha256(seen.hints.encode("utf-8", "replace")).hexdigest()[:8] if seen.hints else "",
        "enrolled": "an enrolled one" if seen.device_id else "none",
    }


def _range(ip: str) -> str:
    """The /24 of an IPv4 address, the /48 of another."""
    return ":".join(ip.split(":")[:3])[:24] if ":" in ip else ip.rpartition(".")[0][:24]


def _family(program: Program) -> str:
    return f"{program.browser} {program.os} {program.device_type}"[:80]


def _hour(seen: Observation) -> int:
    return int(seen.now // 3600) % _HOURS


def _spot(seen: Observation) -> list[float]:
    """[latitude, longitude, radius in km]; nothing where that is not known, or means nothing."""
    network = seen.network
    if seen.at_home or network.latitude is None or network.longitude is None:
        return []
    radius = _RADIUS_KM if network.accuracy_km is None else network.accuracy_km
    spot = [network.latitude, network.longitude, radius]
    return [round(number, 2) for number in spot] if all(map(isfinite, spot)) else []


def _apart_km(here: Sequence[float], other: Sequence[float]) -> float:
    """Along the great circle, less both radii; below 0 for what may be the same place."""
    north, east = radians(other[0] - here[0]) / 2, radians(other[1] - here[1]) / 2
    share = sin(north) ** 2 + cos(radians(here[0])) * cos(radians(other[0])) * sin(east) ** 2
    return 2 * _EARTH_KM * asin(sqrt(min(1.0, max(0.0, share)))) - here[2] - other[2]


def _with_place(places: Sequence[Sequence[float]], here: Sequence[float]) -> list[list[float]]:
    """The places, each [latitude, longitude, radius, how often], with one more sign-in; the rarest goes if need be."""
    known = [list(place) for place in places]
    if not here:
        return known
    for place in known:
        if _apart_km([*here[:2], 0.0], [*place[:2], _NEAR_KM]) <= 0:
            place[3] += 1.0
            return known
    if len(known) >= _MOST_PLACES:
        known.remove(min(known, key=lambda place: place[3]))
    return [*known, [*here, 1.0]]


def _rarest(counts: Mapping[str, float], but: str) -> str:
    return min((value for value in counts if value != but), key=lambda value: counts[value])


def _halved(counts: Mapping[str, float]) -> dict[str, float]:
    return {value: count / 2 for value, count in counts.items() if count / 2 > _FADED}


def _counted(
    everybody: Mapping[str, Any], values: Mapping[str, str], fresh: Sequence[str], *, newcomer: bool
) -> Mapping[str, Any]:
    """One person more for each value that is new to this person. What becomes too much is not told apart any more."""
    traits = dict(everybody.get("t", {}))
    for name in fresh:
        counts = {**traits.get(name, {})}
        counts[values[name]] = counts.get(values[name], 0) + 1
        if len(counts) > COUNTED[name].shared:
            del counts[_rarest(counts, values[name])]
        traits[name] = counts
    return {"v": FORMAT, "n": everybody.get("n", 0) + newcomer, "t": traits}
