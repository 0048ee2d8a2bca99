"""Section `shared_signals`: other systems' signals, and who follows ours (SSF 1.0, CAEP 1.0)."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from gateway.config.models.values import Model, Name, Seconds, Secret

SignalKind = Literal[
    "session-revoked",
    "credential-change",
    "device-compliance-change",
    "risk-level-change",
    "assurance-level-change",
]


class SignalSource(Model):
    """Another system whose shared signals (SSF 1.0, CAEP 1.0) are followed."""

    issuer: str = Field(pattern=r"^https?://[^\s?#]+$", description="The transmitter, exactly as in its events.")
    audience: str = Field(min_length=1, description="What its events name as their audience: this gateway.")
    people_of: str | None = Field(None, description="The issuer whose people it speaks of, where it names none.")
    algorithms: tuple[Literal["RS256", "PS256", "ES256", "EdDSA"], ...] = Field(
        ("RS256", "ES256"), min_length=1, description="Signature algorithms it may use."
    )
    poll_url: str | None = Field(
        None, pattern=r"^https?://[^\s#]+$", description="Ask here for events (RFC 8936); without it they are pushed."
    )
    poll_token: Secret | None = Field(None, description="Bearer token for `poll_url`.")
    poll_s: Seconds = Field(2, description="Time between two polls.")
    ca: Path | None = Field(None, description="PEM: the CA of its server certificate.")


class SignalStream(Model):
    """Another system that follows this gateway's signals; exactly one of `push_url` and `poll_token`."""

    audience: str = Field(min_length=1, description="The receiver, as it wants to be named.")
    events: tuple[SignalKind, ...] = Field(
        ("session-revoked", "device-compliance-change"), min_length=1, description="What it is told of."
    )
    push_url: str | None = Field(None, pattern=r"^https?://[^\s#]+$", description="Where events are pushed (RFC 8935).")
    push_token: Secret | None = Field(None, description="Bearer token for `push_url`.")
    poll_token: Secret | None = Field(None, description="It polls here with this bearer token (RFC 8936).")
    ca: Path | None = Field(None, description="PEM: the CA of its server certificate.")


class SharedSignals(Model):
    """Shared signals: other systems follow what ends here, and this gateway follows them."""

    receive: dict[Name, SignalSource] = Field({}, description="Whom this gateway follows.")
    transmit: dict[Name, SignalStream] = Field({}, description="Who follows this gateway.")
