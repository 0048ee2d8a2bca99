"""The configured issuers, each with its keys, its introspection and its APIs."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass

from gateway import config as settings
from gateway.adapters.http import HttpxClient
from gateway.config import Config, Issuer, resolve_secret
from gateway.core.ports.http import HttpClient
from gateway.identity.bearer.access_tokens import TrustedIssuer
from gateway.identity.oidc.client_auth import BasicCredential, ClientCredential, KeyCredential
from gateway.identity.oidc.discovery import IssuerDirectory
from gateway.identity.oidc.introspection import Introspector
from gateway.identity.zitadel.access import AccessToken, ApiToken, ServiceAccount
from gateway.identity.zitadel.api import Zitadel

_API_BYTES = 8 << 20


@dataclass(frozen=True, slots=True)
class KnownIssuer:
    """An issuer and what asks it; `api` are Zitadel's own APIs, None where they may not be asked."""

    trusted: TrustedIssuer
    http: HttpClient
    api: Zitadel | None

    @property
    def config(self) -> Issuer:
        """Its configuration."""
        return self.trusted.config


def known_issuers(config: Config, undo: contextlib.AsyncExitStack) -> list[KnownIssuer]:
    """Every configured issuer; `undo` closes their connections. Raises ConfigError or ValueError for a bad secret."""
    issuers = []
    for issuer in config.issuers:
        http = HttpxClient(ca=issuer.ca)
        undo.push_async_callback(http.close)
        directory = IssuerDirectory(issuer, http, time.time)
        introspector = None
        if issuer.introspection is not None:
            introspector = Introspector(issuer, directory, http, _credential(issuer.introspection), time.time)
        issuers.append(KnownIssuer(TrustedIssuer(issuer, directory, introspector), http, _api(issuer, undo)))
    return issuers


def _api(issuer: Issuer, undo: contextlib.AsyncExitStack) -> Zitadel | None:
    access = issuer.zitadel
    if access is None or (access.token is None and access.key is None):
        return None
    http = HttpxClient(ca=issuer.ca, limit_bytes=_API_BYTES)
    undo.push_async_callback(http.close)
    base = access.url or issuer.issuer
    credential: ApiToken
    if access.key is not None:
        key = resolve_secret(access.key).reveal().encode()
        credential = ServiceAccount(key, issuer.issuer, base, http, time.time)
    elif access.token is not None:
        credential = AccessToken(resolve_secret(access.token).reveal())
    return Zitadel(issuer.issuer, http, credential, base)


def _credential(introspection: settings.Introspection) -> ClientCredential:
    if introspection.method == "basic":
        if introspection.secret is None:
            raise ValueError("introspection by `basic` needs a secret")
        return BasicCredential(introspection.client_id, resolve_secret(introspection.secret).reveal().encode())
    if introspection.key is None:
        raise ValueError("introspection by `private_key_jwt` needs a key")
    return KeyCredential(introspection.client_id, resolve_secret(introspection.key).reveal().encode())
