"""User-Agent parsing (RFC 9110 section 10.1.5): browser, version, operating system, kind of device.

Only what the risk of a sign-in compares: families, not models. Browsers have frozen what they say of the operating
system's version (RFC 9110 section 10.1.5 leaves it to them), so it is not looked at.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

type Kind = Literal["desktop", "phone", "tablet", "program", ""]

_LONGEST, _CACHED = 512, 4_096
# The first that matches: every browser also claims to be those that stand below it.
_BROWSERS = tuple(
    (name, re.compile(pattern + r"([0-9]{1,6})"))
    for name, pattern in (
        ("edge", r"\b(?:Edg|EdgA|EdgiOS|Edge)/"),
        ("opera", r"\b(?:OPR|OPT|OPX|Opera)/"),
        ("samsung", r"\bSamsungBrowser/"),
        ("vivaldi", r"\bVivaldi/"),
        ("yandex", r"\bYaBrowser/"),
        ("firefox", r"\b(?:Firefox|FxiOS|Focus)/"),
        ("chrome", r"\b(?:HeadlessChrome|Chrome|Chromium|CriOS)/"),
        ("safari", r"\bVersion/(?=[0-9.]+ (?:Mobile/\S+ )?Safari/)"),
        ("internet explorer", r"\b(?:MSIE |Trident/.{0,40}rv:)"),
    )
)
_SYSTEMS = (
    ("windows", re.compile(r"Windows")),
    ("ios", re.compile(r"iPhone|iPad|iPod")),
    ("android", re.compile(r"Android")),
    ("chromeos", re.compile(r"CrOS")),
    ("macos", re.compile(r"Mac ?OS ?X|Macintosh")),
    ("linux", re.compile(r"Linux|X11|BSD")),
)
_PRODUCT = re.compile(r"([A-Za-z][A-Za-z0-9 ._-]{0,39})(?:/v?([0-9]{1,6}))?")


@dataclass(frozen=True, slots=True)
class Program:
    """A browser or another client. "" is unknown, version 0 as well; families are in lower case."""

    browser: str = ""
    version: int = 0
    os: str = ""
    device_type: Kind | str = ""


@lru_cache(_CACHED)
def read(agent: str) -> Program:
    """What `agent` says. Never raises; what it does not know is a "program" by its first product's name."""
    text = agent[:_LONGEST]
    os = next((name for name, pattern in _SYSTEMS if pattern.search(text)), "")
    for name, pattern in _BROWSERS:
        if found := pattern.search(text):
            return Program(name, int(found[1]), os, _device(text, os))
    if product := _PRODUCT.match(text):
        return Program(product[1].strip().lower(), int(product[2] or 0), os, "program")
    return Program("", 0, os, "program" if text else "")


def _device(text: str, os: str) -> Kind:
    if "iPad" in text or "Tablet" in text or (os == "android" and "Mobile" not in text):
        return "tablet"
    return "phone" if "Mobile" in text or os in {"ios", "android"} else "desktop"
