"""Shared Signals Framework: the transmitters this gateway receives from, and its own receivers."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from gateway.adapters.http import HttpxClient
from gateway.config import Config, Issuer, Secret, SignalSource, resolve_secret
from gateway.core import paths
from gateway.identity.devices.posture import PostureReports
from gateway.identity.oidc.discovery import IssuerDirectory
from gateway.identity.sessions.login_sessions import LoginSessions
from gateway.identity.ssf.receiver import SignalReceiver, Source
from gateway.identity.ssf.transmitter import SignalTransmitter, Stream
from gateway.observability import log
from gateway.wiring.resources import ProcessResources


@dataclass(frozen=True, slots=True)
class Signals:
    """Everything about signals that a generation needs."""

    receivers: Mapping[str, SignalReceiver]
    transmitter: SignalTransmitter
    streams: Sequence[str]
    reports: PostureReports

    def background(self) -> list[Coroutine[Any, Any, None]]:
        """The loops that poll and push."""
        polling = [receiver.run(_report) for receiver in self.receivers.values() if receiver.source.poll_url]
        return [*polling, self.transmitter.run(_report)]


def signals_of(
    config: Config,
    shared: ProcessResources,
    logins: LoginSessions,
    transmitter: SignalTransmitter,
    undo: contextlib.AsyncExitStack,
) -> Signals:
    """The signals of a configuration. Raises ConfigError or ValueError; `undo` frees what they hold."""
    store = shared.store
    receivers = {
        name: SignalReceiver(_source(name, settings, undo), logins, logins, store, shared.documents, store, time.time)
        for name, settings in config.shared_signals.receive.items()
    }
    reports = PostureReports(store, store, time.time)
    return Signals(receivers, transmitter, tuple(config.shared_signals.transmit), reports)


def transmitter_of(config: Config, shared: ProcessResources, undo: contextlib.AsyncExitStack) -> SignalTransmitter:
    """The transmitter to the gateway's own receivers. Raises ConfigError or ValueError; `undo` frees what it holds."""
    streams = []
    for name, stream in config.shared_signals.transmit.items():
        http = None
        if stream.push_url is not None:
            http = HttpxClient(ca=stream.ca)
            undo.push_async_callback(http.close)
        streams.append(
            Stream(
                name,
                stream.audience,
                frozenset(stream.events),
                stream.push_url or "",
                _text(stream.push_token),
                _text(stream.poll_token),
                http,
            )
        )
    return SignalTransmitter(
        streams,
        config.origin(config.host),
        shared.asserter.sign_claims,
        shared.store,
        shared.store,
        shared.documents,
        shared.store,
        time.time,
        shared.name,
    )


def _source(name: str, settings: SignalSource, undo: contextlib.AsyncExitStack) -> Source:
    http = HttpxClient(ca=settings.ca)
    undo.push_async_callback(http.close)
    trust = Issuer(issuer=settings.issuer, audiences=(settings.audience,), algorithms=settings.algorithms)
    parts = urlsplit(settings.issuer)
    # SSF 1.0 section 7.2.1: the well-known part goes between the host and the path.
    path = f"{paths.SSF_CONFIGURATION}{parts.path.rstrip('/')}"
    directory = IssuerDirectory(trust, http, time.time, discovery_url=parts._replace(path=path).geturl())
    return Source(
        name,
        trust,
        directory,
        settings.people_of or settings.issuer,
        settings.poll_url or "",
        _text(settings.poll_token),
        settings.poll_s,
        http,
    )


def _text(secret: Secret | None) -> str:
    return "" if secret is None else resolve_secret(secret).reveal()


def _report(name: str, trouble: str) -> None:
    log.get("signals").warning("shared_signals_failed", stream=name, trouble=trouble)
