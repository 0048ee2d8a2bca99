"""The places and programs of the synthetic world: countries, networks, what a database says of an address, browsers.

Everything is made up but the shape: market shares fall off, addresses of mobile networks are shared by thousands and
lie where the carrier's hub is, and the data are wrong as often as the real ones are (3 to 5 % of countries between two
good databases, positions by a hundred kilometres and more, radii that promise too much).
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import cos, pi, radians, sin
from typing import Literal

from gateway.core.ports.pipeline import Network

type Access = Literal["fixed", "mobile", "office", "hotel", "hosting"]
_FIRST_ASN = 4_200_000_000
_OFFSETS: dict[Access, int] = {"fixed": 0, "mobile": 20, "office": 30, "hotel": 40, "hosting": 60}
# How many /24s a network has in a city.
BLOCKS: dict[Access, int] = {"fixed": 120, "mobile": 8, "office": 1, "hotel": 12, "hosting": 30}
_CHOICES: dict[Access, int] = {"fixed": 7, "mobile": 3, "office": 4, "hotel": 6, "hosting": 12}


@dataclass(frozen=True, slots=True)
class Country:
    """A country: its time (hours from UTC), its cities largest first, and the neighbours it is mistaken for."""

    code: str
    utc: int
    cities: tuple[tuple[float, float], ...]
    near: tuple[str, ...]
    staff: float = 0.0
    visits: float = 1.0
    attacks: float = 0.0


COUNTRIES = {
    country.code: country
    for country in (
        Country("DE", 1, ((52.5, 13.4), (53.6, 10.0), (48.1, 11.6), (50.9, 7.0), (50.1, 8.7), (51.3, 12.4)),
                ("NL", "AT", "PL", "FR"), staff=0.55, visits=4, attacks=1),
        Country("FR", 1, ((48.9, 2.3), (45.8, 4.8), (43.3, 5.4), (43.6, 1.4)), ("DE", "ES", "GB"), 0.12, 4, 1),
        Country("GB", 0, ((51.5, -0.1), (53.5, -2.2), (55.9, -3.2)), ("IE", "FR", "NL"), 0.1, 3, 1),
        Country("PL", 1, ((52.2, 21.0), (50.1, 19.9), (51.1, 17.0)), ("DE", "CZ"), 0.08, 2, 1),
        Country("US", -6, ((40.7, -74.0), (41.9, -87.6), (32.8, -96.8), (37.8, -122.4)), ("CA", "GB"), 0.1, 2, 4),
        Country("IN", 5, ((19.1, 72.9), (12.97, 77.6), (28.6, 77.2)), ("SG", "AE"), 0.05, 1, 2),
        Country("NL", 1, ((52.4, 4.9), (51.9, 4.5)), ("DE", "GB"), 0, 3, 3),
        Country("AT", 1, ((48.2, 16.4), (47.1, 15.4)), ("DE", "CZ"), 0, 3),
        Country("ES", 1, ((40.4, -3.7), (41.4, 2.2), (39.6, 2.7)), ("FR", "IT"), 0, 5, 1),
        Country("IT", 1, ((41.9, 12.5), (45.5, 9.2)), ("FR", "AT"), 0, 4, 1),
        Country("CZ", 1, ((50.1, 14.4),), ("PL", "DE", "AT"), 0, 1),
        Country("IE", 0, ((53.3, -6.3),), ("GB",), 0, 1),
        Country("TR", 3, ((41.0, 29.0), (36.9, 30.7)), ("DE", "RU"), 0, 2, 2),
        Country("AE", 4, ((25.2, 55.3),), ("IN",), 0, 1),
        Country("CA", -5, ((43.7, -79.4), (45.5, -73.6)), ("US",), 0, 1, 1),
        Country("SG", 8, ((1.35, 103.8),), ("IN",), 0, 1, 2),
        Country("RU", 3, ((55.8, 37.6), (59.9, 30.3)), ("PL",), 0, 0, 8),
        Country("CN", 8, ((39.9, 116.4), (31.2, 121.5), (22.5, 114.1)), ("SG",), 0, 0.3, 6),
        Country("BR", -3, ((-23.5, -46.6), (-22.9, -43.2)), ("US",), 0, 0.3, 5),
        Country("VN", 7, ((21.0, 105.8), (10.8, 106.7)), ("SG", "CN"), 0, 0.3, 4),
        Country("NG", 1, ((6.5, 3.4), (9.1, 7.5)), ("GB",), 0, 0.1, 4),
        Country("UA", 2, ((50.4, 30.5),), ("PL", "RU"), 0, 0.2, 2),
        Country("RO", 2, ((44.4, 26.1),), ("DE", "UA"), 0, 0.5, 2),
    )
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Line:
    """Where somebody goes online: a network of a country, in one of its cities."""

    country: str
    city: int
    access: Access
    number: int

    @property
    def asn(self) -> int:
        """The AS of it."""
        return _FIRST_ASN + list(COUNTRIES).index(self.country) * 100 + _OFFSETS[self.access] + self.number


def dice_of(seed: int | str) -> random.Random:
    """The chances of a world, the same for the same seed."""
    return random.Random(seed)  # noqa: S311  (nothing here is a secret, and every world can be made again)


def line(dice: random.Random, country: str, access: Access, city: int | None = None) -> Line:
    """A customer's line: the larger a city or a network, the likelier."""
    cities = len(COUNTRIES[country].cities)
    where = fallen(dice, cities) if city is None else city
    return Line(country, where, access, fallen(dice, _CHOICES[access]))


