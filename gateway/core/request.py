"""The values of a request: its raw head, its peer, and the canonical `RequestFacts` that every stage reads."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

IpNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network


# What a browser that does not say `Sec-Fetch-Mode` accepts on its way to a page: HTML, as good as anything else.
_HTML = re.compile(r"\btext/html\s*(?:,|\Z)", re.IGNORECASE)
_TOKEN_SCHEMES = frozenset({"bearer", "dpop"})
_SECRET = frozenset({"authorization", "cookie", "dpop", "proxy-authorization", "x-api-key", "x-csrf-token"})


@dataclass(frozen=True, slots=True)
class Peer:
    """The other end of a TLS connection. `chain`: DER, leaf first, verified in the handshake; empty without one.

    `cert_sha256` is the leaf's base64url SHA-256; `ja4` the JA4 fingerprint of the ClientHello, "" when unknown;
    `local_port` the port of ours that it connected to, 0 when unknown.
    """

    ip: str
    port: int
    chain: tuple[bytes, ...] = ()
    cert_sha256: str = ""
    sni: str | None = None
    alpn: str = ""
    ja4: str = ""
    local_port: int = 0


@dataclass(frozen=True, slots=True)
class RequestLimits:
    """Sizes a request's head may have."""

    header_count: int = 100
    header_bytes: int = 32_768
    target_bytes: int = 8_192
    query_fields: int = 500


@dataclass(frozen=True, slots=True)
class RawRequest:
    """A request's head as the edge read it. `authority` is `:authority` (HTTP/2) or b"" (HTTP/1.1).

    `ended`: the request has no body (an HTTP/2 stream that ends with its head).
    """

    method: bytes
    authority: bytes
    target: bytes
    headers: Sequence[tuple[bytes, bytes]]
    version: str  # "1.1" | "2"
    ended: bool = False


@dataclass(frozen=True, slots=True)
class RequestFacts:
    """A canonical request. `headers` have lower-case names and are end-to-end only; `segments` are decoded.

    Of a segment or a field of the query, bytes that are no UTF-8 stay escaped (`caf%E9`), and so does a slash (`%2F`).

    `asserted` are headers by which a client speaks as a proxy would (`header_families`): neither policy nor, by
    default, the service gets them.

    `protocol` is "http/1.1", "h2", "websocket" or "grpc"; `content_length` is None for a body of unknown length.
    """

    method: str
    host: str
    path: str
    segments: tuple[str, ...]
    query: str
    query_fields: tuple[tuple[str, str], ...]
    headers: tuple[tuple[str, str], ...]
    protocol: str
    content_length: int | None
    peer: Peer
    client_ip: str
    authority: str = ""  # host, and :port where it is not 443
    asserted: tuple[tuple[str, str], ...] = ()

    @property
    def origin(self) -> str:
        """The origin the client asked for (RFC 6454)."""
        return f"https://{self.authority or self.host}"

    @property
    def brings_token(self) -> bool:
        """Whether an access token comes with it, of whomever: by the scheme Bearer or DPoP (RFC 6750, RFC 9449)."""
        return any(value.partition(" ")[0].lower() in _TOKEN_SCHEMES for value in self.header_values("authorization"))

    @property
    def has_parameters(self) -> bool:
        """Whether a segment has a `;`: some servers cut it off, with what follows, before they look at the path."""
        return ";" in self.path or "%3B" in self.path

    @property
    def has_encoded_slash(self) -> bool:
        """Whether a segment has an escaped slash, which some servers read as the end of it."""
        return "%2F" in self.path

    @property
    def target(self) -> str:
        """The request target in origin form, as it is forwarded."""
        return f"{self.path}?{self.query}" if self.query else self.path

    def header(self, name: str) -> str | None:
        """The value of the header `name` (lower case), None without one; of several the first."""
        for key, value in self.headers:
            if key == name:
                return value
        return None

    def header_values(self, name: str) -> list[str]:
        """Every value of the header `name` (lower case)."""
        return [value for key, value in self.headers if key == name]

    @property
    def wants_page(self) -> bool:
        """Whether a person's browser asks for a page: only then is a redirect or an HTML answer right."""
        mode = self.header("sec-fetch-mode")
        if mode is not None or self.protocol in {"websocket", "grpc"} or self.header("x-requested-with") is not None:
            return mode == "navigate" and self.protocol != "websocket"
        return self.method in {"GET", "HEAD"} and _HTML.search(self.header("accept") or "") is not None

    def document(self) -> dict[str, Any]:
        """The request as policy sees it: no credential, no body."""
        headers: dict[str, str] = {}
        for name, value in self.headers:
            if name not in _SECRET:
                headers[name] = f"{headers[name]}, {value}" if name in headers else value
        query: dict[str, list[str]] = {}
        for name, value in self.query_fields:
            query.setdefault(name, []).append(value)
        return {
            "method": self.method,
            "host": self.host,
            "path": list(self.segments),
            "query": query,
            "headers": headers,
            "protocol": self.protocol,
        }
