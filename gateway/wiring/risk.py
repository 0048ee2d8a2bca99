"""Risk: what is known of networks, and the assessor of stage 7 where the configuration asks for one."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.adapters.geo import GeoNetworks, default_database
from gateway.config import Config
from gateway.core.decision import NO_SIGNAL, RiskReport
from gateway.core.ports.documents import Documents
from gateway.core.ports.pipeline import Network, RiskAssessor
from gateway.core.ports.stores import Changes, StoreDown
from gateway.core.request import RequestFacts
from gateway.core.routes import Route
from gateway.core.subject import Device, Identity, Session, subject_key
from gateway.identity.ssf.receiver import RISKS
from gateway.observability import log
from gateway.risk.assessor import LEVELS, Assessor
from gateway.risk.login_pattern import LoginPatternModel
from gateway.risk.memory import RiskMemory
from gateway.risk.scoring import Thresholds
from plugins.signals import builtin

_FLUSH_S = 1.0


class NoSignal:
    """No signal is configured: every request has the risk of none."""

    async def assess(
        self,
        session: Session | None,  # noqa: ARG002  (port)
        identity: Identity | None,  # noqa: ARG002  (port)
        device: Device | None,  # noqa: ARG002  (port)
        facts: RequestFacts,  # noqa: ARG002  (port)
        network: Network,  # noqa: ARG002  (port)
        route: Route,  # noqa: ARG002  (port)
    ) -> RiskReport:
        """No signal."""
        return NO_SIGNAL

    def invalidate(self) -> None:
        """Nothing is kept."""

    def record_failure(
        self, reason: str, ip: str, network: Network, *, account: str = "", session_id: str = ""
    ) -> None:
        """Nothing is recorded."""


@dataclass(frozen=True, slots=True)
class Risks:
    """What stage 7 needs, and what runs beside it."""

    networks: GeoNetworks
    assessor: RiskAssessor

    def background(self) -> list[Coroutine[Any, Any, None]]:
        """The loop that writes what failed."""
        return [_flushes(self.assessor)] if isinstance(self.assessor, Assessor) else []


def risks_of(config: Config, documents: Documents, changes: Changes) -> Risks:
    """The risk parts of a configuration. Raises ValueError for settings that no signal takes."""
    networks = networks_of(config)
    if config.risk is None:
        return Risks(networks, NoSignal())
    return Risks(networks, assessor_of(config, documents, changes))


def networks_of(config: Config) -> GeoNetworks:
    """What is known of addresses: the configured databases, else the one that is installed with the gateway."""
    settings = config.networks
    default = default_database()
    databases = settings.databases if settings.databases is not None else (default,) if default is not None else ()
    return GeoNetworks(databases, company=settings.company, vpn=settings.vpn, report=_reported)


def assessor_of(config: Config, documents: Documents, changes: Changes | None = None) -> Assessor:
    """The assessor. Raises ValueError where no risk is configured, or for settings that no signal takes."""
    risk = config.risk
    if risk is None:
        raise ValueError("no risk is configured")

    async def external_level(identity: Identity) -> str:
        key = subject_key(identity.issuer, identity.subject)
        document = await documents.get(RISKS, key, time.time())
        levels = {} if document is None else json.loads(document.value)
        current = [level for level in levels.values() if isinstance(level, dict) and level["until"] > time.time()]
        return max((str(level["level"]) for level in current), key=LEVELS.index, default="")

    return Assessor(
        RiskMemory(documents, time.time, remember_days=risk.remember_days),
        builtin(risk.signals),
        logins=LoginPatternModel(),
        thresholds=Thresholds(risk.low, risk.medium, risk.high),
        reuse_s=risk.reuse_s,
        external_level=external_level,
        on_level_raised=None if changes is None else lambda session_id: changes.announce("session", session_id),
    )


async def _flushes(assessor: Assessor) -> None:
    while True:
        await asyncio.sleep(_FLUSH_S)
        with contextlib.suppress(StoreDown):
            await assessor.flush()


def _reported(path: Path, state: str) -> None:
    logger = log.get("risk")
    (logger.info if state == "in use" else logger.warning)("network_data", file=str(path), state=state)
