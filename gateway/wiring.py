"""The only composition root: a configuration becomes a gateway. One generation is built whole, or not at all."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gateway import config as settings
from gateway.adapters.http import HttpxClient
from gateway.adapters.sealing import read_or_make_master_key
from gateway.adapters.sqlite import SqliteStore
from gateway.config import Config, Issuer, resolve_secret, routes_of
from gateway.core.decision import NO_SIGNAL, RiskReport
from gateway.core.ports import (
    DeviceVerifier,
    HttpClient,
    OwnEndpoints,
    PolicyEngine,
    Store,
    StoreDown,
)
from gateway.core.request import Peer, RequestFacts, RequestLimits
from gateway.core.routes import RouteTable
from gateway.core.subject import Device, Identity, Session
from gateway.identity.assertion import Asserter
from gateway.identity.challenges import bearer_challenge, resource_metadata
from gateway.identity.credentials import BasicCredential, ClientCredential, KeyCredential
from gateway.identity.device import Devices
from gateway.identity.enrolment import Enrolment
from gateway.identity.introspection import Introspector
from gateway.identity.issuers import IssuerDirectory
from gateway.identity.sessions import BearerSessions
from gateway.identity.tokens import TokenReader, TrustedIssuer
from gateway.identity.trust import DeviceTrust
from gateway.obligations import Obligations
from gateway.oversight.audit import FileRecorder
from gateway.oversight.integrity import Quarantine
from gateway.oversight.metrics import Metrics
from gateway.pipeline import Pipeline
from gateway.policy.bundle import load as load_bundle
from gateway.policy.bundle import service_data
from gateway.policy.engine import Decider
from gateway.policy.opa import OpaEngine
from gateway.policy.rego import EmbeddedEngine
from plugins.obligations import builtin

MASTER_KEY, STORE = "master.key", "gateway.sqlite"


class _NoSignal:
    """No signal is configured: every request has the risk of none."""

    async def assess(
        self,
        session: Session | None,  # noqa: ARG002  (port)
        identity: Identity | None,  # noqa: ARG002  (port)
        device: Device | None,  # noqa: ARG002  (port)
        facts: RequestFacts,  # noqa: ARG002  (port)
    ) -> RiskReport:
        """No signal."""
        return NO_SIGNAL


class _NoDevices:
    """No device CA is configured: nobody has a device."""

    async def verify(self, peer: Peer) -> None:  # noqa: ARG002  (port)
        """Nobody has a device."""
        return


def open_store(config: Config) -> SqliteStore:
    """The state store. Raises StoreDown, OSError or ValueError."""
    config.state.mkdir(mode=0o700, parents=True, exist_ok=True)
    return SqliteStore(config.state / STORE, read_or_make_master_key(config.state / MASTER_KEY))


@dataclass(frozen=True, slots=True)
class Shared:
    """What lives as long as the worker process: state, record, metrics, signing keys."""

    store: Store
    metrics: Metrics
    asserter: Asserter
    records: dict[Path, FileRecorder] = field(default_factory=dict)

    @classmethod
    async def open(cls, config: Config, metrics: Metrics) -> Shared:
        """Open everything, or raise."""
        store = open_store(config)
        asserter = Asserter(store, f"https://{config.host}")
        await asserter.refresh()
        return cls(store, metrics, asserter)

    def recorder(self, path: Path) -> FileRecorder:
        """The record in `path`, opened once and again after a rotation. Raises OSError."""
        if path in self.records:
            self.records[path].reopen()
        else:
            self.records[path] = FileRecorder(path)
        return self.records[path]

    async def close(self) -> None:
        """Close everything."""
        for record in self.records.values():
            record.close()
        await self.store.close()


class Gateway:
    """One generation: the pipeline and what it needs."""

    def __init__(
        self,
        config: Config,
        pipeline: Pipeline,
        endpoints: OwnEndpoints,
        engine: PolicyEngine,
        tokens: TokenReader,
        asserter: Asserter,
        clients: Sequence[HttpClient],
    ) -> None:
        self.config = config
        self.pipeline = pipeline
        self.endpoints = endpoints
        self.upstreams = {name: service.backend for name, service in config.services.items()}
        self.zero_log_upstreams = frozenset(
            name for name, service in config.services.items() if service.plane == "user"
        )
        self._engine = engine
        self._tokens = tokens
        self._asserter = asserter
        self._clients = clients

    @property
    def policy_version(self) -> str:
        """The version of the loaded policies."""
        return self._engine.version

    @classmethod
    async def build(cls, config: Config, shared: Shared) -> Gateway:
        """A whole gateway for `config`. Raises ConfigError, ValueError, OSError or StoreDown; nothing is left open."""
        async with contextlib.AsyncExitStack() as undo:
            engine = await policy_engine(config)
            undo.push_async_callback(engine.close)
            clients: list[HttpxClient] = []
            issuers: list[TrustedIssuer] = []
            for issuer in config.issuers:
                client = HttpxClient(ca=issuer.ca)
                undo.push_async_callback(client.close)
                clients.append(client)
                issuers.append(trusted_issuer(issuer, client))
            tokens = TokenReader(issuers, time.time)
            undo.push_async_callback(tokens.close)
            routes = RouteTable(routes_of(config))
            pipeline = Pipeline(
                routes=routes,
                quarantine=Quarantine(config.state),
                devices=device_verifier(config, shared.store),
                readers=(tokens,),
                binder=BearerSessions(shared.store),
                assessor=_NoSignal(),
                decider=Decider(engine, config.policy.deadline_ms / 1000),
                obligations=Obligations(builtin()),
                signer=shared.asserter,
                recorder=shared.recorder(config.record.file),
                counter=shared.metrics,
                challenge=_challenge,
                staff_hosts=frozenset(route.host for route in routes.routes if not route.zero_log) | {config.host},
                limits=RequestLimits(
                    header_count=config.limits.header_count, header_bytes=config.limits.header_kib << 10
                ),
                trusted_proxies=config.trusted_proxies,
            )
            gateway = cls(config, pipeline, _endpoints(config, shared), engine, tokens, shared.asserter, clients)
            undo.pop_all()
        shared.metrics.policy(engine.version)
        return gateway

    async def refresh(self) -> None:
        """On a timer: signing keys, and the CRL's age for the metrics."""
        with contextlib.suppress(StoreDown):
            await self._asserter.refresh()

    async def close(self) -> None:
        """Free what this generation holds."""
        await self._engine.close()
        await self._tokens.close()
        for client in self._clients:
            await client.close()


