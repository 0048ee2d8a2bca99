"""Sections `store`, `record` and `sessions`: where state is kept, and for how long."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from gateway.config.models.values import HostPort, Model, Seconds, Secret


class Record(Model):
    """Where decisions on the staff plane are written."""

    file: Path = Field(Path("state/decisions.jsonl"), description="One JSON line for each decision.")


class StateTls(Model):
    """TLS to the Redis and its Sentinels; their certificates must carry the addresses they are reached at."""

    ca: Path | None = Field(None, description="PEM: the only CA believed; by default the system's.")
    certificate: Path | None = Field(None, description="PEM: client certificate.")
    key: Path | None = Field(None, description="PEM: its key; it must not be readable by others.")


class StateSentinel(Model):
    """The Sentinels that know which Redis is the master."""

    name: str = Field(pattern=r"^[A-Za-z0-9._-]+$", description="What they call the master.")
    addresses: tuple[HostPort, ...] = Field(min_length=1, description="Where they are; most of them decide.")
    username: str | None = Field(None, description="ACL user at the Sentinels.")
    password: Secret | None = Field(None, description="Its password.")


class StateStore(Model):
    """Where sessions, devices and revocations are kept: a file of this machine, or a Redis that several share.

    Redis needs `appendonly yes` and `maxmemory-policy noeviction`. Only `appendfsync always` keeps what was
    acknowledged through a crash of the server. Each machine needs the same `master.key` in its `state` folder.
    """

    kind: Literal["sqlite", "redis"] = Field("sqlite", description="The embedded file, or Redis.")
    address: HostPort | None = Field(None, description="The Redis, where no Sentinel is asked.")
    sentinel: StateSentinel | None = Field(None, description="The Sentinels to ask for the master.")
    database: int = Field(0, ge=0, le=1_000, description="The database's number.")
    username: str | None = Field(None, description="ACL user.")
    password: Secret | None = Field(None, description="Its password.")
    tls: StateTls | None = Field(None, description="Needed beyond this machine.")
    timeout_ms: int = Field(250, ge=20, le=10_000, description="No answer by then is store_down.")
    replicas: int = Field(0, ge=0, le=10, description="Replicas that must have a write before it is acknowledged.")
    on_down: Literal["deny", "read_only"] = Field(
        "deny", description="read_only: for `grace_s` what was read before still counts; nothing new is accepted."
    )
    grace_s: float = Field(0, ge=0, le=300, description="How long an answer may be used again, for `read_only`.")


class Sessions(Model):
    """The sessions of people with a browser."""

    idle_s: Seconds = Field(1_800, description="A session that is not used for this long is over.")
    absolute_s: Seconds = Field(43_200, description="A session is over after this, used or not.")
    dbsc: bool = Field(True, description="Ask browsers to bind a session to a key of theirs (DBSC).")
    dbsc_s: int = Field(
        900,
        ge=180,
        le=3_600,
        description="How long such a proof lasts; a browser makes about six in nine minutes for one domain.",
    )