def address(dice: random.Random, at: Line, pools: Sequence[int] | None = None) -> str:
    """An address of this line. `pools`: the /24s it is given out of, by default any of the city's."""
    third = dice.choice(pools) if pools else dice.randrange(BLOCKS[at.access])
    index = (at.asn - _FIRST_ASN) * 8 + at.city
    return f"{20 + index // 250}.{index % 250}.{third}.{dice.randrange(2, 255)}"


@lru_cache(100_000)
def located(block: str, at: Line, seed: int) -> Network:
    """What the data say of a /24: the same for all of its addresses, and wrong as often as in the field."""
    dice = dice_of(f"{block} {at} {seed}")
    country = COUNTRIES[at.country]
    loose = at.access in {"mobile", "hosting"}
    code = dice.choice(country.near) if dice.random() < (0.045 if loose else 0.02) else country.code
    asn = None if dice.random() < 0.005 else at.asn
    if dice.random() < 0.06:
        return Network(code, asn, f"Net {at.asn}")
    hub = at.access == "mobile" and dice.random() < 0.6
    elsewhere = code != country.code or dice.random() < 0.04
    home = COUNTRIES[code]
    city = home.cities[0] if hub else home.cities[dice.randrange(len(home.cities)) if elsewhere else at.city]
    off_km = dice.lognormvariate(5.0 if loose else 3.4, 1.1)
    turn = dice.uniform(0, 2 * pi)
    latitude = city[0] + off_km * sin(turn) / 111
    longitude = city[1] + off_km * cos(turn) / (111 * cos(radians(city[0])))
    radius = dice.choice((50, 100, 200, 500, 1000) if loose else (5, 10, 20, 50, 100, 200))
    return Network(code, asn, f"Net {at.asn}", latitude, longitude, None if dice.random() < 0.03 else radius)


def fallen(dice: random.Random, choices: int) -> int:
    """One of so many, each less likely than the one before it (about 1/k)."""
    return dice.choices(range(choices), [1 / (1 + number) for number in range(choices)])[0]


# ---- programs ----


@dataclass(frozen=True, slots=True)
class Browser:
    """A browser on an operating system; its version comes from the day."""

    name: str
    os: str

    def shown(self, version: int, *, day: int = 0) -> tuple[str, str, str]:
        """User-Agent, JA4 and client hints."""
        return _agent(self, version), _ja4(self, day), _hints(self)


