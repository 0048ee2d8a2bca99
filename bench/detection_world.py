"""A synthetic world of sign-ins: people who work, commute, travel and change devices; attackers who have a password.

One seed, one world. Nobody here knows the scorer. People: dynamic addresses, shared ones of mobile networks, offices,
homes of others, cafes, trips with hotel networks and roaming (which comes out at home), private VPNs with changing
exits, moves, new laptops and phones, second browsers, borrowed devices, updates that some install late. Attacks are
drawn from a victim's true state at a moment the victim signs in, and each is judged on its own: none is learned from.

naive       another country, a device of anyone's, one in eight a script that names itself a browser; any hour
vpn         the same device mix, through a hosting network in the victim's country; any hour
same_isp    the victim's ISP and city, a browser on a system that the victim has on no device; half in office hours
exact       the victim's ISP and city and the very build of the browser in use; half in office hours
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from bench.detection_places import (
    ANYONES,
    BLOCKS,
    COUNTRIES,
    PHONES,
    STAFF_LAPTOPS,
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
from gateway.core.signals import Observation

type Who = Literal["honest", "naive", "vpn", "same_isp", "exact", "same_country"]
ATTACKERS: tuple[Who, ...] = ("naive", "vpn", "same_isp", "exact")
START = 1_798_761_600.0  # a Monday, midnight UTC
_DAY_S = 86_400
SCRIPT_JA4 = "t13d3112h1_e8f1e7e78f70_6bebaf5329ac"


@dataclass(frozen=True, slots=True)
class SignIn:
    """A sign-in of a person, or by somebody in that person's name. `person` is a number."""

    who: Who
    person: int
    seen: Observation


@dataclass
class _Device:
    browser: Browser
    lag_days: float

    def shown(self, day: float) -> tuple[str, str, str]:
        return self.browser.shown(newest(self.browser, day - self.lag_days), day=int(day - self.lag_days))


@dataclass
class _Person:
    number: int
    country: str
    city: int
    joined: int
    per_day: float
    start_hour: float
    office: Line | None
    office_days: float
    home: Line
    pools: list[int]
    lease_days: float
    carrier: Line
    second_home: Line
    vpn: list[Line]
    laptop: _Device
    phone: _Device | None
    desktop: _Device | None
    spare: _Device | None
    home_ip: str = ""
    lease_ends: float = 0.0
    trip: tuple[int, Line] | None = None
    trip_ips: dict[str, str] = field(default_factory=dict)


