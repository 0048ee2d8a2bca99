"""The request half of an exchange: sent on once it was judged, its body as it comes, transformed, or as a whole.

Law: the request that goes upstream is framed by the body that is sent. One that cannot be sent in full is aborted.
"""

from __future__ import annotations

import time

from mitmproxy.proxy import events
from mitmproxy.proxy.layers import http as mitm
from mitmproxy.proxy.layers.http import _events as http_events
from mitmproxy.proxy.layers.http._hooks import HttpRequestHook

from gateway.core.reasons import Refusal
from gateway.edge.mitm import messages
from gateway.edge.mitm.commands import Interrupt
from gateway.edge.mitm.http_layer import DialUpstream
from gateway.edge.mitm.ports import Commands, StreamPort
from gateway.edge.mitm.upstream_slots import NO_SLOT
from gateway.obligations.body import OpenBody
from gateway.pipeline.bodies import open_request_body, transform_whole, with_new_body
from gateway.pipeline.headers import Forward
from gateway.pipeline.verdicts import InteractionRequired
from gateway.replies.replies import Reply

LOCAL_BODY_BYTES = 1 << 16
ASK_BODY_BYTES = 1 << 20


class RequestHalf:
    """What becomes of a request and its body. `stream_body`, `collect_body` and `collect_own` are states."""

    __slots__ = ("_stream", "_transform")

    def __init__(self, stream: StreamPort) -> None:
        self._stream = stream
        self._transform: OpenBody | None = None

    def begin(self, verdict: Forward, *, ended: bool) -> Commands:
        """Send a judged request on; `ended`: it has no body."""
        stream = self._stream
        transform = None if ended else open_request_body(verdict)
        if transform is None:
            yield from self.forward(verdict, 0 if ended else verdict.facts.content_length, ended=ended)
        elif isinstance(transform, Refusal):
            yield from stream.refuse(transform.reason)
        elif transform.mode == "whole":
            self._transform = transform
            stream.client_state = self.collect_body
            yield from self._invite_body(verdict)
        else:
            self._transform = transform
            yield from self.forward(with_new_body(verdict, transform), None)

    def forward(
        self, verdict: Forward, body_length: int | None, *, ended: bool = False, fresh: bool = False
    ) -> Commands:
        """Stage 11: find a healthy address, send the head that was judged.

        `body_length` is that of the body that will be sent, None while it is unknown; `ended`: none follows.
        """
        stream = self._stream
        upstream = stream.edge.upstream(stream.exchange, verdict)
        identity = verdict.identity
        person = () if identity is None else (identity.issuer, identity.subject)
        for address in upstream.candidates():
            connection, error = yield DialUpstream(upstream, address, person, fresh=fresh)
            yield from stream.end_if_cut()
            if stream.exchange.over:
                return
            if error is None:
                break
            if error == NO_SLOT:
                yield from stream.refuse("overloaded")
                return
            upstream.failed(address)
        else:
            yield from stream.refuse("upstream_unreachable")
            return
        stream.context.server = stream.flow.server_conn = connection
        yield from self._invite_body(verdict)
        stream.flow.request = upstream.request(verdict, body_length=body_length)
        stream.client_state = self.stream_body
        stream.begin_response()
        stream.exchange.waiting_since = time.monotonic()
        yield mitm.SendHttp(http_events.RequestHeaders(stream.stream_id, stream.flow.request, ended), connection)

    def forward_whole(self, verdict: Forward, body: bytes, *, fresh: bool = False) -> Commands:
        """Forward a request whose whole body is there."""
        stream = self._stream
        yield from self.forward(verdict, len(body), ended=not body, fresh=fresh)
        if stream.exchange.over:
            return
        stream.client_state = stream.state_done
        if body:
            yield mitm.SendHttp(http_events.RequestData(stream.stream_id, body), stream.context.server)
        yield mitm.SendHttp(http_events.RequestEndOfMessage(stream.stream_id), stream.context.server)

    def _resume(self, verdict: Forward, body: bytes) -> Commands:
        """Forward a request that has waited, in place of the one that came."""
        transform = open_request_body(verdict) if body else None
        outcome: bytes | Refusal = body
        if transform is not None:
            outcome = transform if isinstance(transform, Refusal) else transform_whole(transform, body)
        if isinstance(outcome, Refusal):
            yield from self._stream.refuse(outcome.reason)
            return
        if isinstance(transform, OpenBody):
            verdict = with_new_body(verdict, transform)
        yield from self.forward_whole(verdict, outcome)

    def _invite_body(self, verdict: Forward) -> Commands:
        """100 Continue for a client that waits for it (RFC 9110 section 10.1.1)."""
        stream = self._stream
        if stream.exchange.has_body and verdict.facts.header("expect"):
            interim = messages.response(100, (), reason=b"Continue")
            yield mitm.SendHttp(http_events.ResponseHeaders(stream.stream_id, interim), stream.context.client)

    def _is_too_large(self, event: http_events.RequestData) -> bool:
        """Count what has arrived; whether it is over the route's limit."""
        exchange = self._stream.exchange
        exchange.received += len(event.data)
        exchange.progress_at = exchange.used_at = time.monotonic()
        verdict = exchange.verdict
        return isinstance(verdict, Forward) and exchange.received > verdict.route.body_limit_bytes

    # ---- states ----

    def stream_body(self, event: events.Event) -> Commands:
        """Pass the body on, up to the route's limit; request trailers were not judged and are dropped."""
        stream, transform = self._stream, self._transform
        if isinstance(event, http_events.RequestData):
            if self._is_too_large(event):
                yield from stream.interrupt(Interrupt(stream.stream_id, "body_too_large"))
            elif transform is None:
                yield mitm.SendHttp(event, stream.context.server)
            else:
                yield from self._send(transform.feed(event.data))
        elif isinstance(event, http_events.RequestEndOfMessage):
            if transform is not None:
                yield from self._send(transform.finish())
                if stream.exchange.over:
                    return
            stream.client_state = stream.state_done
            stream.exchange.has_body = False
            stream.exchange.waiting_since = time.monotonic()
            yield mitm.SendHttp(event, stream.context.server)
            if stream.server_state == stream.state_done:
                yield from stream.drop()

    def _send(self, outcome: bytes | Refusal) -> Commands:
        """Send what a transform gives. A refusal aborts the request: the upstream takes no part of it for the whole."""
        stream = self._stream
        if isinstance(outcome, Refusal):
            yield from stream.interrupt(Interrupt(stream.stream_id, outcome.reason))
        elif outcome:
            yield mitm.SendHttp(http_events.RequestData(stream.stream_id, outcome), stream.context.server)

    def collect_body(self, event: events.Event) -> Commands:
        """Gather a body that is transformed as a whole; the upstream hears nothing before."""
        stream, transform = self._stream, self._transform
        verdict = stream.exchange.verdict
        if transform is None or not isinstance(verdict, Forward):
            raise TypeError("a body without its transform")
        outcome: bytes | Refusal = b""
        if isinstance(event, http_events.RequestData):
            if self._is_too_large(event):
                outcome = Refusal("body_too_large")
            elif not stream.edge.buffer(stream.exchange, len(event.data)):
                outcome = Refusal("overloaded")
            else:
                outcome = transform.feed(event.data)
        elif isinstance(event, http_events.RequestEndOfMessage):
            stream.exchange.has_body = False
            stream.client_state = stream.state_errored
            outcome = transform.finish()
            stream.edge.unbuffer(stream.exchange)
            if isinstance(outcome, bytes):
                yield from self.forward_whole(with_new_body(verdict, transform), outcome)
        if isinstance(outcome, Refusal):
            yield from stream.refuse(outcome.reason)

    def collect_own(self, event: events.Event) -> Commands:
        """Gather the small body of a request that the gateway answers itself, or that waits for its sender."""
        stream = self._stream
        exchange = stream.exchange
        if isinstance(event, http_events.RequestData):
            exchange.body += event.data
            asked = exchange.verdict if isinstance(exchange.verdict, InteractionRequired) else None
            if len(exchange.body) > (LOCAL_BODY_BYTES if asked is None else ASK_BODY_BYTES):
                yield from stream.refuse("body_too_large") if asked is None else stream.reply(asked.reply)
            elif not stream.edge.buffer(exchange, len(event.data)):
                yield from stream.refuse("overloaded")
        elif isinstance(event, http_events.RequestEndOfMessage):
            exchange.has_body = False
            stream.client_state = stream.state_errored
            yield HttpRequestHook(stream.flow)  # type: ignore[arg-type]
            yield from stream.end_if_cut()
            if exchange.over:
                return
            verdict, body = exchange.verdict, bytes(exchange.body)
            if isinstance(verdict, Forward):
                exchange.body.clear()
                yield from self._resume(verdict, body)
            elif isinstance(verdict, Reply):
                yield from stream.reply(verdict)
            else:
                yield from stream.refuse("gateway_error")
