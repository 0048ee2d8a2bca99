"""Signals raise the risk."""

from collections.abc import Mapping
from typing import Any

from gateway.core.signals import Signal
from plugins.signals.concurrent_use import ConcurrentUse
from plugins.signals.cookie_theft import CookieTheft
from plugins.signals.country_change import CountryChange
from plugins.signals.credential_stuffing import CredentialStuffing
from plugins.signals.impossible_travel import ImpossibleTravel
from plugins.signals.new_device import NewDevice
from plugins.signals.new_network import NewNetwork
from plugins.signals.password_spraying import PasswordSpraying
from plugins.signals.token_replay import TokenReplay

ALL: tuple[type[Signal], ...] = (
    CookieTheft,
    ConcurrentUse,
    TokenReplay,
    ImpossibleTravel,
    CountryChange,
    NewNetwork,
    NewDevice,
    CredentialStuffing,
    PasswordSpraying,
)


def builtin(settings: Mapping[str, Mapping[str, float]] | None = None) -> tuple[Signal, ...]:
    """One of each, with its settings by name. Raises ValueError for what its schema does not take."""
    wanted = settings or {}
    if unknown := wanted.keys() - {signal.name for signal in ALL}:
        raise ValueError(f"no such signal: {', '.join(sorted(unknown))}")
    return tuple(signal(**_checked(signal, wanted.get(signal.name, {}))) for signal in ALL)


def _checked(signal: type[Signal], settings: Mapping[str, float]) -> dict[str, Any]:
    checked: dict[str, Any] = {}
    for name, value in settings.items():
        rule = signal.schema["properties"].get(name)
        whole = rule is not None and rule["type"] == "integer"
        if rule is None or not rule["minimum"] <= value <= rule["maximum"] or (whole and value != int(value)):
            raise ValueError(f"{signal.name} does not take {name}: {value}")
        checked[name] = int(value) if whole else value
    return checked