class World:
    """`people` over `days`; of each sign-in of a person every `attacked`-th moment is tried by every attacker."""

    def __init__(self, seed: int, people: int = 500, days: int = 210, attacked: int = 20) -> None:
        self._seed, self._days, self._attacked = seed, days, attacked
        self._dice = dice_of(seed)
        self._people = [self._person(number) for number in range(people)]

    def sign_ins(self) -> list[SignIn]:
        """Everything that happens, in order of time."""
        found = [sign_in for person in self._people for sign_in in self._life(person)]
        return sorted(found, key=lambda sign_in: sign_in.seen.now)

    # ---- people ----

    def _person(self, number: int) -> _Person:
        dice = self._dice
        staff = [country for country in COUNTRIES.values() if country.staff]
        home = dice.choices(staff, [country.staff for country in staff])[0]
        city = fallen(dice, len(home.cities))
        own = line(dice, home.code, "fixed", city)
        abroad = dice.choice(home.near) if dice.random() < 0.3 else home.code
        return _Person(
            number=number,
            country=home.code,
            city=city,
            joined=0 if dice.random() < 0.65 else dice.randrange(self._days),
            per_day=dice.choices((2.0, 1.0, 0.22, 0.06), (25, 50, 18, 7))[0],
            start_hour=min(12.0, max(5.0, dice.gauss(8.5, 1.3))),
            # A large town has one office of the company, with one line.
            office=Line(home.code, city, "office", 0) if dice.random() < 0.75 else None,
            office_days=dice.choice((0.2, 0.4, 0.6, 0.8)),
            home=own,
            pools=[dice.randrange(BLOCKS["fixed"]) for _ in range(dice.choice((1, 2, 4, 8)))],
            lease_days=dice.choices((1, 7, 30, 400), (25, 20, 25, 30))[0],
            carrier=line(dice, home.code, "mobile", city),
            second_home=line(dice, home.code, "fixed"),
            vpn=[line(dice, abroad, "hosting") for _ in range(3)] if dice.random() < 0.05 else [],
            laptop=self._device(STAFF_LAPTOPS),
            phone=self._device(PHONES) if dice.random() < 0.75 else None,
            desktop=self._device(STAFF_LAPTOPS) if dice.random() < 0.2 else None,
            spare=None,
        )

    def _device(self, mix: dict[tuple[str, str], int]) -> _Device:
        dice = self._dice
        lag = dice.uniform(0, 12) if dice.random() < 0.88 else dice.uniform(12, 100)
        return _Device(drawn(dice, mix), lag)

    def _changes(self, person: _Person) -> None:
        """What a day may bring: a new phone or laptop, another browser, a move, a trip."""
        dice = self._dice
        if person.phone is not None and dice.random() < 1 / (2.5 * 365):
            like = dice.random() < 0.85  # most stay with what they know
            phone = self._device(PHONES)
            person.phone = _Device(person.phone.browser if like else phone.browser, phone.lag_days)
        if dice.random() < 1 / (3.5 * 365):
            laptop = self._device(STAFF_LAPTOPS)
            like = dice.random() < 0.8
            person.laptop = _Device(person.laptop.browser if like else laptop.browser, laptop.lag_days)
        if dice.random() < 0.2 / 365:
            person.spare = _Device(Browser(drawn(dice, STAFF_LAPTOPS).name, person.laptop.browser.os), 3.0)
            if person.spare.browser.name == "safari":
                person.spare = _Device(Browser("firefox", person.laptop.browser.os), 3.0)
        if dice.random() < 0.12 / 365:
            person.home = line(dice, person.country, "fixed", person.city)
            person.lease_ends = 0.0

    def _trips(self, person: _Person, day: int) -> None:
        dice = self._dice
        if person.trip is not None and day >= person.trip[0]:
            person.trip = None
        if person.trip is None and dice.random() < 4.0 / 365:
            person.trip_ips = {}
            if dice.random() < 0.65:
                person.trip = (day + dice.choice((1, 1, 2, 3)), line(dice, person.country, "hotel"))
            else:
                goals = [country for country in COUNTRIES.values() if country.code != person.country]
                goal = dice.choices(goals, [country.visits for country in goals])[0]
                person.trip = (day + dice.choice((2, 3, 4, 5, 8)), line(dice, goal.code, "hotel"))

    # ---- days ----

    def _life(self, person: _Person) -> Iterator[SignIn]:
        dice = self._dice
        for day in range(person.joined, self._days):
            self._changes(person)
            self._trips(person, day)
            weekend = day % 7 >= 5
            at_office = person.office is not None and not weekend and dice.random() < person.office_days
            for moment in range(_poisson(dice, person.per_day * (0.12 if weekend else 1.0))):
                at = START + day * _DAY_S + 3600 * self._hour(person, moment)
                device = self._pick(person)
                ip, where = self._whereabouts(person, device, at, at_office=at_office)
                yield SignIn("honest", person.number, self._seen(person, at, ip, where, device.shown(day)))
                if dice.random() < 1 / self._attacked:
                    yield from self._attacks(person, day, at)

    def _hour(self, person: _Person, moment: int) -> float:
        local = person.start_hour + 4.5 * moment + self._dice.gauss(0.3, 0.8)
        if self._dice.random() < 0.06:
            local = self._dice.uniform(6, 24)
        return (local - COUNTRIES[person.country].utc) % 24

    def _pick(self, person: _Person) -> _Device:
        dice = self._dice
        if dice.random() < 0.0008:
            return self._device(ANYONES)  # somebody else's
        others = [(person.phone, 0.12), (person.desktop, 0.15), (person.spare, 0.15)]
        for device, share in others:
            if device is not None and dice.random() < share:
                return device
        return person.laptop

    def _whereabouts(self, person: _Person, device: _Device, at: float, *, at_office: bool) -> tuple[str, Line]:
        dice = self._dice
        mobile = device is person.phone and dice.random() < 0.55
        if mobile or dice.random() < 0.02:  # the phone's own network, also abroad; or the laptop behind the phone
            return address(dice, person.carrier), person.carrier
        if person.trip is not None:
            where = person.trip[1]
            if dice.random() < 0.25:  # not at the hotel
                where = Line(where.country, where.city, dice.choice(("hotel", "fixed")), fallen(dice, 6))
            kept = person.trip_ips.setdefault(str(where), address(dice, where))
            return kept, where
        if at_office and person.office is not None:
            return address(dice, person.office, [0]), person.office
        if person.vpn and dice.random() < 0.4:
            where = dice.choice(person.vpn)
            return address(dice, where), where
        if dice.random() < 0.04:
            return address(dice, person.second_home, [3]), person.second_home
        if dice.random() < 0.015:  # a cafe, a customer
            where = line(dice, person.country, dice.choice(("fixed", "hotel")), person.city)
            return address(dice, where), where
        if at >= person.lease_ends:
            person.lease_ends = at + dice.expovariate(1 / person.lease_days) * _DAY_S
            person.home_ip = address(dice, person.home, person.pools)
        return person.home_ip, person.home

    def _seen(self, person: _Person, at: float, ip: str, where: Line, shown: tuple[str, str, str]) -> Observation:
        network = located(ip.rpartition(".")[0], where, self._seed)
        agent, ja4, hints = shown
        return Observation(at, f"u{person.number}", "", ip=ip, network=network, agent=agent, ja4=ja4, hints=hints)

    # ---- attackers ----

    def _attacks(self, person: _Person, day: int, at: float) -> Iterator[SignIn]:
        dice = self._dice
        midnight = at - at % _DAY_S
        any_hour = midnight + dice.uniform(0, _DAY_S)
        # Never before the victim's own sign-in: there is nobody to break in to before the first one.
        any_hour = any_hour if any_hour > at else any_hour + _DAY_S
        chosen = at + dice.uniform(60, 7_200) if dice.random() < 0.5 else any_hour
        shown = self._anyones(day)
        if dice.random() < 1 / 8:
            shown = (shown[0], SCRIPT_JA4, "")
        far = [country for country in COUNTRIES.values() if country.attacks and country.code != person.country]
        goal = dice.choices(far, [country.attacks for country in far])[0]
        where = line(dice, goal.code, dice.choice(("fixed", "hosting", "mobile")))
        yield self._attack("naive", person, any_hour, where, shown)
        where = line(dice, person.country, "hosting")
        yield self._attack("vpn", person, any_hour, where, self._anyones(day))
        own = [person.laptop, person.phone, person.desktop, person.spare]
        taken = {device.browser for device in own if device is not None}
        others = {pair: share for pair, share in ANYONES.items() if Browser(*pair) not in taken}
        yield self._attack("same_isp", person, chosen, person.home, self._device(others).shown(day))
        yield self._attack("exact", person, chosen, person.home, person.laptop.shown(day))

    def _anyones(self, day: int) -> tuple[str, str, str]:
        return self._device(ANYONES).shown(day)

    def _attack(self, who: Who, person: _Person, at: float, where: Line, shown: tuple[str, str, str]) -> SignIn:
        return SignIn(who, person.number, self._seen(person, at, address(self._dice, where), where, shown))


def _poisson(dice: random.Random, mean: float) -> int:
    """Knuth's way, good for small means."""
    least, product, count = math.exp(-mean), dice.random(), 0
    while product > least:
        product *= dice.random()
        count += 1
    return count
