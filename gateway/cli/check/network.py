"""The part of `gateway check` that asks others: upstreams, issuers, the OPA server. Nothing is changed anywhere."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Awaitable, Iterable, Sequence
from urllib.parse import urlsplit

from gateway.adapters.http import HttpxClient
from gateway.cli.check.files import Finding, Place
from gateway.config import Config, ConfigError, Issuer, Service, Upstream, resolve_secret
from gateway.core.ports.http import Unreachable
from gateway.core.reasons import Refusal
from gateway.identity.oidc.discovery import IssuerDirectory

_TIMEOUT_S = 3.0
_PARALLEL = 32
_SUCCESS = 200


async def upstreams(config: Config) -> Sequence[Finding]:
    """Every address takes a connection, and its certificate verifies."""
    gate = asyncio.Semaphore(_PARALLEL)
    asked = [
        _address(gate, service, url, _url_place(name, service, number))
        for name, service in config.services.items()
        for number, url in enumerate(service.backend.urls)
    ]
    return await _found(asked)


def _url_place(name: str, service: Service, number: int) -> Place:
    place: Place = ("services", name, "upstream")
    return place if isinstance(service.upstream, str) else (*place, "urls", number)


async def _address(gate: asyncio.Semaphore, service: Service, url: str, place: Place) -> Finding | None:
    parts = urlsplit(url)
    try:
        context = _context(service.backend) if parts.scheme == "https" else None
        port = parts.port or (443 if context else 80)
        name = (service.backend.server_name or parts.hostname) if context else None
        async with gate, asyncio.timeout(_TIMEOUT_S):
            _, writer = await asyncio.open_connection(parts.hostname, port, ssl=context, server_hostname=name)
            writer.close()
            await writer.wait_closed()
    except ssl.SSLCertVerificationError as error:
        message = f"The certificate of {url} does not verify: {error.verify_message}."
        return Finding(place, message, "Name its CA under `upstream.ca`, or its name under `upstream.server_name`.")
    except TimeoutError:
        return Finding(place, f"{url} does not answer.", "Start the service, or correct the address.")
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or type(error).__name__
        return Finding(place, f"{url} cannot be reached: {why}.", "Start the service, or correct the address.")
    return None


def _context(upstream: Upstream) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(upstream.ca) if upstream.ca else None)
    if upstream.certificate is not None and upstream.key is not None:
        context.load_cert_chain(upstream.certificate, upstream.key)
    return context


async def issuers(config: Config) -> Sequence[Finding]:
    """Discovery names the issuer itself, and there are keys that may be used."""
    return await _found(_issuer(number, issuer) for number, issuer in enumerate(config.issuers))


async def _issuer(number: int, issuer: Issuer) -> Finding | None:
    place: Place = ("issuers", number, "issuer")
    fix = "Correct the issuer (exactly as in its tokens), its `ca`, or the network between here and there."
    try:
        client = HttpxClient(ca=issuer.ca, timeout_s=_TIMEOUT_S)
    except OSError as error:
        return Finding(place, f"Its CA cannot be used: {error.strerror or error}.", fix)
    directory = IssuerDirectory(issuer, client, time.time, timeout_s=_TIMEOUT_S)
    try:
        published = await directory.published()
    finally:
        await directory.close()
        await client.close()
    if isinstance(published, Refusal):
        return Finding(place, f"The issuer cannot be used: {published.detail}.", fix)
    if issuer.introspection is not None and published.introspection_endpoint is None:
        message = "The issuer does not name an introspection endpoint."
        return Finding(("issuers", number, "introspection"), message, "Remove `introspection`, or ask its operator.")
    return None


async def opa(config: Config) -> Sequence[Finding]:
    """The OPA server says that it is healthy."""
    policy = config.policy
    if policy.engine != "opa" or policy.url is None:
        return []
    place: Place = ("policy", "url")
    fix = "Start OPA, or correct `policy.url`, `policy.token` or `policy.ca`."
    try:
        token = resolve_secret(policy.token) if policy.token else None
        client = HttpxClient(ca=policy.ca, timeout_s=_TIMEOUT_S)
    except (ConfigError, OSError):
        return []  # told by the checks of secrets and certificates
    try:
        headers = {"authorization": f"Bearer {token.reveal()}"} if token else None
        answer = await client.get(policy.url.rstrip("/") + "/health", headers)
    except Unreachable as error:
        return [Finding(place, f"OPA cannot be reached: {error}.", fix)]
    finally:
        await client.close()
    return [] if answer.status == _SUCCESS else [Finding(place, f"OPA answers with status {answer.status}.", fix)]


async def _found(asked: Iterable[Awaitable[Finding | None]]) -> list[Finding]:
    return [finding for finding in await asyncio.gather(*asked) if finding is not None]
