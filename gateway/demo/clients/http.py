"""The demo's client: a device with its own key, and every way of speaking to the gateway that the tour needs.

Names are never looked up: every connection goes to 127.0.0.1, and TLS and HTTP ask for the real host name.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from websockets.sync.client import ClientConnection, connect

from gateway.core import paths
from gateway.demo.world import GATEWAY, TRUST_DOMAIN
from gateway.identity.devices.ca import common_name, issue_device, make_issuing, make_root, pem_of
from gateway.identity.devices.ca_files import key_pem, write_file

ADDRESS = "127.0.0.1"
_TIMEOUT_S = 10.0
_DAY_S = 86_400
_KEEP_S = 60.0
_READ_BYTES = 65_536


@dataclass(frozen=True, slots=True)
class DeviceFiles:
    """A device certificate with its chain, and its key, as files."""

    certificate: Path
    key: Path


def foreign_device(folder: Path, device_id: str) -> DeviceFiles:
    """A certificate for the same device, perfect but for the CA that signed it: nobody here knows it."""
    now = time.time()
    issuing = make_issuing(make_root("Foreign root CA", now), "Foreign device CA", "device", now)
    key = ec.generate_private_key(ec.SECP256R1())
    leaf = issue_device(issuing, key.public_key(), device_id, TRUST_DOMAIN, now=now, life_s=_DAY_S)
    return _written(folder, key, pem_of(leaf, issuing.certificate))


def _written(folder: Path, key: ec.EllipticCurvePrivateKey, chain: bytes) -> DeviceFiles:
    folder.mkdir(mode=0o700, exist_ok=True)
    files = DeviceFiles(folder / "device.pem", folder / "device.key")
    write_file(files.key, key_pem(key), 0o600)
    write_file(files.certificate, chain, 0o600)
    return files


def client_context(ca: Path, device: DeviceFiles | None = None) -> ssl.SSLContext:
    """A TLS context that trusts this CA alone and shows the device's certificate."""
    context = ssl.create_default_context(cafile=ca)
    if device is not None:
        context.load_cert_chain(device.certificate, device.key)
    return context


class Browser:
    """An HTTP client for one host of the gateway; it keeps its connection, as browsers do."""

    def __init__(
        self, port: int, host: str, ca: Path, device: DeviceFiles | None = None, *, http2: bool = True
    ) -> None:
        self._host = host
        self._client = httpx.Client(
            base_url=f"https://{ADDRESS}:{port}",
            headers={"host": f"{host}:{port}"},
            verify=client_context(ca, device),
            http2=http2,
            timeout=_TIMEOUT_S,
            trust_env=False,
            limits=httpx.Limits(max_connections=1, keepalive_expiry=_KEEP_S),
        )

    def ask(
        self, path: str, token: str | None = None, *, method: str = "GET", headers: Any = None, **body: Any
    ) -> httpx.Response:
        """One request; `body` as httpx takes it (`content`, `json`). Raises httpx.HTTPError."""
        return self._client.send(self._request(method, path, token, headers, body))

    def arrivals(self, path: str, token: str | None) -> tuple[httpx.Response, list[tuple[float, bytes]]]:
        """A streamed answer: each piece with the seconds after the request at which it came."""
        started = time.monotonic()
        response = self._client.send(self._request("GET", path, token, None, {}), stream=True)
        try:
            pieces = [(time.monotonic() - started, piece) for piece in response.iter_raw()]
        finally:
            response.close()
        return response, pieces

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def _request(
        self, method: str, path: str, token: str | None, headers: Any, body: Mapping[str, Any]
    ) -> httpx.Request:
        request = self._client.build_request(
            method, path, headers=headers, extensions={"sni_hostname": self._host}, **body
        )
        if token is not None:
            request.headers["authorization"] = f"Bearer {token}"
        return request


def connection_of(response: httpx.Response) -> object:
    """What tells one TCP connection of ours from another."""
    return response.extensions["network_stream"].get_extra_info("client_addr")


def enrol(port: int, ca: Path, token: str, folder: Path) -> tuple[httpx.Response, DeviceFiles | None]:
    """Make a key here and have the gateway certify it; the gateway's answer and, after a yes, the device's files."""
    key = ec.generate_private_key(ec.SECP256R1())
    request = x509.CertificateSigningRequestBuilder().subject_name(common_name("device")).sign(key, hashes.SHA256())
    csr = request.public_bytes(serialization.Encoding.PEM).decode("ascii")
    browser = Browser(port, GATEWAY, ca)
    try:
        answer = browser.ask(paths.ENROL, method="POST", json={"token": token, "csr": csr})
    finally:
        browser.close()
    if not answer.is_success:
        return answer, None
    document = answer.json()
    return answer, _written(folder, key, (document["certificate"] + document["chain"]).encode("ascii"))


def raw(port: int, host: str, context: ssl.SSLContext, request: bytes) -> bytes:
    """Exactly these bytes over TLS, and whatever comes back until the other side closes. Raises OSError."""
    with (
        socket.create_connection((ADDRESS, port), timeout=_TIMEOUT_S) as plain,
        context.wrap_socket(plain, server_hostname=host) as secured,
    ):
        secured.sendall(request)
        parts: list[bytes] = []
        while piece := secured.recv(_READ_BYTES):
            parts.append(piece)
        return b"".join(parts)


@contextlib.contextmanager
def websocket(
    port: int, host: str, context: ssl.SSLContext, headers: Mapping[str, str], address: str = ""
) -> Iterator[ClientConnection]:
    """An open WebSocket of the echo service, from `address`, if any. Raises OSError or WebSocketException."""
    with (
        socket.create_connection((ADDRESS, port), timeout=_TIMEOUT_S, source_address=(address, 0)) as plain,
        connect(
            f"wss://{host}:{port}/ws",
            sock=plain,
            ssl=context,
            server_hostname=host,
            additional_headers=headers,
            open_timeout=_TIMEOUT_S,
            close_timeout=2,
            proxy=None,
        ) as opened,
    ):
        yield opened


def echoed(opened: ClientConnection, messages: Sequence[str | bytes]) -> list[str | bytes]:
    """What comes back for each message."""
    answers: list[str | bytes] = []
    for message in messages:
        opened.send(message)
        answers.append(opened.recv(timeout=_TIMEOUT_S))
    return answers
