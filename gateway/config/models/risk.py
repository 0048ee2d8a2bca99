"""Sections `risk` and `networks`: signals, and what is known of client addresses."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from gateway.config.models.values import IpNetwork, Model


class Networks(Model):
    """What is known of client addresses, for `client.country`, `client.asn` and `client.vpn` and for risk."""

    databases: tuple[Path, ...] | None = Field(
        None,
        description="MaxMind DB files (country, ASN, city); by default the country file installed with the gateway.",
    )
    company: tuple[IpNetwork, ...] = Field((), description="The company's own networks, where a country says nothing.")
    vpn: tuple[IpNetwork, ...] = Field((), description="Addresses that the company's VPN hands out: `client.vpn`.")


class Risk(Model):
    """How unusual a request may be. Without this section no signal runs, and the risk level is always `none`."""

    low: float = Field(1.0, gt=0, le=100, description="The score at which the level low begins.")
    medium: float = Field(2.0, gt=0, le=100, description="The score at which the level medium begins.")
    high: float = Field(4.0, gt=0, le=100, description="The score at which the level high begins.")
    reuse_s: float = Field(5, ge=0, le=60, description="An unchanged session is not scored again for this long.")
    remember_days: float = Field(180, gt=0, le=730, description="How long a person's history is kept.")
    signals: dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")], dict[str, float]] = Field(
        default_factory=dict, description="Settings of signals, by name (docs/signals.md); a weight of 0 silences one."
    )
