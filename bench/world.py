"""What is measured: a PKI, an enrolled device, a token, the starter policies and configurations, in a temporary folder.

Everything is real and of this repository: the development provider signs the token, the gateway's own enrolment signs
the device's certificate. Services ask no issuer about a JWT (`introspect: never`), as on every busy one.
"""

from __future__ import annotations

import contextlib
import shutil
import ssl
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from bench.processes import BenchFailed, Process, answers, children, free_port
from gateway.config import load
from gateway.core.ports.pipeline import Enrolled
from gateway.demo.idp.accounts import PROJECT
from gateway.demo.idp.provider import serving
from gateway.identity.devices.ca import common_name
from gateway.identity.devices.ca_files import PkiFiles, found_pki, key_pem, write_file
from gateway.wiring import enrolment_of, open_state

HOST, GRPC_HOST = "app.localhost", "calls.localhost"
_ROOT = Path(__file__).resolve().parent.parent
_CONFIG = """\
version: 1
host: gateway.localhost
listen: {{address: 127.0.0.1, port: {port}, workers: {workers}, drain_s: 1}}
admin: {{port: {admin_port}}}
tls: [{{certificate: pki/server.pem, key: pki/server.key}}]
devices: {{ca: pki/device-ca.pem, issuing_key: pki/device-ca.key}}
issuers: [{{issuer: "{issuer}", profile: zitadel, audiences: ["{project}"]}}]
policy: {{path: policies}}
record: {{file: state/{name}.jsonl}}
limits: {{connections_per_client: 4096}}
services:
"""
_SERVICE = "  {name}: {{host: {host}, upstream: {upstream}, introspect: never, allow: {{roles: [{roles}]}}}}\n"


@dataclass(frozen=True, slots=True)
class Serving:
    """A proxy that answers: its port and the processes that do its work."""

    port: int
    pids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class World:
    """The files and the token. `device` is the device's certificate with its chain, `device_key` its key."""

    folder: Path
    pki: PkiFiles
    issuer: str
    token: str

    @property
    def device(self) -> Path:
        """The device's certificate, then its chain."""
        return self.folder / "device.pem"

    @property
    def device_key(self) -> Path:
        """The device's key."""
        return self.folder / "device.key"

    def write_config(
        self,
        name: str,
        upstream: int = 9,
        *,
        port: int = 0,
        admin_port: int = 0,
        workers: int = 1,
        services: Sequence[tuple[str, str, Sequence[str]]] = (("app", HOST, ("staff",)),),
    ) -> Path:
        """A configuration with these services (name, host, roles that may enter)."""
        path = self.folder / f"{name}.yaml"
        text = _CONFIG.format(
            name=name, port=port, admin_port=admin_port, workers=workers, issuer=self.issuer, project=PROJECT
        )
        url = f'"http://127.0.0.1:{upstream}"'
        text += "".join(
            _SERVICE.format(name=service, host=host, upstream=url, roles=", ".join(roles))
            for service, host, roles in services
        )
        path.write_text(text, encoding="utf-8")
        return path

    def client_context(self) -> ssl.SSLContext:
        """A client's TLS context that shows the device's certificate."""
        context = ssl.create_default_context(cafile=self.pki.root)
        context.load_cert_chain(self.device, self.device_key)
        return context

    @property
    def authorization(self) -> bytes:
        """The header field that carries the token."""
        return b"Authorization: Bearer %s\r\n" % self.token.encode("ascii")

    @property
    def certificate_with_key(self) -> Path:
        """The server's certificate and key in one file, as mitmproxy wants them."""
        return self.folder / "server-both.pem"

    def is_up(self, port: int) -> bool:
        """Whether a proxy answers 200 to the device with the token."""
        return answers(port, self.client_context(), HOST, self.authorization)

    # ---- processes ----

    @contextlib.contextmanager
    def upstream(self) -> Iterator[Serving]:
        """The service."""
        port = free_port()
        command = [sys.executable, "-m", "bench.upstream", str(port)]
        with Process(command, self.folder / "upstream.log", self.folder) as process:
            process.wait_until(lambda: answers(port, None, HOST))
            yield Serving(port, (process.pid,))

    @contextlib.contextmanager
    def gateway(self, upstream: Serving, workers: int = 1) -> Iterator[Serving]:
        """The real gateway, started as anybody starts it."""
        name, port, admin_port = f"gateway-{workers}", free_port(), free_port()
        config = self.write_config(name, upstream.port, port=port, admin_port=admin_port, workers=workers)
        with self.serving(config, name) as process:
            pids = tuple(children(process.pid))
            if len(pids) != workers:
                raise BenchFailed(f"{len(pids)} workers where {workers} should be")
            yield Serving(port, pids)

    @contextlib.contextmanager
    def serving(self, config: Path, name: str) -> Iterator[Process]:
        """A gateway's processes, ready."""
        read = load(config)
        with Process(
            [sys.executable, "-m", "gateway", "serve", "-c", str(config)], self.folder / f"{name}.log", self.folder
        ) as process:
            process.wait_until(lambda: _is_ready(read.admin.port) and self.is_up(read.listen.port))
            yield process

    @contextlib.contextmanager
    def mitmdump(self, upstream: Serving) -> Iterator[Serving]:
        """Stock mitmdump as a reverse proxy that asks for a client certificate."""
        port, folder = free_port(), self.folder / "mitmdump"
        command = [str(Path(sys.executable).with_name("mitmdump")), "-q"]
        command += ["--mode", f"reverse:http://127.0.0.1:{upstream.port}"]
        command += ["--listen-host", "127.0.0.1", "--listen-port", str(port)]
        command += ["--certs", f"*={self.certificate_with_key}", "--set", "request_client_cert=true"]
        command += ["--set", f"confdir={folder}"]
        with Process(command, self.folder / "mitmdump.log", self.folder) as process:
            process.wait_until(lambda: self.is_up(port))
            yield Serving(port, (process.pid,))

    @contextlib.contextmanager
    def slim(self, upstream: Serving) -> Iterator[Serving]:
        """A bare mitmproxy."""
        port, both = free_port(), str(self.certificate_with_key)
        command = [sys.executable, "-O", "-m", "bench.slim", str(port), str(upstream.port), both]
        with Process([*command, str(self.folder / "slim")], self.folder / "slim.log", self.folder) as process:
            process.wait_until(lambda: self.is_up(port))
            yield Serving(port, (process.pid,))


