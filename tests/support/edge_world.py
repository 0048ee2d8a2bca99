"""A real edge over real TLS on loopback: the worker's own `EdgeHost`, the real pipeline, small ports around it."""

from __future__ import annotations

import asyncio
import datetime as dt
import socket
import threading
import time
import traceback
from collections.abc import Callable, Coroutine, Iterable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from ipaddress import ip_network
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any

import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from gateway.config import Limits
from gateway.config import Upstream as UpstreamConfig
from gateway.core.decision import NO_SIGNAL, Decision
from gateway.core.ports.pipeline import Network
from gateway.core.request import RequestLimits
from gateway.core.routes import Route, RouteTable
from gateway.core.subject import Device, Identity, Session
from gateway.edge.mitm.connection import ClientConnection
from gateway.edge.mitm.tls import ServerContexts
from gateway.edge.mitm.upstream_pool import UpstreamPool
from gateway.endpoints.metadata import MetadataEndpoints
from gateway.endpoints.router import Router
from gateway.obligations.plan import Obligations
from gateway.pipeline.pipeline import Pipeline
from gateway.server.edge_host import EdgeHost
from tests.support.pipelines import pipeline_of

HOST = "a.localhost"
OTHER_HOST = "b.localhost"
WILD_HOST = "x.wild.localhost"
DAY = dt.timedelta(days=1)


# ---- certificates ----


@dataclass(frozen=True)
class Pair:
    """A certificate and its key, and the files they are in."""

    certificate: x509.Certificate
    key: Any
    cert_file: Path
    key_file: Path


