"""Generation: everything that one version of the configuration brings to life, built whole or not at all."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gateway.config import Config, resolve_secret, routes_of
from gateway.core import paths
from gateway.core.decision import StepUp
from gateway.core.ports.pipeline import DeviceVerifier, PolicyEngine
from gateway.core.ports.stores import Store
from gateway.core.request import Peer, RequestFacts, RequestLimits
from gateway.core.routes import RouteTable
from gateway.edge.mitm.tls import ServerContexts
from gateway.edge.mitm.upstream_pool import UpstreamPool
from gateway.endpoints.router import Router
from gateway.identity.bearer.challenges import bearer_challenge
from gateway.identity.bearer.dpop import speaks_dpop
from gateway.identity.devices.certificates import DeviceTrust
from gateway.identity.devices.verifier import Devices
from gateway.node.quarantine import Quarantine
from gateway.obligations.plan import Obligations
from gateway.pipeline.conclusion import Conclusion
from gateway.pipeline.pipeline import Admission, Pipeline
from gateway.pipeline.stages import StagePorts
from gateway.policy.bundle.loader import load as load_bundle
from gateway.policy.bundle.loader import service_data
from gateway.policy.decider import Decider, judged_headers
from gateway.policy.engines.embedded import EmbeddedEngine
from gateway.policy.engines.server import OpaEngine
from gateway.wiring.endpoints import branding_of, router_of
from gateway.wiring.identity import People, people_of
from gateway.wiring.resources import ProcessResources
from gateway.wiring.risk import risks_of
from gateway.wiring.ssf import Signals, signals_of, transmitter_of
from plugins.obligations import builtin


class _NoDevices:
    """No device CA is configured: nobody has a device."""

    async def verify(self, peer: Peer) -> None:  # noqa: ARG002  (port)
        """Nobody has a device."""
        return


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """Everything that one version of the configuration brings to life; swapped as a whole.

    `upstreams`: the pool of each service, by name. `people` and `signals` stand behind pipeline and endpoints.
    """

    config: Config
    pipeline: Pipeline
    endpoints: Router
    contexts: ServerContexts
    upstreams: Mapping[str, UpstreamPool]
    zero_log_upstreams: frozenset[str]
    people: People
    signals: Signals
    _loops: Sequence[Callable[[], Sequence[Coroutine[Any, Any, None]]]] = field(repr=False)
    _resources: contextlib.AsyncExitStack = field(repr=False)

    @classmethod
    async def build(cls, config: Config, shared: ProcessResources) -> Generation:
        """A generation for `config`. Raises ConfigError, ValueError, OSError or StoreDown; nothing is left open."""
        async with contextlib.AsyncExitStack() as undo:
            engine = await policy_engine(config)
            undo.push_async_callback(engine.close)
            transmitter = transmitter_of(config, shared, undo)
            people = await people_of(config, shared, transmitter.tell, undo)
            signals = signals_of(config, shared, people.logins, transmitter, undo)
            routes = RouteTable(routes_of(config))
            risks = risks_of(config, shared.documents, shared.store)
            branding = branding_of(config)
            ports = StagePorts(
                routes=routes,
                quarantine=Quarantine(config.state),
                devices=device_verifier(config, shared.store),
                readers=people.readers,
                binder=people.binder,
                networks=risks.networks,
                assessor=risks.assessor,
                decider=Decider(engine, config.policy.deadline_ms / 1000),
                obligations=Obligations(builtin()),
                signer=shared.asserter,
                reactions=people.reactions,
                response_fields=people.dpop.answer_headers,
            )
            conclusion = Conclusion(
                ports=ports,
                recorder=shared.recorder(config.record.file),
                metrics=shared.metrics,
                challenge=_challenge,
                staff_hosts=frozenset(route.host for route in routes.routes if not route.zero_log) | {config.host},
                is_interactive=people.sign_ins is not None,
                branding=branding,
            )
            pipeline = Pipeline(
                ports=ports,
                conclusion=conclusion,
                admission=_admission(config, judged_headers(engine.reads)),
                starter=people.sign_ins.login if people.sign_ins is not None else None,
            )
            generation = cls(
                config=config,
                pipeline=pipeline,
                endpoints=router_of(config, shared, pipeline, people, signals),
                contexts=ServerContexts([(item.certificate, item.key) for item in config.tls], config.devices.ca),
                upstreams={name: UpstreamPool(name, service.backend) for name, service in config.services.items()},
                zero_log_upstreams=frozenset(
                    name for name, service in config.services.items() if service.plane == "user"
                ),
                people=people,
                signals=signals,
                _loops=(people.background, signals.background, risks.background),
                _resources=undo.pop_all(),
            )
        shared.metrics.policy(engine.version)
        return generation

    @property
    def policy_version(self) -> str:
        """The version of the loaded policies."""
        return self.pipeline.ports.decider.version

    def background(self) -> Sequence[Coroutine[Any, Any, None]]:
        """What has to run, for ever, as long as this generation serves."""
        return [loop for loops in self._loops for loop in loops()]

    async def close(self) -> None:
        """Free what this generation holds."""
        await self._resources.aclose()


async def policy_engine(config: Config) -> PolicyEngine:
    """The configured engine with the policies loaded. Raises BundleError or EngineFailure."""
    policy = config.policy
    # Beside the loop: the old policies serve on meanwhile.
    bundle = await asyncio.to_thread(lambda: load_bundle(policy.path, service_data(config.services), strict=True))
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


def device_verifier(config: Config, store: Store) -> DeviceVerifier:
    """The verifier of device certificates; without a device CA nobody has a device."""
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


def _admission(config: Config, headers: frozenset[str] | None) -> Admission:
    """What request heads are admitted by; `headers` are those that the policies can read."""
    return Admission(
        limits=RequestLimits(header_count=config.limits.header_count, header_bytes=config.limits.header_kib << 10),
        trusted_proxies=config.trusted_proxies,
        judged_headers=headers,
        own_ports=frozenset({config.listen.port, config.listen.public_port or config.listen.port}),
        encoded_slash=any(service.encoded_slash == "keep" for service in config.services.values()),
    )


def _challenge(reasons: Sequence[str], facts: RequestFacts, step_up: StepUp | None) -> str | None:
    return bearer_challenge(
        reasons[0],
        f"{facts.origin}{paths.PROTECTED_RESOURCE}",
        max_age=step_up.max_age_s if step_up is not None else None,
        acr_values=" ".join(step_up.methods) or None if step_up is not None else None,
        dpop=speaks_dpop(facts),
    )


def watched_paths(config_path: Path, config: Config) -> tuple[Path, ...]:
    """The files and folders whose change is a reason to reload: everything that is named but what is written here.

    Country data are looked after by themselves, and so is the CRL.
    """
    others = {config.record.file, config.state, config.devices.crl_file, *(config.networks.databases or ())}
    return tuple(dict.fromkeys(path for path in (config_path, *_paths(config)) if path not in others))


def _paths(value: object) -> Iterator[Path]:
    if isinstance(value, Path):
        yield value
    elif isinstance(value, Mapping):
        yield from _paths(tuple(value.values()))
    elif isinstance(value, tuple):
        for item in value:
            yield from _paths(item)
    elif hasattr(type(value), "model_fields"):
        yield from _paths(tuple(vars(value).values()))
