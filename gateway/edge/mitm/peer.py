"""Peer: what a TLS handshake has proven of the client (RFC 8446 section 4.4), and the request head that it sends."""

from __future__ import annotations

import base64
import hashlib

from cryptography.hazmat.primitives.serialization import Encoding
from mitmproxy.connection import Client

from gateway.core.request import Peer, RawRequest
from gateway.edge.mitm.exchange import Exchange


def peer_of(client: Client, ip: str, ja4: str) -> Peer:
    """The peer of a connection whose handshake is over."""
    chain = tuple(certificate.to_cryptography().public_bytes(Encoding.DER) for certificate in client.certificate_list)
    digest = hashlib.sha256(chain[0]).digest() if chain else b""
    return Peer(
        ip=ip,
        port=client.peername[1],
        chain=chain,
        cert_sha256=base64.urlsafe_b64encode(digest).rstrip(b"=").decode("ascii"),
        sni=client.sni,
        alpn=(client.alpn or b"").decode("ascii"),
        ja4=ja4,
        local_port=client.sockname[1],
    )


def raw_request(exchange: Exchange) -> RawRequest:
    """The head of a request as it was read, nothing judged."""
    request = exchange.request
    return RawRequest(
        method=request.data.method,
        authority=request.data.authority,
        target=request.data.path,
        headers=request.data.headers.fields,
        version="2" if request.is_http2 else "1.1",
        ended=not exchange.has_body,
    )