def make_pair(folder: Path, name: str, names: Iterable[str] = (), signer: Pair | None = None) -> Pair:
    """A certificate in `folder`; without a signer it is an authority of its own."""
    cert_file, key_file = folder / f"{name}.pem", folder / f"{name}.key"
    if key_file.exists():
        known = serialization.load_pem_private_key(key_file.read_bytes(), None)
        return Pair(x509.load_pem_x509_certificate(cert_file.read_bytes()), known, cert_file, key_file)
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = dt.datetime.now(dt.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(signer.certificate.subject if signer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - DAY)
        .not_valid_after(now + DAY)
        .add_extension(x509.BasicConstraints(ca=signer is None, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    issuer_key = signer.key if signer else key
    builder = builder.add_extension(
        x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False
    )
    if signer is None:
        usage = x509.KeyUsage(*(flag in {5, 6} for flag in range(9)))
        builder = builder.add_extension(usage, critical=True)
    if alternatives := [x509.DNSName(item) for item in names]:
        builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
    certificate = builder.sign(issuer_key, hashes.SHA256())
    cert_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return Pair(certificate, key, cert_file, key_file)


@dataclass(frozen=True)
class Certificates:
    """Everything that takes part in a handshake; what is in the folder already is taken as it is."""

    server_ca: Pair
    device_ca: Pair
    foreign_ca: Pair
    server: Pair
    other: Pair
    wild: Pair
    device: Pair
    foreign_device: Pair
    upstream_ca: Pair
    upstream: Pair
    upstream_client: Pair

    @classmethod
    def make(cls, folder: Path) -> Certificates:
        """Make them all in `folder`."""
        server_ca, device_ca, foreign_ca, upstream_ca = (
            make_pair(folder, name) for name in ("server-ca", "device-ca", "foreign-ca", "upstream-ca")
        )
        return cls(
            server_ca=server_ca,
            device_ca=device_ca,
            foreign_ca=foreign_ca,
            server=make_pair(folder, "server", [HOST], server_ca),
            other=make_pair(folder, "other", [OTHER_HOST], server_ca),
            wild=make_pair(folder, "wild", ["*.wild.localhost"], server_ca),
            device=make_pair(folder, "device", signer=device_ca),
            foreign_device=make_pair(folder, "foreign-device", signer=foreign_ca),
            upstream_ca=upstream_ca,
            upstream=make_pair(folder, "upstream", ["up.localhost", "localhost"], upstream_ca),
            upstream_client=make_pair(folder, "upstream-client", signer=upstream_ca),
        )


# ---- ports ----

IDENTITY = Identity("https://id.example", "u1", "jwt", "s1", 2e9, name="Ada", email="ada@example.com")


class Ports:
    """Every port of the pipeline, as friendly as can be; what a test wants otherwise it overrides."""

    version = "v0"
    reason_texts: Mapping[str, Any] = MappingProxyType({})

    def __init__(self) -> None:
        self.events: list[Mapping[str, Any]] = []
        self.decisions: list[tuple[str, str, str]] = []
        self.decision = Decision("allow", ("policy_ok",))
        self.delay_s = 0.0

    def check(self) -> None:
        return

    async def verify(self, peer: Any) -> Device | None:
        return Device("dev-1", peer.cert_sha256) if peer.chain else None

    async def read(self, facts: Any, route: Any) -> Identity | None:
        return IDENTITY if facts.header("authorization") == "Bearer good" else None

    async def again(self, identity: Identity, facts: Any, route: Any) -> Identity | None:
        return await self.read(facts, route)

    async def bind(self, *_: Any, before: Session | None = None, in_use: bool = True) -> Session:
        return Session("session-1", time.time())

    def lookup(self, ip: str) -> Network:
        """Nothing is known of any address."""
        return Network()

    def invalidate(self) -> None:
        """Nothing is kept."""

    def record_failure(self, *_: Any, **__: Any) -> None:
        """Nobody listens."""

    async def assess(self, *_: Any) -> Any:
        return NO_SIGNAL

    async def decide(self, document: Mapping[str, Any]) -> Decision:
        await asyncio.sleep(self.delay_s)
        return self.decision

    def sign(self, *_: Any) -> str:
        return "head.body.signature"

    def record(self, event: Mapping[str, Any]) -> None:
        self.events.append(event)

    def seen(self, service: str, effect: str, reason: str, seconds: float, *, zero_log: bool) -> None:
        self.decisions.append((service, effect, reason))

    def pipeline(self, routes: Iterable[Route], **changes: Any) -> Pipeline:
        """The real pipeline around these ports."""
        table = RouteTable(routes)
        settings: dict[str, Any] = {
            "routes": table,
            "quarantine": self,
            "devices": self,
            "readers": (self,),
            "binder": self,
            "networks": self,
            "assessor": self,
            "decider": self,
            "obligations": Obligations([]),
            "signer": self,
            "recorder": self,
            "metrics": SimpleNamespace(decision=self.seen),
            "challenge": lambda reasons, facts, step_up: None,
            "staff_hosts": frozenset(route.host for route in table.routes if not route.zero_log),
        }
        return pipeline_of(**settings | changes)


class Counts:
    """What the worker counts."""

    def __init__(self) -> None:
        self.handshakes: list[str] = []
        self.open = 0
        self.answers: list[tuple[str, int]] = []
        self.cuts: list[str] = []
        self.connection_cuts: list[str] = []

    def handshake(self, outcome: str) -> None:
        self.handshakes.append(outcome)

    def cut(self, reason: str) -> None:
        self.cuts.append(reason)

    def connections(self, change: int) -> None:
        self.open += change

    def buffered(self, change: int) -> None: ...

    def connection_cut(self, reason: str) -> None:
        self.connection_cuts.append(reason)

    def responded(self, service: str, status: int, seconds: float) -> None:
        self.answers.append((service, status))


class WatchedEdge(EdgeHost):
    """The worker's edge; what crashes in it is kept, so that a test fails."""

    def __init__(self, generation: Any, metrics: Any) -> None:
        self.crashes: list[str] = []
        super().__init__(generation, metrics)

    def crashed(self, error: BaseException) -> None:
        self.crashes.append("".join(traceback.format_exception(error)))


# ---- the world ----


@dataclass
class Running:
    """One edge that listens."""

    world: World
    port: int
    edge: WatchedEdge
    ports: Ports
    counts: Counts
    server: asyncio.Server
    sweeper: asyncio.Task[None]
    may_crash: bool = False

    async def stop(self) -> None:
        self.server.close()
        self.sweeper.cancel()
        for watcher in self.edge._watchers:
            watcher.cancel()
        for connection in list(self.edge.connections):
            connection.transport.abort()
        for upstream in self.edge.generation.upstreams.values():
            upstream.close()
        await asyncio.sleep(0)

    def until(self, condition: Callable[[], Any], seconds: float = 5.0) -> None:
        """Wait for something that happens on the other thread."""
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, "it did not happen in time"
            time.sleep(0.005)


@dataclass
class World:
    """An event loop in a thread of its own, and what runs on it."""

    folder: Path
    certificates: Certificates
    loop: asyncio.AbstractEventLoop = field(default_factory=uvloop.new_event_loop)
    running: list[Running] = field(default_factory=list)
    proxy_protocol: bool = False

    def __post_init__(self) -> None:
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()

    def run(self, work: Coroutine[Any, Any, Any], timeout_s: float = 30) -> Any:
        """Run a coroutine on the world's loop, from the test's thread."""
        future: Future[Any] = asyncio.run_coroutine_threadsafe(work, self.loop)
        return future.result(timeout_s)

    def close(self) -> None:
        async def finish() -> None:
            rest = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
            for task in rest:
                task.cancel()
            await asyncio.gather(*rest, return_exceptions=True)

        self.run(finish())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()

    def edge(
        self,
        urls: str | Iterable[str] | Mapping[str, UpstreamConfig],
        *,
        limits: Mapping[str, Any] | None = None,
        ports: Ports | None = None,
        routes: Iterable[Route] | None = None,
        route: Mapping[str, Any] | None = None,
        upstream: Mapping[str, Any] | None = None,
        pipeline: Mapping[str, Any] | None = None,
        trusted: Iterable[str] = (),
    ) -> Running:
        """Start an edge. By default one public service `svc` at HOST, in front of `urls`."""
        ports = ports or Ports()
        changes: dict[str, Any] = {"device_required": False} | dict(route or {})
        table = list(routes or [Route("svc", HOST, upstream="svc", **changes)])
        if isinstance(urls, Mapping):
            settings = dict(urls)
        else:
            addresses = [urls] if isinstance(urls, str) else list(urls)
            settings = {"svc": UpstreamConfig(urls=tuple(addresses), **upstream or {})}
        bounds = Limits(**limits or {})
        made = ports.pipeline(
            table,
            **{
                "limits": RequestLimits(header_count=bounds.header_count, header_bytes=bounds.header_kib << 10),
                "trusted_proxies": [ip_network(item) for item in trusted],
            }
            | dict(pipeline or {}),
        )
        running = self.run(self._start(made, bounds, settings, ports))
        self.running.append(running)
        return running

    async def _start(
        self, made: Pipeline, bounds: Limits, settings: Mapping[str, UpstreamConfig], ports: Ports
    ) -> Running:
        own, counts = self.certificates, Counts()
        pairs = [(pair.cert_file, pair.key_file) for pair in (own.server, own.other, own.wild)]
        metadata = MetadataEndpoints(
            jwks=lambda: {"keys": []}, crl=lambda: None, ca=lambda: b"CA", protected_resource=lambda host, path: None
        )
        listen = SimpleNamespace(drain_s=2.0, proxy_protocol=self.proxy_protocol)
        config = SimpleNamespace(limits=bounds, listen=listen, trusted_proxies=made.admission.trusted_proxies)
        generation = SimpleNamespace(
            pipeline=made,
            contexts=ServerContexts(pairs, own.device_ca.cert_file),
            upstreams={name: UpstreamPool(name, item) for name, item in settings.items()},
            endpoints=Router(metadata.endpoints()),
            config=config,
            zero_log_upstreams=frozenset(route.upstream for route in made.ports.routes.routes if route.zero_log),
            background=tuple,
        )
        edge = WatchedEdge(generation, counts)
        server = await self.loop.create_server(lambda: ClientConnection(edge), "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        return Running(self, port, edge, ports, counts, server, self.loop.create_task(edge.sweep()))

    def stop_edges(self) -> list[str]:
        """Stop every edge; answers what crashed in them."""
        crashes: list[str] = []
        for running in self.running:
            self.run(running.stop())
            if not running.may_crash:
                crashes += running.edge.crashes
        self.running.clear()
        return crashes


def free_port() -> int:
    """A port on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def quietly(action: Callable[[], object]) -> None:
    """Do something that may find the other side gone."""
    with suppress(OSError):
        action()
