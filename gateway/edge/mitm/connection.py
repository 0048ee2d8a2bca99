"""The embedded edge: a client connection drives mitmproxy's protocol layers and asks the pipeline at every head.

There is no addon and no add-on manager, so nothing can raise and be passed over: an exception in here ends the
connection. Reading is paused wherever the other side does not keep up, so memory stays flat whatever the body's size.
"""

from __future__ import annotations

import asyncio
import collections
import time
from typing import Any, cast

from mitmproxy.connection import Client, Connection, ConnectionState
from mitmproxy.proxy import commands, events
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layers import tls
from mitmproxy.proxy.layers import websocket as ws
from mitmproxy.proxy.layers.http._hooks import HttpRequestHeadersHook, HttpRequestHook

from gateway.config import Limits
from gateway.core.capabilities import ALL_BODIES, ALL_HEADS, EdgeCapabilities
from gateway.core.reasons import Refusal
from gateway.edge.mitm.commands import Abort, Linger, Release
from gateway.edge.mitm.exchange import Exchange
from gateway.edge.mitm.host import Host
from gateway.edge.mitm.http2 import ClientHttp2
from gateway.edge.mitm.http_layer import GatewayHttpLayer
from gateway.edge.mitm.memory_ledger import IDLE
from gateway.edge.mitm.memory_usage import REQUEST_BYTES, measure_usage
from gateway.edge.mitm.options import OPTIONS
from gateway.edge.mitm.peer import peer_of, raw_request
from gateway.edge.mitm.sockets import discard_unsent
from gateway.edge.mitm.stream import Stream
from gateway.edge.mitm.tasks import ConnectionTasks
from gateway.edge.mitm.timeouts import check_timeouts
from gateway.edge.mitm.tls import GatewayTlsLayer, ja4
from gateway.edge.mitm.turn_budget import ConnectionTurns, Later
from gateway.edge.mitm.upstream_connections import HIGH_BYTES, UpstreamConnections
from gateway.edge.mitm.upstream_pool import UpstreamPool
from gateway.edge.proxy_protocol import Preamble, Source
from gateway.pipeline.headers import Forward
from gateway.pipeline.interaction import answer
from gateway.pipeline.verdicts import InteractionRequired, LocalRequest
from gateway.replies.replies import Reply

# Heads and bodies in both directions, streamed and whole.
CAPABILITIES = EdgeCapabilities("mitm", ALL_HEADS, ALL_BODIES)
_LINGER_BYTES = 8 << 20
# What a connection holds is counted anew when so much has moved on it, and twice a second.
_MEASURE_BYTES = 1 << 16