async def policy_engine(config: Config) -> PolicyEngine:
    """The configured engine with the policies loaded. Raises BundleError or EngineFailure."""
    policy = config.policy
    bundle = load_bundle(policy.path, service_data(config.services))
    if policy.engine == "embedded":
        return EmbeddedEngine(bundle, policy.deadline_ms / 1000)
    token = resolve_secret(policy.token) if policy.token else None
    engine = OpaEngine(
        bundle, policy.url or "", push=policy.push, token=token.reveal() if token else None, ca=policy.ca
    )
    try:
        await engine.start()
    except BaseException:
        await engine.close()
        raise
    return engine


def trusted_issuer(issuer: Issuer, client: HttpClient) -> TrustedIssuer:
    """An issuer with its keys and its introspection. Raises ConfigError for a secret that cannot be read."""
    directory = IssuerDirectory(issuer, client, time.time)
    introspector = None
    if issuer.introspection is not None:
        introspector = Introspector(issuer, directory, client, _credential(issuer.introspection), time.time)
    return TrustedIssuer(issuer, directory, introspector)


def _credential(introspection: settings.Introspection) -> ClientCredential:
    if introspection.method == "basic":
        if introspection.secret is None:
            raise ValueError("introspection by `basic` needs a secret")
        return BasicCredential(introspection.client_id, resolve_secret(introspection.secret).reveal().encode())
    if introspection.key is None:
        raise ValueError("introspection by `private_key_jwt` needs a key")
    return KeyCredential(introspection.client_id, resolve_secret(introspection.key).reveal().encode())


def device_verifier(config: Config, store: Store) -> DeviceVerifier:
    """The judge of device certificates; without a device CA nobody has a device."""
    devices = config.devices
    if devices.ca is None or devices.crl_file is None:
        return _NoDevices()
    return Devices(
        store,
        DeviceTrust(devices.ca.read_bytes()),
        devices.trust_domain,
        crl=devices.crl_file,
        crl_max_age_s=devices.crl_max_age_s,
    )


def _challenge(reasons: Sequence[str], facts: RequestFacts) -> str | None:
    return bearer_challenge(reasons[0], f"{facts.origin}/.well-known/oauth-protected-resource")


def _endpoints(config: Config, shared: Shared) -> OwnEndpoints:
    devices = config.devices
    issuers = [issuer.issuer for issuer in config.issuers]
    hosts = {service.host for service in config.services.values()}

    def protected_resource(host: str, path: str) -> Mapping[str, Any] | None:
        return (
            resource_metadata(f"{host}{path.rstrip('/')}", issuers)
            if host.partition(":")[0] in hosts and issuers
            else None
        )

    return OwnEndpoints(
        jwks=shared.asserter.jwks,
        crl=lambda: _read(devices.crl_file),
        ca=lambda: _read(devices.ca),
        protected_resource=protected_resource,
        enrolment=enrolment_of(config, shared.store),
    )


def enrolment_of(config: Config, store: Store) -> Enrolment | None:
    """Who signs device certificates; None where no issuing key is configured."""
    if config.devices.ca is None or config.devices.issuing_key is None:
        return None
    return Enrolment(store, config.devices)


def _read(path: Path | None) -> bytes | None:
    try:
        return path.read_bytes() if path is not None else None
    except OSError:
        return None


class Keeper:
    """What the supervisor looks after: the store answers, the CRL is made anew before it goes stale."""

    def __init__(self, config: Config, store: Store) -> None:
        self._store = store
        self._enrolment = enrolment_of(config, store)
        self.is_healthy = True

    @classmethod
    async def open(cls, config: Config) -> Keeper:
        """Open the store and make the CRL current, or raise."""
        keeper = cls(config, open_store(config))
        await keeper.refresh_crl()
        return keeper

    async def refresh_crl(self) -> None:
        """Make a new CRL when it is due, and look whether the store answers."""
        try:
            await self._store.ping()
            if self._enrolment is not None:
                await self._enrolment.refresh_crl()
            self.is_healthy = True
        except StoreDown:
            self.is_healthy = False

    async def close(self) -> None:
        """Close the store."""
        await self._store.close()


def watched_paths(config_path: Path, config: Config) -> tuple[Path, ...]:
    """The files and folders whose change is a reason to reload: configuration, policies, certificates."""
    found = [config_path, config.policy.path, *(item.certificate for item in config.tls)]
    found += [path for path in (config.devices.ca, *(issuer.ca for issuer in config.issuers)) if path is not None]
    return tuple(dict.fromkeys(path for path in found if os.path.exists(path)))  # noqa: PTH110  (a broken link is no path)
