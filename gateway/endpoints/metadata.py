"""Published documents: JWK Set (RFC 7517), CRL (RFC 2585), device CA, protected resources (RFC 9728), health."""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from gateway.core import paths
from gateway.endpoints.request import EndpointRequest
from gateway.endpoints.router import Endpoint
from gateway.replies.documents import file_reply, json_reply
from gateway.replies.replies import Reply

_PEM_CRL = re.compile(rb"-----BEGIN X509 CRL-----\s+([A-Za-z0-9+/=\s]+?)-----END X509 CRL-----")
_CACHED = "public, max-age=300"


@dataclass(frozen=True, slots=True, kw_only=True)
class MetadataEndpoints:
    """Hands out what everybody may know.

    `jwks`: the JSON Web Key Set of the assertion keys; `crl`: the CRL file (PEM or DER) and `ca`: the device CA (PEM),
    None where there is none; `protected_resource(host, path)`: the metadata of RFC 9728, None for no such resource.
    """

    jwks: Callable[[], Mapping[str, Any]]
    crl: Callable[[], bytes | None]
    ca: Callable[[], bytes | None]
    protected_resource: Callable[[str, str], Mapping[str, Any] | None]

    def endpoints(self) -> list[Endpoint]:
        """The endpoints, for the router."""
        return [
            Endpoint("GET", paths.JWKS, self.get_jwks),
            Endpoint("GET", paths.CRL, self.get_crl),
            Endpoint("GET", paths.DEVICE_CA, self.get_ca),
            Endpoint("GET", paths.HEALTH, self.get_health),
            Endpoint("GET", paths.PROTECTED_RESOURCE, self.get_protected_resource),
            Endpoint("GET", paths.PROTECTED_RESOURCE + "/", self.get_protected_resource, is_tree=True),
        ]

    async def get_jwks(self, request: EndpointRequest) -> Reply:
        """The keys that sign assertions."""
        del request
        return json_reply(self.jwks(), cache_control=_CACHED)

    async def get_crl(self, request: EndpointRequest) -> Reply:
        """The certificate revocation list, in DER whichever form the file has."""
        crl = self.crl()
        pem = None if crl is None else _PEM_CRL.search(crl)
        return _file(request, crl if pem is None else b64decode(pem[1]), "application/pkix-crl")

    async def get_ca(self, request: EndpointRequest) -> Reply:
        """The certificate of the device CA."""
        return _file(request, self.ca(), "application/x-pem-file")

    async def get_health(self, request: EndpointRequest) -> Reply:
        """That this process answers."""
        del request
        return json_reply({"status": "ok"})

    async def get_protected_resource(self, request: EndpointRequest) -> Reply:
        """The metadata of the asked host and path."""
        document = self.protected_resource(request.host, f"/{request.slug}")
        return request.problem("route_not_found") if document is None else json_reply(document)


def _file(request: EndpointRequest, content: bytes | None, media_type: str) -> Reply:
    if content is None:
        return request.problem("route_not_found")
    return file_reply(content, media_type, cache_control=_CACHED)
