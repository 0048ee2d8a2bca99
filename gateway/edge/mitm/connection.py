"""The embedded edge: a client connection drives mitmproxy's protocol layers and asks the pipeline at every head.

There is no addon and no add-on manager, so nothing can raise and be passed over: an exception in here ends the
connection. Reading is paused wherever the other side does not keep up, so memory stays flat whatever the body's size.
"""

from __future__ import annotations

import asyncio
import base64
import collections
import hashlib
import logging
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

from cryptography.hazmat.primitives.serialization import Encoding
from mitmproxy.connection import Client, Connection, ConnectionState
from mitmproxy.proxy import commands, events
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layers import tls
from mitmproxy.proxy.layers import websocket as ws
from mitmproxy.proxy.layers.http._hooks import HttpRequestHeadersHook, HttpRequestHook

from gateway.core.canonical import client_network
from gateway.core.capabilities import ALL_BODIES, ALL_HEADS, EdgeCapabilities
from gateway.core.reasons import Refusal
from gateway.core.request import Peer, RawRequest
from gateway.edge.mitm.commands import Abort, Interrupt, Linger, Release
from gateway.edge.mitm.exchange import Exchange
from gateway.edge.mitm.http1 import ClientHttp1
from gateway.edge.mitm.http2 import ClientHttp2
from gateway.edge.mitm.http_layer import GatewayHttpLayer
from gateway.edge.mitm.memory_ledger import IDLE, Usage
from gateway.edge.mitm.memory_usage import REQUEST_BYTES, measure_usage
from gateway.edge.mitm.sockets import discard_unsent
from gateway.edge.mitm.stream import Stream
from gateway.edge.mitm.tls import GatewayTlsLayer, ja4
from gateway.edge.mitm.turn_budget import ConnectionTurns, Later
from gateway.edge.mitm.upstream_connections import HIGH_BYTES, UpstreamConnections
from gateway.edge.mitm.upstream_pool import UpstreamPool
from gateway.pipeline.headers import Forward
from gateway.pipeline.interaction import answer
from gateway.pipeline.verdicts import InteractionRequired, LocalRequest
from gateway.replies.replies import Reply

if TYPE_CHECKING:
    from gateway.server.edge_host import EdgeHost

# Heads and bodies in both directions, streamed and whole.
CAPABILITIES = EdgeCapabilities("mitm", ALL_HEADS, ALL_BODIES)
_LINGER_S = 2.0
_LINGER_BYTES = 8 << 20
# What a connection holds is counted anew when so much has moved on it, and twice a second.
_MEASURE_BYTES = 1 << 16
_SWITCHING = 101
_OPTIONS = SimpleNamespace(
    validate_inbound_headers=True,
    normalize_outbound_headers=True,
    store_streamed_bodies=False,
    stream_large_bodies=None,
    body_size_limit=None,
    keep_host_header=True,
    websocket=True,
    rawtcp=False,
    http2_ping_keepalive=0,
    proxy_debug=False,
)
logger = logging.getLogger("gateway.edge")