class ClientConnection(asyncio.Protocol):
    """One client connection with everything that happens on it."""

    def __init__(self, edge: Host[ClientConnection]) -> None:
        self.edge = edge
        self.legs = UpstreamConnections(self)
        self.exchanges: dict[int, Exchange] = {}
        self.opened_at = self.active_at = time.monotonic()
        self.established = False
        self.closing_since: float | None = None
        self.paused_since: float | None = None
        self.head_since: float | None = None
        self.ip = self.client_key = ""
        self.moved_bytes = self._lingered_bytes = 0
        self._ja4 = ""
        self._queue: collections.deque[events.Event] = collections.deque()
        self._pumping = self._over = self.is_ending = False
        self._tasks = ConnectionTasks()

    # ---- the client's transport ----

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has connected; over the limits it is cut before it costs anything."""
        self.transport = cast("asyncio.Transport", transport)
        self.transport.set_write_buffer_limits(high=HIGH_BYTES)
        peername = transport.get_extra_info("peername") or ("", 0)
        self.ip = peername[0]
        self.client_key = self.edge.client_key(self.ip, peername[1])
        self.turns = ConnectionTurns(self.edge.scheduler, self.client_key, self.pump)
        self.client = Client(
            peername=peername,
            sockname=transport.get_extra_info("sockname"),
            timestamp_start=time.time(),
            state=ConnectionState.OPEN,
        )
        self.client.gateway = self  # type: ignore[attr-defined]
        context = Context(self.client, OPTIONS)  # type: ignore[arg-type]
        self.tls = GatewayTlsLayer(context)
        limits = self.edge.limits
        self.http = GatewayHttpLayer(context, Stream, limits.streams, limits.header_kib << 10)
        self.tls.child_layer = self.http
        self._preamble: Preamble | None = Preamble() if self.edge.is_balancer(self.ip) else None
        if not self.edge.arrived(self):
            self.transport.abort()
            return
        self.pump(events.Start())

    def _take_over(self, source: Source) -> None:
        """The balancer speaks for a client: limits and budgets are that client's from now on."""
        self.edge.left(self)
        self.ip = source.ip
        self.client.peername = (source.ip, source.port)
        self.client_key = self.edge.client_key(self.ip, source.port)
        self.turns = ConnectionTurns(self.edge.scheduler, self.client_key, self.pump)
        if not self.edge.arrived(self):
            self.transport.abort()
            self._over = True

    def data_received(self, data: bytes) -> None:
        """Bytes from the client."""
        self.active_at = time.monotonic()
        self.moved_bytes += len(data)
        if self.closing_since is None:
            if self._preamble is not None and not (data := self._preamble.feed(data, self._take_over, self.transport)):
                return
            self._preamble = None
            self.turns.receive(self.client, data)
            return
        self._lingered_bytes += len(data)
        if self._lingered_bytes > _LINGER_BYTES:
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  (asyncio)
        """The client is gone: end what it asked for, hand clean upstream connections back."""
        self.client.state = ConnectionState.CLOSED
        self.turns.forget(self.client)
        self.pump(events.ConnectionClosed(self.client))
        for exchange in list(self.exchanges.values()):
            self.closed(exchange)
        self._tasks.cancel()
        self.edge.left(self)
        self.edge.memory.forget(self)
        self._over = True
        self.turns.close()
        self.legs.close()
        self.http.close()
        del self.client.gateway  # type: ignore[attr-defined]

    def pause_writing(self) -> None:
        """The client does not keep up: stop reading from upstreams."""
        self.paused_since = time.monotonic()
        self.legs.balance()

    def resume_writing(self) -> None:
        """The client keeps up again."""
        self.paused_since = None
        self.legs.balance()

    @property
    def limits(self) -> Limits:
        """The current limits."""
        return self.edge.limits

    @property
    def draining(self) -> bool:
        """Whether this worker takes no further requests on its connections."""
        return self.edge.draining

    # ---- events in, commands out ----

    def pump(self, event: events.Event) -> None:
        """Feed one event to the layers and do what they answer; whatever raises ends the connection."""
        if self._over:
            return
        self._queue.append(event)
        if self._pumping:
            return
        self._pumping = True
        try:
            while self._queue:
                for command in self.tls.handle_event(self._queue.popleft()):
                    self._run(command)
        except Exception as error:  # noqa: BLE001  (a bug in a protocol layer must not leave a half-judged connection)
            self._queue.clear()
            self.edge.crashed(error)
            self.abort_all()
        finally:
            self._pumping = False
        self.legs.flush()
        if self.moved_bytes > _MEASURE_BYTES:
            self.measure()
        self.legs.balance()
        if self.http.finished:
            self.http.sweep()

    def _run(self, command: commands.Command) -> None:
        if isinstance(command, commands.SendData):
            self._send(command.connection, command.data)
        elif isinstance(command, commands.StartHook):
            self._hook(command)
        elif isinstance(command, commands.OpenConnection):
            self.legs.open(command)
        elif isinstance(command, Release):
            self.legs.release(command.connection)
        elif isinstance(command, Later):
            self.turns.later(command.connection)
        elif isinstance(command, Linger):
            self._linger()
        elif isinstance(command, Abort) and command.connection is not self.client:
            if not self.legs.cut(command.connection):
                self._close(command.connection, half=False)
        elif isinstance(command, Abort):
            discard_unsent(self.transport)
            self.abort_all()
        elif isinstance(command, commands.CloseConnection):
            half = isinstance(command, commands.CloseTcpConnection) and command.half_close
            self._close(command.connection, half=half)
        elif not isinstance(command, commands.Log):
            raise TypeError(f"unexpected command {type(command).__name__}")

    def _send(self, connection: Connection, data: bytes) -> None:
        self.moved_bytes += len(data)
        if connection is self.client:
            if not self.transport.is_closing():
                self.transport.write(data)
        elif (leg := self.legs.get(connection)) is not None:
            self.legs.send(leg, data)

    def _close(self, connection: Connection, *, half: bool) -> None:
        transport = self.transport
        if connection is not self.client:
            if (leg := self.legs.get(connection)) is None:
                return
            transport = leg.transport
            self.legs.flush()
        if half:
            connection.state &= ~ConnectionState.CAN_WRITE
            if transport.can_write_eof():
                transport.write_eof()
            return
        connection.state = ConnectionState.CLOSED
        transport.close()
        if connection is self.client:
            self.closing_since = time.monotonic()
            self.turns.forget(connection)

    def _linger(self) -> None:
        self.closing_since = time.monotonic()
        self.turns.forget(self.client)
        self.client.state = ConnectionState.CAN_READ
        if self.transport.can_write_eof() and not self.transport.is_closing():
            self.transport.write_eof()

    def abort_all(self) -> None:
        """Cut it and its upstream connections."""
        self.legs.abort()
        self.transport.abort()

    # ---- hooks ----

    def _hook(self, hook: commands.StartHook) -> None:
        if isinstance(hook, HttpRequestHeadersHook):
            self.spawn(self._judge(hook, hook.flow.exchange))  # type: ignore[attr-defined]
            return
        if isinstance(hook, HttpRequestHook):
            self.spawn(self._answer(hook, hook.flow.exchange))  # type: ignore[attr-defined]
            return
        if isinstance(hook, ws.WebsocketMessageHook) and hook.flow.websocket:
            if any(message.from_client for message in hook.flow.websocket.messages):
                hook.flow.exchange.used_at = time.monotonic()  # type: ignore[attr-defined]
            hook.flow.websocket.messages.clear()
        elif isinstance(hook, tls.TlsClienthelloHook):
            self._ja4 = ja4(hook.data.client_hello)
        elif isinstance(hook, tls.TlsStartClientHook):
            hook.data.ssl_conn = self.edge.generation.contexts.connection(self.client.sni)
        elif isinstance(hook, tls.TlsEstablishedClientHook):
            self.established = True
            self.edge.handshake(ok=True)
            self.peer = peer_of(self.client, self.ip, self._ja4)
        elif isinstance(hook, tls.TlsFailedClientHook):
            self.edge.handshake(ok=False)
        if hook.blocking:
            self._queue.append(events.HookCompleted(hook))

    def spawn(self, coroutine: Any) -> None:
        """Run a coroutine that belongs to this connection; what it raises ends the connection."""
        self._tasks.spawn(coroutine, self._failed)

    def _failed(self, error: BaseException | None) -> None:
        if error is not None:
            self.edge.crashed(error)
        self.abort_all()

    async def _judge(self, hook: HttpRequestHeadersHook, exchange: Exchange) -> None:
        exchange.generation = generation = self.edge.generation
        flaw: Refusal | None = getattr(exchange.request, "flaw", None)
        exchange.verdict = await generation.pipeline.judge(raw_request(exchange), self.peer, CAPABILITIES, flaw)
        self.pump(events.HookCompleted(hook))

    async def _answer(self, hook: HttpRequestHook, exchange: Exchange) -> None:
        """The gateway's own answer to a request that is here as a whole; one that has waited is judged instead."""
        verdict = exchange.verdict
        if isinstance(verdict, LocalRequest | InteractionRequired):
            generation = exchange.generation
            answered = await answer(
                generation.pipeline, generation.endpoints, verdict, bytes(exchange.body), self.peer, CAPABILITIES
            )
            exchange.verdict = answered.verdict
            if isinstance(answered.verdict, Forward):
                exchange.body[:] = answered.body
            if answered.is_resumed:
                exchange.has_body = False
        self.pump(events.HookCompleted(hook))

    # ---- what streams ask of their connection ----

    def opened(self, exchange: Exchange) -> Exchange:
        """A request head has arrived."""
        self.exchanges[exchange.stream_id] = exchange
        exchange.connection = self
        exchange.head_bytes = sum(len(name) + len(value) for name, value in exchange.request.data.headers.fields)
        self.moved_bytes += exchange.head_bytes + REQUEST_BYTES
        self.head_since = None
        return exchange

    def closed(self, exchange: Exchange) -> None:
        """A request is over."""
        if not exchange.over:
            exchange.over, exchange.connection = True, None
            self.exchanges.pop(exchange.stream_id, None)
            self.active_at = time.monotonic()
            self.edge.finished(exchange)

    def buffer(self, exchange: Exchange, size_bytes: int) -> bool:
        """Count bytes of a body that is held in memory; False when they would be too many."""
        if not self.edge.memory.fits(self, size_bytes):
            return False
        exchange.buffered_bytes += size_bytes
        self.measure()
        return True

    def unbuffer(self, exchange: Exchange) -> None:
        """The exchange's body is held no longer."""
        exchange.buffered_bytes = 0
        self.moved_bytes = _MEASURE_BYTES + 1

    # ---- memory ----

    def measure(self) -> None:
        """Count anew what this connection holds."""
        self.moved_bytes = 0
        if not self._over and not self.is_ending:
            self.edge.memory.note(self, measure_usage(self))

    def end_for_memory(self) -> None:
        """Cut it at once: it holds more than it may."""
        self.is_ending = True
        self.edge.cut_for_memory(self)
        discard_unsent(self.transport)
        self.abort_all()

    @staticmethod
    def upstream(exchange: Exchange, verdict: Forward) -> UpstreamPool:
        """The upstream of a verdict, of the generation that judged: the name may be another's by now, or nobody's."""
        return exchange.generation.upstreams[verdict.route.upstream]

    def refuse(self, exchange: Exchange, code: str) -> Reply:
        """A denial from the edge itself."""
        verdict = exchange.verdict
        facts = verdict.facts if isinstance(verdict, Forward | LocalRequest | InteractionRequired) else None
        decision_id = verdict.decision_id if isinstance(verdict, Forward | InteractionRequired) else ""
        return self.edge.generation.pipeline.refuse(facts, code, decision_id)

    def upstream_broke(self, exchange: Exchange) -> None:
        """The upstream ended the connection instead of answering."""
        if isinstance(verdict := exchange.verdict, Forward):
            self.edge.upstream_broke(verdict.route)

    # ---- time ----

    def check(self, now: float) -> None:
        """Called twice a second: count what is held anew, end what takes too long."""
        if self.established and (self.moved_bytes or self.edge.memory.usage(self) is not IDLE):
            self.measure()
            self.legs.balance()
        check_timeouts(self, now)

    def goodbye(self) -> None:
        """Close an idle connection the way its protocol wants it."""
        client = self.http.connections.get(self.client)
        if isinstance(client, ClientHttp2):
            client.h2_conn.close_connection()
            self.say(client.h2_conn.data_to_send())
        self._say(None)

    def say(self, data: bytes) -> None:
        """Send to the client from outside an event."""
        if data and not self.transport.is_closing():
            self._say(data)

    def _say(self, data: bytes | None) -> None:
        command: commands.Command = (
            commands.CloseConnection(self.client) if data is None else commands.SendData(self.client, data)
        )
        for part in (self.tls._handle_command(command), self.tls.flush()):  # noqa: SLF001  (we speak from above TLS)
            for outgoing in part:
                self._run(outgoing)
