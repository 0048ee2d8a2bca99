"""The response half of an exchange: enforced at its head, its body as it comes, transformed, or as a whole.

Law: a response that cannot be enforced is a denial before its head has gone out, and a reset after that.
"""

from __future__ import annotations

import time

from mitmproxy.proxy import events
from mitmproxy.proxy.layers import http as mitm
from mitmproxy.proxy.layers.http import _events as http_events
from mitmproxy.websocket import WebSocketData

from gateway.core.reasons import Refusal
from gateway.edge.mitm.commands import Interrupt
from gateway.edge.mitm.ports import Commands, StreamPort
from gateway.edge.mitm.response import SWITCHING_PROTOCOLS, frame_whole, outgoing_response, outgoing_trailers
from gateway.obligations.body import OpenBody
from gateway.pipeline.headers import Forward


class ResponseHalf:
    """What becomes of an upstream's response. `wait_for_head`, `stream_body` and `collect_body` are states."""

    __slots__ = ("_stream", "_transform")

    def __init__(self, stream: StreamPort) -> None:
        self._stream = stream
        self._transform: OpenBody | None = None

    # ---- states ----

    def wait_for_head(self, event: http_events.ResponseHeaders) -> Commands:
        """Stage 12: enforce what policy demands of the response before its first byte goes out."""
        stream = self._stream
        exchange, verdict = stream.exchange, stream.exchange.verdict
        if not isinstance(verdict, Forward):
            raise TypeError("a response without a verdict")
        exchange.waiting_since = None
        exchange.progress_at = time.monotonic()
        status = event.response.status_code
        switching = status == SWITCHING_PROTOCOLS
        # No extension is ever offered, so none may be agreed to (RFC 6455 section 4.1): deflate would be a bomb.
        if switching and (
            verdict.facts.protocol != "websocket" or "sec-websocket-extensions" in event.response.headers
        ):
            yield from self._refuse(Refusal("upstream_broken"))
            return
        outgoing = outgoing_response(
            verdict, event.response, ended=event.end_stream, http2=stream.is_http2, draining=stream.edge.draining
        )
        if isinstance(outgoing, Refusal):
            yield from self._refuse(outgoing)
            return
        stream.flow.response, self._transform = outgoing.head, outgoing.body
        if outgoing.body is not None and outgoing.body.mode == "whole":
            stream.server_state = self.collect_body
            return
        exchange.status = status
        exchange.is_feed = outgoing.head.headers.get("content-type", "").startswith("text/event-stream")
        if switching:
            stream.flow.websocket = WebSocketData()
        stream.server_state = self.stream_body
        ended = event.end_stream and not switching
        yield mitm.SendHttp(http_events.ResponseHeaders(stream.stream_id, outgoing.head, ended), stream.context.client)

    def stream_body(self, event: events.Event) -> Commands:
        """Pass the response on as it comes."""
        stream, transform = self._stream, self._transform
        if isinstance(event, http_events.ResponseData):
            if not stream.exchange.is_feed:
                stream.exchange.used_at = time.monotonic()
            yield from self._send(event.data if transform is None else transform.feed(event.data))
        elif isinstance(event, http_events.ResponseTrailers):
            yield from self._finish_body()
            if not stream.exchange.over:
                yield from self._send_trailers(event)
        elif isinstance(event, http_events.ResponseEndOfMessage):
            yield from self._finish_body()
            if not stream.exchange.over:
                yield from self._finish()

    def collect_body(self, event: events.Event) -> Commands:
        """Hold the response until its body was transformed as a whole; trailers are dropped."""
        stream, transform = self._stream, self._transform
        response = stream.flow.response
        if transform is None or response is None:
            raise TypeError("a body without its transform")
        if isinstance(event, http_events.ResponseData):
            fits = stream.edge.buffer(stream.exchange, len(event.data))
            outcome = transform.feed(event.data) if fits else Refusal("overloaded")
            if isinstance(outcome, Refusal):
                yield from self._refuse(outcome)
        elif isinstance(event, http_events.ResponseEndOfMessage):
            outcome = transform.finish()
            stream.edge.unbuffer(stream.exchange)
            if isinstance(outcome, Refusal):
                yield from self._refuse(outcome)
                return
            frame_whole(response, len(outcome))
            stream.exchange.status = response.status_code
            yield mitm.SendHttp(
                http_events.ResponseHeaders(stream.stream_id, response, not outcome), stream.context.client
            )
            yield from self._send(outcome)
            yield from self._finish()

    # ---- what goes out ----

    def _send(self, outcome: bytes | Refusal) -> Commands:
        """Send a piece of the body. A refusal resets the response: the client takes no part of it for the whole."""
        stream = self._stream
        if isinstance(outcome, Refusal):
            yield from stream.interrupt(Interrupt(stream.stream_id, outcome.reason))
        elif outcome:
            stream.exchange.sent += len(outcome)
            yield mitm.SendHttp(http_events.ResponseData(stream.stream_id, outcome), stream.context.client)

    def _finish_body(self) -> Commands:
        """Send what the transform has left, before trailers and the end."""
        transform, self._transform = self._transform, None
        if transform is not None:
            yield from self._send(transform.finish())

    def _send_trailers(self, event: http_events.ResponseTrailers) -> Commands:
        stream = self._stream
        if isinstance(verdict := stream.exchange.verdict, Forward):
            event.trailers = outgoing_trailers(verdict, event.trailers)
            if event.trailers:
                yield mitm.SendHttp(event, stream.context.client)

    def _finish(self) -> Commands:
        """The upstream has said everything; an early response ends an HTTP/2 stream, an HTTP/1.1 upload goes on."""
        stream = self._stream
        stream.server_state = stream.state_done
        if stream.client_state == stream.state_done:
            yield from stream.flow_done()
            return
        yield mitm.SendHttp(http_events.ResponseEndOfMessage(stream.stream_id), stream.context.client)
        if stream.is_http2:
            yield from stream.give_up_upstream()
            yield from stream.reset(0)
            yield from stream.drop()

    def _refuse(self, refusal: Refusal) -> Commands:
        """Answer in the place of a response of which nothing has gone out."""
        yield from self._stream.give_up_upstream()
        yield from self._stream.refuse(refusal.reason)