class ClientConnection(asyncio.Protocol):
    """One client connection with everything that happens on it."""

    def __init__(self, edge: EdgeHost) -> None:
        self.edge = edge
        self.legs = UpstreamConnections(self)
        self.exchanges: dict[int, Exchange] = {}
        self.opened_at = self.active_at = time.monotonic()
        self.established = False
        self.closing_since: float | None = None
        self.paused_since: float | None = None
        self.head_since: float | None = None
        self.ip = ""
        self.client_key = ""
        self.moved_bytes = 0
        self._lingered_bytes = 0
        self._ja4 = ""
        self._queue: collections.deque[events.Event] = collections.deque()
        self._pumping = self._over = self.is_ending = False
        self._tasks: set[asyncio.Task[None]] = set()

    # ---- the client's transport ----

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has connected; over the limits it is cut before it costs anything."""
        self.transport = cast("asyncio.Transport", transport)
        self.transport.set_write_buffer_limits(high=HIGH_BYTES)
        peername = transport.get_extra_info("peername") or ("", 0)
        self.ip = peername[0]
        self.client_key = client_network(self.ip)
        self.turns = ConnectionTurns(self.edge.scheduler, self.client_key, self.pump)
        self.client = Client(
            peername=peername,
            sockname=transport.get_extra_info("sockname"),
            timestamp_start=time.time(),
            state=ConnectionState.OPEN,
        )
        self.client.gateway = self  # type: ignore[attr-defined]
        context = Context(self.client, _OPTIONS)  # type: ignore[arg-type]
        self.tls = GatewayTlsLayer(context)
        limits = self.edge.limits
        self.http = GatewayHttpLayer(context, Stream, limits.streams, limits.header_kib << 10)
        self.tls.child_layer = self.http
        if not self.edge.arrived(self):
            self.transport.abort()
            return
        self.pump(events.Start())

    def data_received(self, data: bytes) -> None:
        """Bytes from the client."""
        self.active_at = time.monotonic()
        self.moved_bytes += len(data)
        if self.closing_since is None:
            self.turns.receive(self.client, data)
            return
        self._lingered_bytes += len(data)
        if self._lingered_bytes > _LINGER_BYTES:
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  (asyncio)  # noqa: ARG002  (asyncio)
        """The client is gone: end what it asked for, hand clean upstream connections back."""
        self.client.state = ConnectionState.CLOSED
        self.turns.forget(self.client)
        self.pump(events.ConnectionClosed(self.client))
        for exchange in list(self.exchanges.values()):
            self.closed(exchange)
        for task in self._tasks:
            task.cancel()
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
            self._abort_all()
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
        elif isinstance(command, commands.Log):
            pass
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
            self._abort_all()
        elif isinstance(command, commands.CloseConnection):
            half = isinstance(command, commands.CloseTcpConnection) and command.half_close
            self._close(command.connection, half=half)
        else:
            raise TypeError(f"unexpected command {type(command).__name__}")

    def _send(self, connection: Connection, data: bytes) -> None:
        self.moved_bytes += len(data)
        if connection is self.client:
            if not self.transport.is_closing():
                self.transport.write(data)
        elif (leg := self.legs.get(connection)) is not None:
            self.legs.send(leg, data)

    def _close(self, connection: Connection, *, half: bool) -> None:
        transport = self.transport if connection is self.client else None
        if transport is None:
            leg = self.legs.get(connection)
            if leg is None:
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

    def _abort_all(self) -> None:
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
            self._established()
        elif isinstance(hook, tls.TlsFailedClientHook):
            self.edge.handshake(ok=False)
        if hook.blocking:
            self._queue.append(events.HookCompleted(hook))

    def spawn(self, coroutine: Any) -> None:
        """Run a coroutine that belongs to this connection; what it raises ends the connection."""
        task = asyncio.Task(coroutine, loop=asyncio.get_running_loop(), eager_start=True)
        if not task.done():
            self._tasks.add(task)
            task.add_done_callback(self._task_done)
        else:
            self._task_done(task)

    def _task_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            self._abort_all()
        elif (error := task.exception()) is not None:
            self.edge.crashed(error)
            self._abort_all()

    def _established(self) -> None:
        self.established = True
        self.edge.handshake(ok=True)
        chain = tuple(
            certificate.to_cryptography().public_bytes(Encoding.DER) for certificate in self.client.certificate_list
        )
        digest = hashlib.sha256(chain[0]).digest() if chain else b""
        self.peer = Peer(
            ip=self.ip,
            port=self.client.peername[1],
            chain=chain,
            cert_sha256=base64.urlsafe_b64encode(digest).rstrip(b"=").decode("ascii"),
            sni=self.client.sni,
            alpn=(self.client.alpn or b"").decode("ascii"),
            ja4=self._ja4,
            local_port=self.client.sockname[1],
        )

    async def _judge(self, hook: HttpRequestHeadersHook, exchange: Exchange) -> None:
        request = exchange.request
        exchange.generation = generation = self.edge.generation
        raw = RawRequest(
            method=request.data.method,
            authority=request.data.authority,
            target=request.data.path,
            headers=request.data.headers.fields,
            version="2" if request.is_http2 else "1.1",
            ended=not exchange.has_body,
        )
        flaw: Refusal | None = getattr(request, "flaw", None)
        exchange.verdict = await generation.pipeline.judge(raw, self.peer, CAPABILITIES, flaw)
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

    @property
    def usage(self) -> Usage:
        """What this connection was last seen to hold."""
        return self.edge.memory.usage(self)

    @property
    def is_tight(self) -> bool:
        """Whether memory is short for this connection."""
        return self.edge.memory.is_tight(self)

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
        self._abort_all()

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
        if isinstance(exchange.verdict, Forward):
            self.edge.upstream_broke(exchange.verdict.route)

    # ---- time ----

    def check(self, now: float) -> None:
        """Called twice a second: end what takes too long."""
        limits = self.edge.limits
        if self.established and (self.moved_bytes or self.usage is not IDLE):
            self.measure()
            self.legs.balance()
        if self.closing_since is not None:
            unsent = self.transport.get_write_buffer_size() > 0
            if now - self.closing_since > (limits.stall_s if unsent else _LINGER_S):
                self.transport.abort()
        elif not self.established:
            if now - self.opened_at > limits.handshake_s:
                self.transport.abort()
        elif self.paused_since is not None and now - self.paused_since > limits.stall_s:
            self._abort_all()
        else:
            if not self.exchanges:
                self._check_idle(now)
            for exchange in list(self.exchanges.values()):
                self._check_exchange(exchange, now)
            client = self.http.connections.get(self.client)
            if isinstance(client, ClientHttp2):
                client.forgive()
                self._check_frames(client, now)
                for stream_id in client.stuck(now, limits.stall_s):
                    self.pump(Interrupt(stream_id, "request_timeout"))

    def _check_idle(self, now: float) -> None:
        limits = self.edge.limits
        client = self.http.connections.get(self.client)
        if isinstance(client, ClientHttp1) and client.mid_head and not self.legs.input_waits:
            self.head_since = self.head_since or now
            if now - self.head_since > limits.header_s:
                self.transport.abort()
        elif now - self.active_at > limits.idle_s or self.draining:
            self.goodbye()

    def _check_frames(self, client: ClientHttp2, now: float) -> None:
        """Cut a connection that is held by a header block without end, or by a frame without a request."""
        since = client.frames.incomplete_since
        if since is None or self.legs.input_waits or now - since <= self.edge.limits.header_s:
            return
        if client.frames.is_in_block or not self.exchanges:
            self._abort_all()

    def _check_exchange(self, exchange: Exchange, now: float) -> None:
        verdict = exchange.verdict
        if isinstance(verdict, Forward) and exchange.status != _SWITCHING:
            wait_s = self.upstream(exchange, verdict).settings.response_timeout_s
            if exchange.has_body and self.legs.uploads_wait:
                if now - exchange.progress_at > wait_s:
                    self.pump(Interrupt(exchange.stream_id, "upstream_timeout"))
            elif exchange.has_body and verdict.facts.protocol != "grpc":
                if now - exchange.progress_at > self.edge.limits.stall_s:
                    self.pump(Interrupt(exchange.stream_id, "request_timeout"))
            elif exchange.waiting_since is not None and not exchange.has_body and now - exchange.waiting_since > wait_s:
                self.pump(Interrupt(exchange.stream_id, "upstream_timeout"))
        elif (
            isinstance(verdict, LocalRequest | InteractionRequired)
            and now - exchange.started > self.edge.limits.header_s
        ):
            self._abort_all()

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