@contextlib.contextmanager
def made() -> Iterator[World]:
    """A world; the folder goes when the block ends."""
    with tempfile.TemporaryDirectory(prefix="gateway-bench-") as name, serving() as provider:
        folder = Path(name)
        pki = found_pki(folder / "pki", ["gateway.localhost", HOST, GRPC_HOST], now=time.time(), crl_life_s=86_400)
        ignored = shutil.ignore_patterns("cases", ".*", "OPA_VERSION", "*_test.rego")
        shutil.copytree(_ROOT / "policies", folder / "policies", ignore=ignored)
        # With the claims that the issuer adds where it is told to: the starter policies ask for a second factor.
        token = provider.access_token("alice", amr=["pwd", "otp", "mfa"], auth_time=int(time.time()))
        world = World(folder, pki, provider.issuer, token)
        write_file(world.certificate_with_key, pki.server_key.read_bytes() + pki.server.read_bytes(), 0o600)
        yield world


async def enrol(world: World, path: Path | None = None) -> None:
    """Enrol the device, in the state of a configuration where one is given; its files are in the world then."""
    config = load(path or world.write_config("enrolment"))
    store = (await open_state(config)).store
    try:
        enrolment = enrolment_of(config, store)
        if enrolment is None:
            raise BenchFailed("nobody can enrol here")
        _, token = await enrolment.create_device("bench", "alice", "people")
        key = ec.generate_private_key(ec.SECP256R1())
        wanted = x509.CertificateSigningRequestBuilder().subject_name(common_name("device"))
        csr = wanted.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode("ascii")
        answer = await enrolment.enrol(token, csr)
    finally:
        await store.close()
    if not isinstance(answer, Enrolled):
        raise BenchFailed(f"the device could not enrol: {answer}")
    write_file(world.device_key, key_pem(key), 0o600)
    write_file(world.device, (answer.certificate_pem + answer.chain_pem).encode("ascii"), 0o600)


def _is_ready(admin_port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{admin_port}/readyz", trust_env=False).is_success
    except httpx.TransportError:
        return False
