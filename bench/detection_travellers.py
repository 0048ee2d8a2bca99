"""A world of another make: consultants of few providers who are more at hotels and customers than at home.

Nothing was tuned here. It shares places, data errors and browsers with `detection_world`, and no line of how people
live: everybody has a laptop of one of three builds and a phone; a week is planned as a whole (home, customer, abroad);
clocks go with the traveller; homes have one of two providers of their country, half of them IPv6 that changes each day;
phones roam in the visited country's network or come out at home; aeroplanes come out in a country where nobody is.

Attackers as in `detection_world`, and one more:
same_country  the victim's country, any of its providers and cities, the victim's kind of browser in a build of its own
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field

from bench.detection_places import (
    ANYONES,
    COUNTRIES,
    Browser,
    Line,
    address,
    dice_of,
    drawn,
    fallen,
    line,
    located,
    newest,
)
from bench.detection_world import SCRIPT_JA4, START, SignIn, Who
from gateway.core.signals import Observation

ATTACKERS: tuple[Who, ...] = ("naive", "vpn", "same_country")
_DAY_S = 86_400
_BASES = {"US": 4, "GB": 3, "IN": 3, "DE": 2, "SG": 1, "BR": 1}
_LAPTOPS = {("chrome", "windows"): 5, ("edge", "windows"): 3, ("chrome", "macos"): 2}
_PHONES = {("safari", "ios"): 7, ("chrome", "android"): 3}
_PROVIDERS = 2
_AIRBORNE = Line("IE", 0, "hosting", 11)  # one satellite operator, one exit


@dataclass
class _Consultant:
    number: int
    base: str
    city: int
    provider: int
    block: int
    has_ipv6: bool
    prefix: int
    carrier: int
    laptop: Browser
    laptop_lag: float
    phone: Browser
    phone_lag: float
    customers: list[Line] = field(default_factory=list)
    week: list[Line] = field(default_factory=list)
    hotel_ips: dict[Line, str] = field(default_factory=dict)


class Travellers:
    """`people` over `days`; of every `attacked`-th sign-in each attacker tries once."""

    def __init__(self, seed: int, people: int = 450, days: int = 180, attacked: int = 20) -> None:
        self._seed, self._days, self._attacked = seed, days, attacked
        self._dice = dice_of(f"travellers {seed}")
        self._people = [self._consultant(number) for number in range(people)]

    def sign_ins(self) -> list[SignIn]:
        """Everything that happens, in order of time."""
        events = [event for person in self._people for event in self._life(person)]
        return sorted(events, key=lambda event: event.seen.now)

    def _consultant(self, number: int) -> _Consultant:
        dice = self._dice
        base = dice.choices(list(_BASES), list(_BASES.values()))[0]
        city = dice.randrange(len(COUNTRIES[base].cities))
        return _Consultant(
            number=number,
            base=base,
            city=city,
            provider=dice.randrange(_PROVIDERS),
            block=dice.randrange(120),
            has_ipv6=dice.random() < 0.5,
            prefix=dice.randrange(1 << 16),
            carrier=dice.randrange(_PROVIDERS),
            laptop=drawn(dice, _LAPTOPS),
            laptop_lag=dice.choice((1.0, 8.0, 15.0)),  # three rings of updates
            phone=drawn(dice, _PHONES),
            phone_lag=dice.uniform(0, 40),
        )

    # ---- weeks ----

    def _plan(self, person: _Consultant) -> None:
        """Monday to Sunday: where each day is worked."""
        dice = self._dice
        home = Line(person.base, person.city, "fixed", person.provider)
        if not person.customers or dice.random() < 0.12:  # a project ends after eight weeks or so
            abroad = dice.random() < 0.3
            goals = [code for code in COUNTRIES if code not in {person.base, "RU", "CN", "VN", "NG", "UA"}]
            country = dice.choice(goals) if abroad else person.base
            site = line(dice, country, "office")
            person.customers = [site, Line(country, site.city, "hotel", fallen(dice, 6))]
            person.hotel_ips = {}
        if dice.random() < 0.35:
            person.week = [home] * 7
        else:
            site, hotel = person.customers
            person.week = [dice.choice((site, site, hotel)) for _ in range(4)] + [home] * 3

    def _life(self, person: _Consultant) -> Iterator[SignIn]:
        dice = self._dice
        for day in range(self._days):
            if day % 7 == 0:
                self._plan(person)
            if dice.random() < 1 / 900:
                person.laptop = drawn(dice, _LAPTOPS)
            if dice.random() < 1 / 700:
                person.phone = drawn(dice, _PHONES)
            busy = 0.25 if day % 7 >= 5 else 1.6
            for _ in range(int(busy) + (dice.random() < busy % 1)):
                where = person.week[day % 7]
                at = START + day * _DAY_S + 3600 * ((dice.triangular(6, 22, 9) - COUNTRIES[where.country].utc) % 24)
                seen = self._honest(person, at, day, where)
                yield SignIn("honest", person.number, seen)
                if dice.random() < 1 / self._attacked:
                    yield from self._attacks(person, day, at)

    def _honest(self, person: _Consultant, at: float, day: int, where: Line) -> Observation:
        dice = self._dice
        if dice.random() < 0.2:
            roams = where.country != person.base and dice.random() < 0.6
            mobile = Line(where.country if roams else person.base, where.city if roams else person.city, "mobile",
                          dice.randrange(_PROVIDERS) if roams else person.carrier)  # fmt: skip
            ip = address(dice, mobile)
            return self._seen(person, at, ip, mobile, _shown(person.phone, day - person.phone_lag))
        shown = _shown(person.laptop, day - person.laptop_lag)
        if day % 7 in {0, 3} and where.access != "fixed" and dice.random() < 0.1:
            return self._seen(person, at, address(dice, _AIRBORNE, [0]), _AIRBORNE, shown)
        if where.access == "fixed":
            return self._seen(person, at, self._home_ip(person, where, day), where, shown)
        if where.access == "office":
            return self._seen(person, at, address(dice, where, [0]), where, shown)
        ip = person.hotel_ips.setdefault(where, address(dice, where))
        return self._seen(person, at, ip, where, shown)

    def _home_ip(self, person: _Consultant, where: Line, day: int) -> str:
        if person.has_ipv6 and self._dice.random() < 0.6:
            site = (where.asn & 0xFFFF, person.prefix if day % 2 else person.prefix ^ 0x55)
            return f"2a01:{site[0]:x}:{site[1]:x}:1::{self._dice.randrange(1, 1 << 16):x}"
        return address(self._dice, where, [person.block])

    def _seen(self, person: _Consultant, at: float, ip: str, where: Line, shown: tuple[str, str, str]) -> Observation:
        block = ":".join(ip.split(":")[:3]) if ":" in ip else ip.rpartition(".")[0]
        agent, ja4, hints = shown
        network = located(block, where, self._seed)
        return Observation(at, f"t{person.number}", "", ip=ip, network=network, agent=agent, ja4=ja4, hints=hints)

    # ---- attackers ----

    def _attacks(self, person: _Consultant, day: int, at: float) -> Iterator[SignIn]:
        for who, where, shown in attackers(self._dice, person.base, person.laptop, day):
            later = at + self._dice.uniform(60, _DAY_S)
            yield SignIn(who, person.number, self._seen(person, later, address(self._dice, where), where, shown))


def attackers(
    dice: random.Random, country: str, browser: Browser, day: int
) -> Iterator[tuple[Who, Line, tuple[str, str, str]]]:
    """naive, vpn and same_country against somebody of this country and browser: who, from where, and what is shown."""
    shown = _shown(drawn(dice, ANYONES), day - dice.uniform(0, 60))
    if dice.random() < 1 / 8:
        shown = (shown[0], SCRIPT_JA4, "")
    far = [place for place in COUNTRIES.values() if place.attacks and place.code != country]
    goal = dice.choices(far, [place.attacks for place in far])[0]
    yield "naive", line(dice, goal.code, dice.choice(("fixed", "hosting", "mobile"))), shown
    yield "vpn", line(dice, country, "hosting"), _shown(drawn(dice, ANYONES), day - dice.uniform(0, 60))
    near = line(dice, country, dice.choice(("fixed", "fixed", "mobile")))
    lag = dice.uniform(0, 14) if dice.random() < 0.7 else dice.uniform(14, 90)  # most browsers update themselves
    yield "same_country", near, _shown(browser, day - lag)


def _shown(browser: Browser, day: float) -> tuple[str, str, str]:
    return browser.shown(newest(browser, day), day=int(day))
