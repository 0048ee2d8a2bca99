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


def builtin(settings: Mapping[str, Mapping[str, Any]] | None = None) -> tuple[Signal, ...]:
    """One of each, with its settings by name. Raises ValueError for an unknown name, TypeError for a setting."""
    wanted = settings or {}
    if unknown := wanted.keys() - {signal.name for signal in ALL}:
        raise ValueError(f"no such signal: {', '.join(sorted(unknown))}")
    return tuple(signal(**wanted.get(signal.name, {})) for signal in ALL)