_FRAMES = {
    "windows": "Windows NT 10.0; Win64; x64",
    "macos": "Macintosh; Intel Mac OS X 10_15_7",
    "linux": "X11; Linux x86_64",
    "android": "Linux; Android 10; K",
    "ios": "iPhone; CPU iPhone OS {v}_3 like Mac OS X",
}
_TAILS = {"chrome": "", "edge": " Edg/{v}.0.0.0", "opera": " OPR/{v}.0.0.0", "samsung": ""}
_SUITES = {"firefox": "5b57614c22b0", "safari": "a09f3c656075", "script": "e8f1e7e78f70"}
_PLATFORMS = {"windows": '"Windows"', "macos": '"macOS"', "linux": '"Linux"', "android": '"Android"'}
# What a company hands out, and what is in use everywhere.
STAFF_LAPTOPS = {("chrome", "windows"): 38, ("edge", "windows"): 20, ("firefox", "windows"): 7, ("chrome", "macos"): 14,
                 ("safari", "macos"): 8, ("firefox", "macos"): 2,
                 ("firefox", "linux"): 6, ("chrome", "linux"): 5}  # fmt: skip
PHONES = {("safari", "ios"): 48, ("chrome", "android"): 42, ("samsung", "android"): 7, ("firefox", "android"): 3}
ANYONES = {("chrome", "windows"): 33, ("edge", "windows"): 8, ("firefox", "windows"): 5, ("opera", "windows"): 3,
           ("chrome", "macos"): 6, ("safari", "macos"): 5, ("firefox", "linux"): 2, ("chrome", "linux"): 4,
           ("safari", "ios"): 12, ("chrome", "android"): 19, ("samsung", "android"): 3}  # fmt: skip


def drawn(dice: random.Random, mix: dict[tuple[str, str], int]) -> Browser:
    """One of a mix."""
    return Browser(*dice.choices(list(mix), list(mix.values()))[0])


def newest(browser: Browser, day: float) -> int:
    """The version of that day: a new one every four weeks, of Safari two a year."""
    first = {"firefox": 140, "safari": 18, "samsung": 27}.get(browser.name, 141)
    return first + int(max(0.0, day) // {"safari": 180, "samsung": 90}.get(browser.name, 28))


def _agent(browser: Browser, version: int) -> str:
    frame = _FRAMES[browser.os].format(v=version)
    if browser.name == "firefox":
        frame = "Android 15; Mobile" if browser.os == "android" else frame
        return f"Mozilla/5.0 ({frame}; rv:{version}.0) Gecko/20100101 Firefox/{version}.0"
    if browser.name == "safari":
        mobile = "Mobile/15E148 " if browser.os == "ios" else ""
        return (
            f"Mozilla/5.0 ({frame}) AppleWebKit/605.1.15 (KHTML, like Gecko)"
            f" Version/{version}.3 {mobile}Safari/605.1.15"
        )
    mobile = "Mobile " if browser.os == "android" else ""
    own = f"SamsungBrowser/{version}.0 Chrome/134.0.0.0" if browser.name == "samsung" else f"Chrome/{version}.0.0.0"
    tail = _TAILS[browser.name].format(v=version)
    return f"Mozilla/5.0 ({frame}) AppleWebKit/537.36 (KHTML, like Gecko) {own} {mobile}Safari/537.36{tail}"


def _ja4(browser: Browser, day: int) -> str:
    suites = _SUITES.get(browser.name, "8daaf6152771")
    if browser.name == "firefox" and day >= 150:
        suites = "5b57614c22b9"  # a release with another list
    return f"t13d1516h2_{suites}_02713d6af862"


def _hints(browser: Browser) -> str:
    if browser.name in {"firefox", "safari"}:
        return ""
    brands = {"chrome": "Google Chrome", "edge": "Microsoft Edge", "opera": "Opera", "samsung": "Samsung Internet"}
    return f"Chromium|{brands[browser.name]}|{_PLATFORMS[browser.os]}|?{int(browser.os == 'android')}"
