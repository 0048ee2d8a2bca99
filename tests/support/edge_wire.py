"""The protocol layers of one client connection without a network: bytes and commands in, bytes and commands out."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from mitmproxy.connection import Client, ConnectionState
from mitmproxy.proxy import commands, events
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layers.http._hooks import HttpRequestHeadersHook, HttpRequestHook

from gateway.config import Upstream as UpstreamConfig
from gateway.core.canonical import admit
from gateway.core.reasons import Refusal
from gateway.core.request import Peer, RawRequest, RequestFacts
from gateway.core.routes import Route
from gateway.edge.mitm.commands import Abort, Interrupt
from gateway.edge.mitm.exchange import Exchange
from gateway.edge.mitm.http_layer import GatewayHttpLayer
from gateway.edge.mitm.stream import Stream
from gateway.edge.mitm.turn_budget import Later, Turn
from gateway.edge.mitm.upstream_pool import UpstreamPool
from gateway.obligations.plan import NO_PLAN, Plan
from gateway.pipeline.headers import Forward
from gateway.pipeline.verdicts import LocalRequest
from gateway.replies.replies import Reply, deny

SETTINGS = SimpleNamespace(proxy_debug=False, validate_inbound_headers=True, normalize_outbound_headers=True)


class Wire:
    """A client connection; `judge` answers for the pipeline, by default it forwards everything."""

    def __init__(
        self,
        judge: Callable[[RequestFacts | Refusal], Any] | None = None,
        *,
        plan: Plan = NO_PLAN,
        dial_error: str | None = None,
        http2_upstream: bool = False,
        route: Route | None = None,
    ) -> None:
        protocol = "h2" if http2_upstream else "http1"
        self.upstream_ = UpstreamPool("svc", UpstreamConfig(urls=("http://127.0.0.1:1",), protocol=protocol))
        self.route = route or Route("svc", "a.example", upstream="svc")
        self.client = Client(
            peername=("10.0.0.9", 1), sockname=("127.0.0.1", 443), state=ConnectionState.OPEN, timestamp_start=0
        )
        self.client.gateway = self  # type: ignore[attr-defined]
        self.peer = Peer("10.0.0.9", 1, sni="a.example")
        self.http = GatewayHttpLayer(Context(self.client, SETTINGS), Stream, 10, 4096)  # type: ignore[arg-type]
        self.answer, self.plan, self.dial_error = judge or self.allow, plan, dial_error
        self.draining = False
        self.held = False
        self.roomy = True
        self.resumed: tuple[Any, bytes] | None = None
        self.to_client = b""
        self.to_upstream: list[bytes] = []
        self.servers: list[Any] = []
        self.exchanges: list[Exchange] = []
        self.over: list[Exchange] = []
        self.commands: list[str] = []
        self._waiting: list[events.Event] = []
        self.feed(events.Start())

    # ---- driving ----

    def allow(self, facts: RequestFacts | Refusal) -> Any:
        if isinstance(facts, Refusal):
            return deny(None, (facts.reason,), "id")
        headers = [item for item in facts.headers if item[0] != "expect"]
        return Forward("id", facts, self.route, headers, self.plan)

    def feed(self, event: events.Event) -> None:
        queue = [event]
        while queue:
            for command in self.http.handle_event(queue.pop(0)):
                self.commands.append(type(command).__name__)
                queue += self._do(command)

    def _do(self, command: Any) -> list[events.Event]:
        if isinstance(command, commands.SendData):
            if command.connection is self.client:
                self.to_client += command.data
            else:
                self.to_upstream[self.servers.index(command.connection)] += command.data
        elif isinstance(command, Later):
            return [Turn(command.connection)]
        elif isinstance(command, HttpRequestHeadersHook):
            done = events.HookCompleted(command)
            exchange = command.flow.exchange  # type: ignore[attr-defined]
            flaw = getattr(exchange.request, "flaw", None)
            exchange.verdict = self.answer(flaw or self._facts(exchange))
            if self.held:
                self._waiting.append(done)
                return []
            return [done]
        elif isinstance(command, HttpRequestHook):
            exchange = command.flow.exchange  # type: ignore[attr-defined]
            if self.resumed is None:
                exchange.verdict = Reply(200, (), bytes(exchange.body)[::-1], "local")
            else:
                exchange.verdict, exchange.body[:] = self.resumed
            return [events.HookCompleted(command)]
        elif isinstance(command, commands.OpenConnection):
            if self.dial_error is None:
                command.connection.state = ConnectionState.OPEN
                command.connection.alpn = b"h2" if self.upstream_.http2 else b"http/1.1"
                self.servers.append(command.connection)
                self.to_upstream.append(b"")
            return [events.OpenConnectionCompleted(command, self.dial_error)]
        elif isinstance(command, Abort) and command.connection is not self.client:
            command.connection.state = ConnectionState.CLOSED
            self.http.forget(command.connection)
        elif isinstance(command, Abort):
            # What the edge does with it: the client is gone, and everything that was open for it.
            for connection in (self.client, *self.servers):
                connection.state = ConnectionState.CLOSED
        elif isinstance(command, commands.CloseConnection):
            command.connection.state = ConnectionState.CLOSED
        return []

    def _facts(self, exchange: Exchange) -> RequestFacts | Refusal:
        data = exchange.request.data
        raw = RawRequest(data.method, data.authority, data.path, data.headers.fields, "1.1", not exchange.has_body)
        return admit(raw, self.peer)

    def say(self, data: bytes) -> None:
        """The client sends."""
        self.feed(events.DataReceived(self.client, data))

    def hear(self, data: bytes, server: int = -1) -> None:
        """The upstream sends."""
        self.feed(events.DataReceived(self.servers[server], data))

    def end(self, server: int = -1, error: str | None = None) -> None:
        """The upstream closes."""
        ended = self.servers[server]
        ended.error = error
        ended.state = ConnectionState.CLOSED
        self.feed(events.ConnectionClosed(ended))
        self.http.forget(ended)

    def let_go(self) -> None:
        """The verdict that was held back comes."""
        self.held = False
        self.roomy = True
        self.resumed: tuple[Any, bytes] | None = None
        for event in self._waiting:
            self.feed(event)
        self._waiting.clear()

    def interrupt(self, reason: str) -> None:
        self.feed(Interrupt(self.exchanges[-1].stream_id, reason))

    # ---- what the layers ask of their connection ----

    def opened(self, exchange: Exchange) -> Exchange:
        self.exchanges.append(exchange)
        return exchange

    def closed(self, exchange: Exchange) -> None:
        exchange.over = True
        self.over.append(exchange)

    def buffer(self, exchange: Exchange, size_bytes: int) -> bool:
        exchange.buffered_bytes += size_bytes
        return self.roomy

    def unbuffer(self, exchange: Exchange) -> None:
        exchange.buffered_bytes = 0

    def upstream(self, _exchange: Exchange, verdict: Forward) -> UpstreamPool:
        return self.upstream_

    def upstream_broke(self, exchange: Exchange) -> None:
        return

    def refuse(self, exchange: Exchange, code: str) -> Reply:
        facts = exchange.verdict.facts if isinstance(exchange.verdict, Forward | LocalRequest) else None
        return deny(facts, (code,), "id")
