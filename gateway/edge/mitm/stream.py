"""One request on its way through: judged at its head, streamed in both directions, cut when told to.

Law: nothing goes upstream before the verdict is Forward, and nothing comes back that was not enforced.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, cast

from mitmproxy import http
from mitmproxy.net.http.status_codes import RESPONSES
from mitmproxy.proxy import commands, events, layer
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layers import http as mitm
from mitmproxy.proxy.layers.http import _events as http_events
from mitmproxy.proxy.layers.http._hooks import HttpRequestHeadersHook, HttpRequestHook
from mitmproxy.proxy.layers.websocket import WebsocketLayer
from mitmproxy.websocket import WebSocketData
from wsproto.connection import ConnectionState as WebSocketState
from wsproto.events import CloseConnection

from gateway.edge.mitm import messages
from gateway.edge.mitm.commands import Abort, Interrupt
from gateway.edge.mitm.exchange import Exchange, Flow
from gateway.edge.mitm.http_layer import DISCARD_BYTES, ClientHttp2, DialUpstream, is_bodyless
from gateway.edge.mitm.sockets import unsent_bytes
from gateway.pipeline.headers import Forward
from gateway.pipeline.verdicts import InteractionRequired, LocalRequest
from gateway.replies.replies import Reply, grpc_status

if TYPE_CHECKING:
    from gateway.edge.mitm.connection import ClientConnection

Commands = layer.CommandGenerator[Any]
LOCAL_BODY_BYTES = 1 << 16
ASK_BODY_BYTES = 1 << 20
ENFORCED_BODY_BYTES = 8 << 20
MESSAGE_BYTES = 16 << 20
_FROM_CLIENT = frozenset(
    {
        http_events.RequestHeaders,
        http_events.RequestData,
        http_events.RequestTrailers,
        http_events.RequestEndOfMessage,
    }
)
_FROM_UPSTREAM = frozenset(
    {
        http_events.ResponseHeaders,
        http_events.ResponseData,
        http_events.ResponseTrailers,
        http_events.ResponseEndOfMessage,
    }
)
_REPEATABLE = frozenset({"GET", "HEAD", "OPTIONS"})
_KILL = http_events.ErrorCode.KILL


class Stream(mitm.HttpStream):
    """mitmproxy's stream with the gateway's own states: always streaming, never buffering what it need not."""

    flow: Flow  # type: ignore[assignment]
    exchange: Exchange

    @property
    def edge(self) -> ClientConnection:
        """The connection this stream belongs to."""
        return self.context.client.gateway  # type: ignore[attr-defined, no-any-return]

    def __init__(self, context: Context, stream_id: int) -> None:
        layer.Layer.__init__(self, context)
        self.stream_id = stream_id
        self.client_state = self.state_wait_for_request_headers
        self.server_state = self.state_errored

    def _handle_event(self, event: events.Event) -> Commands:
        kind: Any = type(event)
        state: Any
        if kind in _FROM_CLIENT:
            state = self.client_state
        elif kind in _FROM_UPSTREAM:
            state = self.server_state
        else:
            state = self.interrupt if kind is Interrupt else self.handle_protocol_error
        return cast("Commands", state(event))

    # ---- the request ----

    def state_wait_for_request_headers(self, event: http_events.RequestHeaders) -> Commands:
        """Stages 1 to 10: ask the pipeline, then do what it says."""
        self.exchange = self.edge.opened(Exchange(self.stream_id, event.request, not event.end_stream))
        self.flow = Flow(self.exchange)
        self.client_state = self.server_state = self.state_errored
        yield HttpRequestHeadersHook(self.flow)  # type: ignore[arg-type]
        for queued in self._paused_event_queue:
            if isinstance(queued, http_events.RequestProtocolError):
                yield from self.handle_protocol_error(queued)
                return
        verdict = self.exchange.verdict
        if isinstance(verdict, Forward):
            yield from self.forward(verdict, ended=event.end_stream)
        elif isinstance(verdict, LocalRequest | InteractionRequired):
            self.client_state = self.state_collect_request
        else:
            refused = verdict if isinstance(verdict, Reply) else self.edge.refuse(self.exchange, "gateway_error")
            yield from self.reply(refused)

    def forward(self, verdict: Forward, *, ended: bool, fresh: bool = False) -> Commands:
        """Stage 11: find a healthy address, send the head that was judged."""
        upstream = self.edge.upstream(self.exchange, verdict)
        for address in upstream.candidates():
            connection, error = yield DialUpstream(upstream, address, fresh=fresh)
            if error is None:
                break
            upstream.failed(address)
        else:
            yield from self.reply(self.edge.refuse(self.exchange, "upstream_unreachable"))
            return
        self.context.server = self.flow.server_conn = connection
        if self.exchange.has_body and verdict.facts.header("expect"):
            interim = messages.response(100, (), reason=b"Continue")
            yield mitm.SendHttp(http_events.ResponseHeaders(self.stream_id, interim), self.context.client)
        self.flow.request = upstream.request(verdict, ended)
        self.client_state = self.state_stream_request_body
        self.server_state = self.state_wait_for_response_headers
        self.exchange.waiting_since = time.monotonic()
        yield mitm.SendHttp(http_events.RequestHeaders(self.stream_id, self.flow.request, ended), self.context.server)

    def state_stream_request_body(self, event: events.Event) -> Commands:
        """Pass the body on, up to the route's limit; request trailers were not judged and are dropped."""
        if isinstance(event, http_events.RequestData):
            self.exchange.received += len(event.data)
            self.exchange.progress_at = self.exchange.used_at = time.monotonic()
            verdict = self.exchange.verdict
            if isinstance(verdict, Forward) and self.exchange.received > verdict.route.body_limit_bytes:
                yield from self.interrupt(Interrupt(self.stream_id, "body_too_large"))
                return
            yield mitm.SendHttp(event, self.context.server)
        elif isinstance(event, http_events.RequestEndOfMessage):
            self.client_state = self.state_done
            self.exchange.has_body = False
            self.exchange.waiting_since = time.monotonic()
            yield mitm.SendHttp(event, self.context.server)
            if self.server_state == self.state_done:
                yield from self.drop()

    def state_collect_request(self, event: events.Event) -> Commands:
        """Gather the small body of a request that the gateway answers itself, or that waits for its sender."""
        exchange = self.exchange
        if isinstance(event, http_events.RequestData):
            exchange.body += event.data
            asked = exchange.verdict if isinstance(exchange.verdict, InteractionRequired) else None
            if len(exchange.body) > (LOCAL_BODY_BYTES if asked is None else ASK_BODY_BYTES):
                yield from self.reply(self.edge.refuse(exchange, "body_too_large") if asked is None else asked.reply)
        elif isinstance(event, http_events.RequestEndOfMessage):
            exchange.has_body = False
            self.client_state = self.state_errored
            yield HttpRequestHook(self.flow)  # type: ignore[arg-type]
            verdict = exchange.verdict
            if isinstance(verdict, Forward):
                yield from self.resume(verdict, bytes(exchange.body))
                return
            yield from self.reply(
                verdict if isinstance(verdict, Reply) else self.edge.refuse(exchange, "gateway_error")
            )

    def resume(self, verdict: Forward, body: bytes) -> Commands:
        """Forward a request that has waited, in place of the one that came; it is here as a whole."""
        self.exchange.body.clear()
        yield from self.forward(verdict, ended=not body)
        if self.exchange.over:
            return
        self.client_state = self.state_done
        if body:
            yield mitm.SendHttp(http_events.RequestData(self.stream_id, body), self.context.server)
        yield mitm.SendHttp(http_events.RequestEndOfMessage(self.stream_id), self.context.server)

    # ---- the response ----

    def state_wait_for_response_headers(self, event: http_events.ResponseHeaders) -> Commands:
        """Stage 12: enforce what policy demands of the answer before its first byte goes out."""
        verdict = self.exchange.verdict
        if not isinstance(verdict, Forward):
            raise TypeError("an answer without a verdict")
        self.exchange.waiting_since = None
        self.exchange.progress_at = time.monotonic()
        switching = event.response.status_code == 101  # noqa: PLR2004
        bodyless = event.end_stream or is_bodyless(verdict.facts.method, event.response.status_code)
        answer = (
            self.edge.refuse(self.exchange, "upstream_broken")
            if switching != (verdict.facts.protocol == "websocket") and switching
            else self.edge.answered(self.exchange, event.response, bodyless)
        )
        if isinstance(answer, Reply):
            yield from self.give_up_upstream()
            yield from self.reply(answer)
            return
        self.flow.response = answer
        if verdict.plan.needs_body and not bodyless:
            self.server_state = self.state_collect_response
            return
        self.exchange.status = answer.status_code
        self.exchange.is_feed = answer.headers.get("content-type", "").startswith("text/event-stream")
        if switching:
            self.flow.websocket = WebSocketData()
        self.server_state = self.state_stream_response_body
        yield mitm.SendHttp(
            http_events.ResponseHeaders(self.stream_id, answer, event.end_stream and not switching),
            self.context.client,
        )

    def state_stream_response_body(self, event: events.Event) -> Commands:
        """Pass the answer on as it comes."""
        if isinstance(event, http_events.ResponseData):
            self.exchange.sent += len(event.data)
            if not self.exchange.is_feed:
                self.exchange.used_at = time.monotonic()
            yield mitm.SendHttp(event, self.context.client)
        elif isinstance(event, http_events.ResponseTrailers):
            event.trailers = self.edge.trailed(self.exchange, event.trailers)
            if event.trailers:
                yield mitm.SendHttp(event, self.context.client)
        elif isinstance(event, http_events.ResponseEndOfMessage):
            yield from self.finish()

    def state_collect_response(self, event: events.Event) -> Commands:
        """Hold the answer's body until it is enforced as a whole; a body over the limit is dropped."""
        if isinstance(event, http_events.ResponseData):
            self.exchange.body += event.data
            if len(self.exchange.body) > ENFORCED_BODY_BYTES:
                yield from self.give_up_upstream()
                yield from self.reply(self.edge.refuse(self.exchange, "obligation_failed"))
        elif isinstance(event, http_events.ResponseEndOfMessage) and self.flow.response:
            answer = self.edge.enforced(self.exchange, self.flow.response)
            if isinstance(answer, Reply):
                yield from self.reply(answer)
                return
            self.exchange.status = self.flow.response.status_code
            yield mitm.SendHttp(
                http_events.ResponseHeaders(self.stream_id, self.flow.response, not answer), self.context.client
            )
            if answer:
                yield mitm.SendHttp(http_events.ResponseData(self.stream_id, answer), self.context.client)
            yield from self.finish()

    def finish(self) -> Commands:
        """The upstream has said everything; an early answer ends an HTTP/2 stream, an HTTP/1.1 upload goes on."""
        self.server_state = self.state_done
        if self.client_state == self.state_done:
            yield from self.flow_done()
            return
        yield mitm.SendHttp(http_events.ResponseEndOfMessage(self.stream_id), self.context.client)
        if self.context.client.alpn == b"h2":
            yield from self.give_up_upstream()
            yield from self.reset(0)
            yield from self.drop()

    def flow_done(self) -> Commands:
        """Both sides are done: a WebSocket goes on from here, everything else ends."""
        if not self.flow.websocket:
            self.edge.closed(self.exchange)
        yield from super().flow_done()

    def passthrough(self, event: events.Event) -> Commands:
        """A WebSocket's frames; 1008 ends it when access is taken away, 1009 when a message is huge (RFC 6455, 7.4)."""
        child = self.child_layer
        code, reason = 1008, getattr(event, "reason", "")
        if not isinstance(event, Interrupt):
            yield from super().passthrough(event)
            sides = (child.client_ws, child.server_ws) if isinstance(child, WebsocketLayer) else ()
            if all(sum(map(len, side.frame_buf)) <= MESSAGE_BYTES for side in sides):
                return
            code, reason = 1009, "message too big"
        self.edge.closed(self.exchange)
        if isinstance(event, Interrupt) and self.has_unsent:
            yield Abort(self.context.client)
        elif isinstance(child, WebsocketLayer):
            goodbye = CloseConnection(code=code, reason=reason)
            for side, wrap, connection in (
                (child.client_ws, http_events.ResponseData, self.context.client),
                (child.server_ws, http_events.RequestData, self.context.server),
            ):
                if side.state is WebSocketState.OPEN:
                    yield mitm.SendHttp(wrap(self.stream_id, side.send(goodbye)), connection)
        yield commands.CloseConnection(self.context.server)
        yield commands.CloseConnection(self.context.client)

    def may_repeat(self) -> bool:
        """Whether a request that met a dying connection may be sent again (RFC 9110 section 9.2.2, RFC 9112 9.3.1)."""
        verdict = self.exchange.verdict
        return (
            isinstance(verdict, Forward)
            and verdict.facts.method in _REPEATABLE
            and verdict.facts.content_length == 0
            and not self.exchange.status
            and self.client_state == self.state_done
        )

    def repeat(self) -> Commands:
        """Send the request again on a new connection; its body is empty."""
        yield from self.forward(cast("Forward", self.exchange.verdict), ended=True, fresh=True)
        if not self.exchange.over:
            self.client_state = self.state_done
            yield mitm.SendHttp(http_events.RequestEndOfMessage(self.stream_id), self.context.server)

    # ---- ends ----

    def reply(self, answer: Reply) -> Commands:
        """Answer in the upstream's place and be done; a large unread body closes an HTTP/1.1 connection."""
        exchange = self.exchange
        exchange.status = answer.status
        headers = [(name.encode("ascii"), value.encode("latin-1")) for name, value in answer.headers]
        body = b"" if exchange.request.method == "HEAD" else answer.body
        headers.append((b"content-length", b"%d" % len(answer.body)))
        length = exchange.request.headers.get("content-length", "")
        unread = exchange.has_body and not (length.isdecimal() and int(length) <= DISCARD_BYTES)
        # What comes next on a connection that carried an ambiguous request is not to be believed.
        flawed = answer.reason in {"malformed_request", "headers_too_large"}
        http2 = self.context.client.alpn == b"h2"
        if not http2 and (unread or flawed or self.edge.draining):
            headers.append((b"connection", b"close"))
        phrase = RESPONSES.get(answer.status, "").encode("ascii")
        version = b"HTTP/2.0" if http2 else b"HTTP/1.1"
        response = messages.response(answer.status, headers, reason=phrase, version=version)
        self.client_state = self.server_state = self.state_errored
        self.edge.closed(exchange)
        client = self.context.client
        yield mitm.SendHttp(http_events.ResponseHeaders(self.stream_id, response, not body), client)
        if body:
            yield mitm.SendHttp(http_events.ResponseData(self.stream_id, body), client)
        yield mitm.SendHttp(http_events.ResponseEndOfMessage(self.stream_id), client)
        if exchange.has_body and http2:
            yield from self.reset(0)
        yield mitm.DropStream(self.stream_id)

    def reset(self, code: int) -> Commands:
        """End an HTTP/2 stream whose request is still coming (RFC 9113 section 8.1), unless it has something to say."""
        server = self.edge.http.client
        if (
            isinstance(server, ClientHttp2)
            and not server.is_closed(self.stream_id)
            and not server.unsent(self.stream_id)
        ):
            server.streams.pop(self.stream_id, None)
            server.h2_conn.reset_stream(self.stream_id, code)
            yield commands.SendData(self.context.client, server.h2_conn.data_to_send())

    def interrupt(self, event: Interrupt) -> Commands:
        """End the exchange from outside: with an answer when none was begun, else by cutting it."""
        reason = event.reason
        if self.exchange.over:
            return
        yield from self.give_up_upstream()
        if not self.exchange.status and not self.flow.websocket:
            yield from self.reply(self.edge.refuse(self.exchange, reason))
            return
        verdict = self.exchange.verdict
        if self.context.client.alpn != b"h2" or self.has_unsent:
            # What waits to be sent is not sent any more.
            yield Abort(self.context.client)
        elif isinstance(verdict, Forward) and verdict.facts.protocol == "grpc" and not self.is_held_up:
            trailers = http.Headers([(b"grpc-status", b"%d" % grpc_status(reason)), (b"grpc-message", reason.encode())])
            yield mitm.SendHttp(http_events.ResponseTrailers(self.stream_id, trailers), self.context.client)
            yield mitm.SendHttp(http_events.ResponseEndOfMessage(self.stream_id), self.context.client)
        else:
            cut = http_events.ResponseProtocolError(self.stream_id, reason, http_events.ErrorCode.CANCEL)
            yield mitm.SendHttp(cut, self.context.client)
        yield from self.drop()

    @property
    def has_unsent(self) -> bool:
        """Whether something waits for the client to read it, encrypted already, that cannot be taken back."""
        return unsent_bytes(self.edge.transport) > 0

    @property
    def is_held_up(self) -> bool:
        """Whether something of this stream waits for the client's HTTP/2 window."""
        client = self.edge.http.client
        return isinstance(client, ClientHttp2) and client.unsent(self.stream_id)

    def give_up_upstream(self) -> Commands:
        """Tell the upstream that nobody waits for it any more."""
        if self.context.server in self.edge.http.connections:
            yield mitm.SendHttp(
                http_events.RequestProtocolError(self.stream_id, "cancelled", http_events.ErrorCode.CANCEL),
                self.context.server,
            )

    def drop(self) -> Commands:
        """Forget the stream."""
        self.client_state = self.server_state = self.state_errored
        self.edge.closed(self.exchange)
        yield mitm.DropStream(self.stream_id)

    def handle_protocol_error(
        self, event: http_events.RequestProtocolError | http_events.ResponseProtocolError
    ) -> Commands:
        """The client went away, or the upstream broke off."""
        if self.exchange.over:
            return
        if isinstance(event, http_events.RequestProtocolError):
            yield from self.give_up_upstream()
            wrong = event.code is http_events.ErrorCode.REQUEST_VALIDATION_FAILED
            if wrong and not self.exchange.status:
                yield from self.reply(self.edge.refuse(self.exchange, "malformed_request"))
                return
            if wrong:
                yield mitm.SendHttp(
                    http_events.ResponseProtocolError(self.stream_id, event.message, _KILL), self.context.client
                )
            yield from self.drop()
        elif self.server_state == self.state_done:
            # It has answered in full, and only stopped reading.
            return
        elif event.code is http_events.ErrorCode.CONNECT_FAILED and self.may_repeat():
            yield from self.repeat()
        elif not self.exchange.status:
            self.exchange.waiting_since = None
            self.edge.upstream_broke(self.exchange)
            yield from self.reply(self.edge.refuse(self.exchange, "upstream_broken"))
        else:
            yield mitm.SendHttp(event, self.context.client)
            yield from self.drop()
