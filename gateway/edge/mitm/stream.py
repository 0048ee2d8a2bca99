"""One request on its way through: judged at its head, streamed in both directions, cut when told to.

Law: nothing goes upstream before the verdict is Forward, and nothing comes back that was not enforced.
"""

from __future__ import annotations

from typing import Any, cast

from mitmproxy import http
from mitmproxy.proxy import commands, events, layer
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layers import http as mitm
from mitmproxy.proxy.layers.http import _events as http_events
from mitmproxy.proxy.layers.http._hooks import HttpRequestHeadersHook
from mitmproxy.proxy.layers.websocket import WebsocketLayer

from gateway.edge.mitm.commands import Abort, Interrupt
from gateway.edge.mitm.exchange import Exchange, Flow
from gateway.edge.mitm.http2 import ClientHttp2
from gateway.edge.mitm.ports import Commands, ConnectionPort
from gateway.edge.mitm.request_half import RequestHalf
from gateway.edge.mitm.response import (
    own_response,
)
from gateway.edge.mitm.response_half import ResponseHalf
from gateway.edge.mitm.sockets import unsent_bytes
from gateway.edge.mitm.websocket import MESSAGE_TOO_BIG, POLICY_VIOLATION, close_frames, has_huge_message
from gateway.pipeline.headers import Forward
from gateway.pipeline.verdicts import InteractionRequired, LocalRequest
from gateway.replies.replies import Reply, grpc_status

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
    def edge(self) -> ConnectionPort:
        """The connection this stream belongs to."""
        return self.context.client.gateway  # type: ignore[attr-defined, no-any-return]

    @property
    def is_http2(self) -> bool:
        """Whether the client speaks HTTP/2."""
        return self.context.client.alpn == b"h2"

    def __init__(self, context: Context, stream_id: int) -> None:
        layer.Layer.__init__(self, context)
        self.stream_id = stream_id
        self.client_state = self.state_wait_for_request_headers
        self.server_state = self.state_errored
        self.request_half, self.response_half = RequestHalf(self), ResponseHalf(self)

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

    def state_wait_for_request_headers(self, event: http_events.RequestHeaders) -> Commands:
        """Stages 1 to 10: ask the pipeline, then do what it says."""
        self.exchange = self.edge.opened(Exchange(self.stream_id, event.request, not event.end_stream))
        self.flow = Flow(self.exchange)
        self.client_state = self.server_state = self.state_errored
        yield HttpRequestHeadersHook(self.flow)  # type: ignore[arg-type]
        yield from self.end_if_cut()
        if self.exchange.over:
            return
        verdict = self.exchange.verdict
        if isinstance(verdict, Forward):
            yield from self.request_half.begin(verdict, ended=event.end_stream)
        elif isinstance(verdict, LocalRequest | InteractionRequired):
            self.client_state = self.request_half.collect_own
        elif isinstance(verdict, Reply):
            yield from self.reply(verdict)
        else:
            yield from self.refuse("gateway_error")

    def end_if_cut(self) -> Commands:
        """After each wait, before anything is sent: end the exchange if it was cut meanwhile (`exchange.over`)."""
        for queued in self._paused_event_queue:
            if isinstance(queued, Interrupt):
                yield from self.interrupt(queued)
                return
            if isinstance(queued, http_events.RequestProtocolError):
                yield from self.handle_protocol_error(queued)
                return

    def begin_response(self) -> None:
        """The request is on its way: take what the upstream sends."""
        self.server_state = self.response_half.wait_for_head

    def flow_done(self) -> Commands:
        """Both sides are done: a WebSocket goes on from here, everything else ends."""
        if not self.flow.websocket:
            self.edge.closed(self.exchange)
        yield from super().flow_done()

    def passthrough(self, event: events.Event) -> Commands:
        """A WebSocket's frames; 1008 ends it when access is taken away, 1009 when a message is huge (RFC 6455, 7.4)."""
        child, client, server = self.child_layer, self.context.client, self.context.server
        code, reason = POLICY_VIOLATION, getattr(event, "reason", "")
        if not isinstance(event, Interrupt):
            yield from super().passthrough(event)
            if not has_huge_message(child):
                return
            code, reason = MESSAGE_TOO_BIG, "message too big"
        self.edge.closed(self.exchange)
        if isinstance(event, Interrupt) and self.has_unsent:
            yield Abort(client)
        elif isinstance(child, WebsocketLayer):
            yield from close_frames(self.stream_id, child, client, server, code, reason)
        yield commands.CloseConnection(server)
        yield commands.CloseConnection(client)

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
        yield from self.request_half.forward_whole(cast("Forward", self.exchange.verdict), b"", fresh=True)

    # ---- ends ----

    def reply(self, answer: Reply) -> Commands:
        """Answer in the upstream's place and be done; a large unread body closes an HTTP/1.1 connection."""
        exchange = self.exchange
        exchange.status = answer.status
        response, body = own_response(answer, exchange, http2=self.is_http2, draining=self.edge.draining)
        self.client_state = self.server_state = self.state_errored
        self.edge.closed(exchange)
        client = self.context.client
        yield mitm.SendHttp(http_events.ResponseHeaders(self.stream_id, response, not body), client)
        if body:
            yield mitm.SendHttp(http_events.ResponseData(self.stream_id, body), client)
        yield mitm.SendHttp(http_events.ResponseEndOfMessage(self.stream_id), client)
        if exchange.has_body and self.is_http2:
            yield from self.reset(0)
        yield mitm.DropStream(self.stream_id)

    def refuse(self, reason: str) -> Commands:
        """Answer with a denial from the edge itself and be done."""
        yield from self.reply(self.edge.refuse(self.exchange, reason))

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
            yield from self.refuse(reason)
            return
        verdict = self.exchange.verdict
        if not self.is_http2 or self.has_unsent:
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
                yield from self.refuse("malformed_request")
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
            yield from self.refuse("upstream_broken")
        else:
            yield mitm.SendHttp(event, self.context.client)
            yield from self.drop()
