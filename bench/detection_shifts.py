"""A third world: six sites of one country, shared desks and shared addresses, shifts around the clock.

Nothing was tuned here. All sites leave by two addresses of one central proxy; a desk belongs to whoever sits there, so
everybody shares one build of the browser, which is updated everywhere on one night. Shifts (early, late, night) change
each week, and the clock has summer time. From home people come seldom, over carrier-grade NAT of three providers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from bench.detection_places import COUNTRIES, Browser, Line, address, dice_of, drawn, located, newest
from bench.detection_travellers import attackers
from bench.detection_world import START, SignIn
from gateway.core.signals import Observation

_DAY_S = 86_400
_COUNTRY = "ES"
_CENTRE = Line(_COUNTRY, 0, "office", 1)
_EXITS = ("62.14.7.20", "62.14.7.21")
_DESK = Browser("edge", "windows")
_OWN = {("chrome", "windows"): 6, ("safari", "ios"): 5, ("chrome", "android"): 7, ("firefox", "windows"): 1}
_SHIFTS = (6.0, 14.0, 22.0)
_SUMMER = (84, 301)  # days of the simulated year with summer time
_NAT_BLOCKS = 16
_BUILD_DAYS = 35  # desks get a build five weeks late, all in one night


@dataclass
class _Worker:
    number: int
    shift: int
    rotates: bool
    home: Line
    own: Browser
    own_lag: float
    from_home: float


class Shifts:
    """`people` over `days`; of every `attacked`-th sign-in each attacker tries once."""

    def __init__(self, seed: int, people: int = 450, days: int = 180, attacked: int = 20) -> None:
        self._seed, self._days, self._attacked = seed, days, attacked
        self._dice = dice_of(f"shifts {seed}")
        cities = len(COUNTRIES[_COUNTRY].cities)
        dice = self._dice
        self._people = [
            _Worker(
                number=number,
                shift=dice.randrange(3),
                rotates=dice.random() < 0.7,
                home=Line(_COUNTRY, dice.randrange(cities), dice.choice(("fixed", "mobile")), dice.randrange(3)),
                own=drawn(dice, _OWN),
                own_lag=dice.uniform(0, 50),
                from_home=dice.choice((0.0, 0.02, 0.1, 0.3)),
            )
            for number in range(people)
        ]

    def sign_ins(self) -> list[SignIn]:
        """Everything that happens, in order of time."""
        events = [event for person in self._people for event in self._life(person)]
        return sorted(events, key=lambda event: event.seen.now)

    def _life(self, person: _Worker) -> Iterator[SignIn]:
        dice = self._dice
        for day in range(self._days):
            if day % 7 == 0 and person.rotates:
                person.shift = (person.shift + 1) % 3
            if dice.random() > 5 / 7:
                continue
            summer = _SUMMER[0] <= day < _SUMMER[1]
            for part in range(2 if dice.random() < 0.5 else 1):
                local = _SHIFTS[person.shift] + 4 * part + dice.expovariate(4)
                at = START + day * _DAY_S + 3600 * (local - 1 - summer)
                seen = self._honest(person, at, day)
                yield SignIn("honest", person.number, seen)
                if dice.random() < 1 / self._attacked:
                    yield from self._attacks(person, day, at)

    def _honest(self, person: _Worker, at: float, day: int) -> Observation:
        dice = self._dice
        if dice.random() >= person.from_home:
            shown = _DESK.shown(newest(_DESK, day - day % 28 - _BUILD_DAYS), day=day)
            return self._seen(person, at, dice.choice(_EXITS), _CENTRE, shown)
        ip = address(dice, person.home, range(_NAT_BLOCKS))
        shown = person.own.shown(newest(person.own, day - person.own_lag), day=day)
        return self._seen(person, at, ip, person.home, shown)

    def _seen(self, person: _Worker, at: float, ip: str, where: Line, shown: tuple[str, str, str]) -> Observation:
        agent, ja4, hints = shown
        network = located(ip.rpartition(".")[0], where, self._seed)
        return Observation(at, f"s{person.number}", "", ip=ip, network=network, agent=agent, ja4=ja4, hints=hints)

    def _attacks(self, person: _Worker, day: int, at: float) -> Iterator[SignIn]:
        used = person.own if person.from_home > 0.2 else _DESK
        for who, where, shown in attackers(self._dice, _COUNTRY, used, day):
            later = at + self._dice.uniform(60, _DAY_S)
            yield SignIn(who, person.number, self._seen(person, later, address(self._dice, where), where, shown))
