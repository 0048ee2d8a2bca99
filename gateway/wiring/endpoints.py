"""The endpoints of one generation: the router with every own URL."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gateway.config import Config
from gateway.core import paths
from gateway.core.request import RequestFacts
from gateway.core.subject import subject_key
from gateway.endpoints.account import AccountEndpoints
from gateway.endpoints.browser_request import browser_limiter
from gateway.endpoints.dbsc import DbscEndpoints
from gateway.endpoints.enrolment import EnrolmentEndpoints
from gateway.endpoints.factors import FactorEndpoints, FactorEvents
from gateway.endpoints.login import LoginEndpoints
from gateway.endpoints.logout import LogoutEndpoints
from gateway.endpoints.metadata import MetadataEndpoints
from gateway.endpoints.pages import Pages
from gateway.endpoints.posture import PostureEndpoints
from gateway.endpoints.router import Endpoint, Router
from gateway.endpoints.ssf import SsfEndpoints
from gateway.identity.bearer.challenges import resource_metadata
from gateway.identity.sessions.login_sessions import LoginSession
from gateway.pipeline.pipeline import Pipeline
from gateway.replies.rendering import Branding
from gateway.wiring.identity import People, SignIns
from gateway.wiring.resources import ProcessResources, enrolment_of
from gateway.wiring.ssf import Signals

# A wrong answer to a factor that somebody may have guessed.
_GUESSED = frozenset({"factor_invalid", "factor_replayed", "factor_locked"})


def branding_of(config: Config) -> Branding:
    """The company on the pages; its home is the page of one's own sessions, where people can log in at all."""
    can_log_in = any(issuer.login is not None for issuer in config.issuers)
    return Branding(config.name, config.contact, config.origin(config.host) + paths.ME if can_log_in else "")


def router_of(config: Config, shared: ProcessResources, pipeline: Pipeline, people: People, signals: Signals) -> Router:
    """Endpoints for machines, and those for people with a browser where anybody can log in."""
    endpoints = [
        *_metadata(config, shared).endpoints(),
        *EnrolmentEndpoints(enrolment=enrolment_of(config, shared.store)).endpoints(),
        *LogoutEndpoints(logouts=people.logouts, webhooks=people.hooks).endpoints(),
        *SsfEndpoints(
            origin=config.origin(config.host),
            receivers=signals.receivers,
            transmitter=signals.transmitter,
            streams=signals.streams,
        ).endpoints(),
        *PostureEndpoints(reports=signals.reports).endpoints(),
    ]
    if people.sign_ins is not None:
        endpoints += _browser_endpoints(config, pipeline, people.sign_ins, signals)
    return Router(endpoints, pipeline.conclusion.branding)


def _metadata(config: Config, shared: ProcessResources) -> MetadataEndpoints:
    devices = config.devices
    issuers = [issuer.issuer for issuer in config.issuers]
    hosts = {service.host for service in config.services.values()}

    def protected_resource(host: str, path: str) -> Mapping[str, Any] | None:
        if host.partition(":")[0] not in hosts or not issuers:
            return None
        return resource_metadata(f"{host}{path.rstrip('/')}", issuers)

    return MetadataEndpoints(
        jwks=shared.asserter.jwks,
        crl=lambda: _read(devices.crl_file),
        ca=lambda: _read(devices.ca),
        protected_resource=protected_resource,
    )


def _browser_endpoints(config: Config, pipeline: Pipeline, parts: SignIns, signals: Signals) -> list[Endpoint]:
    """Login and account take from one bucket of attempts, factors from another."""
    issuers = [issuer.issuer for issuer in config.issuers if issuer.login is not None]
    pages = Pages(issuers=issuers, branding=pipeline.conclusion.branding)
    limiter = browser_limiter()

    def note(event: Mapping[str, Any]) -> None:
        pipeline.conclusion.recorder.record({"v": 1, "ts": time.time(), **event})

    def failed(reason: str, facts: RequestFacts, login: LoginSession) -> None:
        if reason in _GUESSED:
            account = subject_key(login.identity.issuer, login.identity.subject)
            network = pipeline.ports.networks.lookup(facts.client_ip)
            pipeline.ports.assessor.record_failure(
                reason, facts.client_ip, network, account=account, session_id=login.id
            )

    return [
        *LoginEndpoints(
            host=config.host,
            login=parts.login,
            tickets=parts.handover,
            pages=pages,
            note=note,
            dbsc=parts.keys,
            limiter=limiter,
        ).endpoints(),
        *AccountEndpoints(
            host=config.host,
            origin=config.origin(config.host),
            login=parts.login,
            sessions=parts.own,
            pages=pages,
            limiter=limiter,
        ).endpoints(),
        *FactorEndpoints(
            host=config.host,
            login=parts.login,
            step_ups=parts.step_ups,
            factors=parts.factors,
            pages=pages,
            events=FactorEvents(note, signals.transmitter.tell, failed),
            dbsc=parts.keys,
        ).endpoints(),
        *(DbscEndpoints(dbsc=parts.keys).endpoints() if parts.keys is not None else ()),
    ]


def _read(path: Path | None) -> bytes | None:
    try:
        return path.read_bytes() if path is not None else None
    except OSError:
        return None
