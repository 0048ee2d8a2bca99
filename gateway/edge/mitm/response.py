"""Responses as they go to the client, in the client's framing (RFC 9112 section 6, RFC 9113 section 8.1).

The framing follows the body that is sent: an upstream's Content-Length holds only where no transform stands between.
"""

from __future__ import annotations

from dataclasses import dataclass

from mitmproxy import http
from mitmproxy.net.http.status_codes import RESPONSES

from gateway.core.reasons import Refusal
from gateway.edge.mitm import messages
from gateway.edge.mitm.exchange import Exchange
from gateway.edge.mitm.http_layer import DISCARD_BYTES, is_bodyless
from gateway.obligations.body import OpenBody
from gateway.pipeline.headers import Forward
from gateway.pipeline.response import enforce_response, enforce_trailers
from gateway.replies.replies import Reply

SWITCHING_PROTOCOLS = 101
_NO_CONTENT = 204


@dataclass(frozen=True, slots=True)
class OutgoingResponse:
    """A response's head for the client, and the transform of its body, None for none.

    In mode "whole" the head lacks its framing until `frame_whole`.
    """

    head: http.Response
    body: OpenBody | None


def outgoing_response(
    forward: Forward, response: http.Response, *, ended: bool, http2: bool, draining: bool
) -> OutgoingResponse | Refusal:
    """An upstream's response for the client, which speaks `http2` or not and may have to leave (`draining`).

    `ended`: no body follows this head.
    """
    headers = [(name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in response.headers.fields]
    status = response.status_code
    if status == _NO_CONTENT or any(name == "transfer-encoding" for name, _ in headers):
        headers = [item for item in headers if item[0] != "content-length"]
    may_have_body = not is_bodyless(forward.facts.method, status)
    enforced = enforce_response(forward, status, headers, has_body=may_have_body and not ended)
    if isinstance(enforced, Refusal):
        return enforced
    fields = _encoded(enforced.headers)
    if not http2:
        is_whole = enforced.body is not None and enforced.body.mode == "whole"
        if status == SWITCHING_PROTOCOLS:
            fields += [(b"connection", b"Upgrade"), (b"upgrade", b"websocket")]
        elif may_have_body and not is_whole and not any(name == b"content-length" for name, _ in fields):
            fields.append((b"content-length", b"0") if ended else (b"transfer-encoding", b"chunked"))
        if draining and status != SWITCHING_PROTOCOLS:
            fields.append((b"connection", b"close"))
    response.data.headers = messages.headers(fields)
    response.data.http_version = _version(http2=http2)
    return OutgoingResponse(response, enforced.body)


def frame_whole(response: http.Response, length: int) -> None:
    """Frame a response whose whole body is there."""
    response.data.headers = messages.headers([*response.data.headers.fields, (b"content-length", b"%d" % length)])


def outgoing_trailers(forward: Forward, trailers: http.Headers) -> http.Headers:
    """An upstream's trailers for the client."""
    fields = [(name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in trailers.fields]
    return messages.headers(_encoded(enforce_trailers(forward, fields)))


def own_response(reply: Reply, exchange: Exchange, *, http2: bool, draining: bool) -> tuple[http.Response, bytes]:
    """A reply of the gateway for the client; a large unread request body ends an HTTP/1.1 connection."""
    headers = [(name.encode("ascii"), value.encode("latin-1")) for name, value in reply.headers]
    headers.append((b"content-length", b"%d" % len(reply.body)))
    length = exchange.request.headers.get("content-length", "")
    unread = exchange.has_body and not (length.isdecimal() and int(length) <= DISCARD_BYTES)
    # What comes next on a connection that carried an ambiguous request is not to be believed.
    flawed = reply.reason in {"malformed_request", "headers_too_large"}
    if not http2 and (unread or flawed or draining):
        headers.append((b"connection", b"close"))
    phrase = RESPONSES.get(reply.status, "").encode("ascii")
    response = messages.response(reply.status, headers, reason=phrase, version=_version(http2=http2))
    return response, b"" if exchange.request.method == "HEAD" else reply.body


def _encoded(headers: list[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]


def _version(*, http2: bool) -> bytes:
    return b"HTTP/2.0" if http2 else b"HTTP/1.1"
