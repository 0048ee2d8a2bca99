"""Upstream connections of one client connection: dialled or taken from the pool, kept in balance, handed back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, ItemsView
from typing import TYPE_CHECKING, cast

from mitmproxy.connection import Connection, ConnectionState, Server
from mitmproxy.proxy import commands, events

from gateway.edge.mitm.http1 import ClientHttp1
from gateway.edge.mitm.http2 import ClientHttp2, UpstreamHttp2
from gateway.edge.mitm.memory_ledger import LOW_BYTES
from gateway.edge.mitm.upstream_pool import UpstreamPool
from gateway.edge.mitm.upstream_slots import ALL, NO_SLOT, Slots

if TYPE_CHECKING:
    from gateway.edge.mitm.connection import ClientConnection

HIGH_BYTES = 1 << 18


class UpstreamConnection(asyncio.Protocol):
    """One TCP (or TLS) connection to an upstream; it belongs to one client connection, or to the pool."""

    def __init__(self, upstream: UpstreamPool, address: tuple[str, int]) -> None:
        self.upstream = upstream
        self.address = address
        self.owner: ClientConnection | None = None
        self.server: Server | None = None
        self.transport: asyncio.Transport
        self.writing_paused = False
        self.early: bytearray | None = bytearray()
        self.on_free: Callable[[], None] | None = None
        self.on_closed: Callable[[], None] | None = None
        self._closed = False

    def free(self) -> None:
        """No client uses it any more."""
        on_free, self.on_free = self.on_free, None
        if on_free is not None:
            on_free()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection is there."""
        self.transport = cast("asyncio.Transport", transport)
        self.transport.set_write_buffer_limits(high=HIGH_BYTES)

    @property
    def usable(self) -> bool:
        """Whether the connection is open and nothing unasked has arrived."""
        return not self._closed and not self.transport.is_closing()

    @property
    def alpn(self) -> bytes:
        """The protocol the upstream agreed to."""
        secured = self.transport.get_extra_info("ssl_object")
        return ((secured.selected_alpn_protocol() if secured else None) or "").encode()

    def data_received(self, data: bytes) -> None:
        """Bytes from the upstream; on a pooled connection nobody asked for them, so it is cut."""
        if self.owner is not None and self.server is not None:
            self.owner.moved_bytes += len(data)
            self.owner.pump(events.DataReceived(self.server, data))
        elif self.early is None:
            self.abort()
        else:
            # An HTTP/2 server speaks first, maybe before the dialler's task has its turn.
            self.early += data
            self.transport.pause_reading()

    def eof_received(self) -> None:
        """The upstream has said everything it will."""
        self._gone(None)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        on_closed, self.on_closed = self.on_closed, None
        if on_closed is not None:
            on_closed()
        self._gone(exc)

    def _gone(self, error: Exception | None) -> None:
        if self._closed:
            return
        self._closed = True
        if self.owner is not None and self.server is not None:
            self.server.error = str(error) if error else None
            self.owner.legs.gone(self.server)

    def abort(self) -> None:
        """Cut the connection."""
        self._closed = True
        self.transport.abort()

    def pause_writing(self) -> None:
        """The upstream does not keep up: stop reading from the client."""
        self.writing_paused = True
        if self.owner is not None:
            self.owner.legs.balance()

    def resume_writing(self) -> None:
        """The upstream keeps up again."""
        self.writing_paused = False
        if self.owner is not None:
            self.owner.legs.balance()


class UpstreamConnections:
    """The upstream connections that one client connection holds at the moment."""

    def __init__(self, client: ClientConnection) -> None:
        self._client = client
        self._open: dict[Connection, UpstreamConnection] = {}
        self.uploads_wait = self.input_waits = False
        self._unsent: dict[UpstreamConnection, list[bytes]] = {}

    def get(self, connection: Connection) -> UpstreamConnection | None:
        """The open leg behind mitmproxy's connection object."""
        return self._open.get(connection)

    def items(self) -> ItemsView[Connection, UpstreamConnection]:
        """Every open one, by mitmproxy's connection object."""
        return self._open.items()

    def send(self, leg: UpstreamConnection, data: bytes) -> None:
        """Gather what one event makes us send, so that it leaves in one write."""
        self._unsent.setdefault(leg, []).append(data)

    def flush(self) -> None:
        """Write what was gathered."""
        for leg, pieces in self._unsent.items():
            if leg.usable:
                leg.transport.write(pieces[0] if len(pieces) == 1 else b"".join(pieces))
        self._unsent.clear()

    def abort(self) -> None:
        """Cut every one."""
        for leg in self._open.values():
            leg.abort()

    def close(self) -> None:
        """The client is gone: clean idle connections go back to their pool, the others are cut."""
        for server, leg in list(self._open.items()):
            if leg.usable and self._client.http.idle(server):
                self.release(server)
            else:
                leg.owner = leg.server = None
                leg.free()
                leg.abort()
        self._open.clear()
        del self._client

    def open(self, command: commands.OpenConnection) -> None:
        """Take an idle connection from the pool, or dial."""
        server = command.connection
        upstream: UpstreamPool = server.upstream  # type: ignore[attr-defined]
        address = cast("tuple[str, int]", server.address)
        has_slot = self._client.edge.client_slots.try_acquire(self._client.client_key)
        leg = self._take_idle(server, upstream, address) if has_slot else None
        if leg is not None:
            self._connected(command, leg)
        else:
            self._client.spawn(self._dial(command, upstream, address, has_slot=has_slot))

    def _take_idle(
        self, server: Connection, upstream: UpstreamPool, address: tuple[str, int]
    ) -> UpstreamConnection | None:
        """A pooled connection for a client that has its slot."""
        leg = None if upstream.http2 or server.fresh else upstream.take(address)  # type: ignore[attr-defined]
        if leg is not None:
            server.used = True  # type: ignore[attr-defined]
            leg.on_free = self._free_client_slot
        return leg

    @property
    def _free_client_slot(self) -> Callable[[], None]:
        slots, key = self._client.edge.client_slots, self._client.client_key
        return lambda: slots.release(key)

    async def _dial(
        self, command: commands.OpenConnection, upstream: UpstreamPool, address: tuple[str, int], *, has_slot: bool
    ) -> None:
        error: str | None = None
        client, leg = self._client, None
        free_client_slot = self._free_client_slot
        try:
            async with asyncio.timeout(upstream.settings.connect_timeout_s):
                if not has_slot:
                    await client.edge.client_slots.acquire(client.client_key)
                    has_slot = True
                    leg = self._take_idle(command.connection, upstream, address)
                if leg is None:
                    leg = await self._connect(upstream, address)
                    leg.on_free = free_client_slot
            if upstream.http2 and upstream.tls and leg.alpn != b"h2":
                error = "the upstream does not speak HTTP/2"
            elif not leg.usable:
                error = "the upstream closed the connection at once"
        except (OSError, TimeoutError) as failure:
            is_full = not has_slot or upstream.slots.is_full(ALL) or client.edge.all_slots.is_full(ALL)
            error = NO_SLOT if is_full else f"{type(failure).__name__}: {failure}"
        finally:
            if leg is None and has_slot:
                free_client_slot()
        if error is not None:
            if leg is not None:
                leg.free()
                leg.abort()
            if error != NO_SLOT:
                client.edge.upstream_failed(upstream, address, error)
            command.connection.error = error
            client.http.forget(command.connection)
            client.pump(events.OpenConnectionCompleted(command, error))
        elif leg is not None and client.transport.is_closing():
            leg.free()
            leg.abort()
        elif leg is not None:
            self._connected(command, leg)

    async def _connect(self, upstream: UpstreamPool, address: tuple[str, int]) -> UpstreamConnection:
        """A new connection, which has its places from now on until it is closed. Raises OSError."""
        places = ((upstream.slots, ALL), (self._client.edge.all_slots, ALL))
        taken: list[tuple[Slots, str]] = []
        leg: UpstreamConnection | None = None

        def free() -> None:
            while taken:
                slots, key = taken.pop()
                slots.release(key)

        def make() -> UpstreamConnection:
            nonlocal leg
            leg = UpstreamConnection(upstream, address)
            leg.on_closed = free
            return leg

        try:
            for slots, key in places:
                if not slots.try_acquire(key):
                    upstream.close_one_idle()
                    await slots.acquire(key)
                taken.append((slots, key))
            loop = asyncio.get_running_loop()
            _, connection = await loop.create_connection(
                make, *address, ssl=upstream.context, server_hostname=upstream.server_name
            )
        finally:
            # Without a transport nothing will be closed, and nobody told.
            if leg is None or not hasattr(leg, "transport"):
                free()
        return connection

    def _connected(self, command: commands.OpenConnection, leg: UpstreamConnection) -> None:
        server = command.connection
        leg.owner, leg.server = self._client, server
        server.state = ConnectionState.OPEN
        server.timestamp_start = time.time()
        server.alpn = b"h2" if leg.upstream.http2 else b"http/1.1"
        self._open[server] = leg
        early, leg.early = leg.early, None
        self._client.pump(events.OpenConnectionCompleted(command, None))
        if early and self._open.get(server) is not leg:
            leg.abort()
        elif early:
            self._client.pump(events.DataReceived(server, bytes(early)))

    def release(self, connection: Connection) -> None:
        """Hand a connection back to its pool."""
        self.flush()
        leg = self._open.pop(connection, None)
        self._client.http.forget(connection)
        self._client.turns.forget(connection)
        if leg is None:
            return
        leg.free()
        leg.owner = leg.server = None
        if leg.upstream.slots.has_waiting(ALL) or self._client.edge.all_slots.has_waiting(ALL):
            # Its place is waited for, maybe for another upstream.
            leg.abort()
        elif leg.usable:
            leg.transport.resume_reading()
            leg.upstream.give(leg)

    def cut(self, connection: Connection) -> bool:
        """End a connection that does not keep up, at once; whether it was one.

        What waits to be written is not sent: a cut request must not arrive in full, whenever the upstream reads on.
        """
        leg = self._open.get(connection)
        if leg is None or not leg.writing_paused:
            return False
        connection.state = ConnectionState.CLOSED
        leg.owner = leg.server = None
        leg.abort()
        self.release(connection)
        return True

    def gone(self, server: Server) -> None:
        """An upstream connection has ended."""
        if server not in self._open or self._client.turns.at_end(server, lambda: self.gone(server)):
            return
        server.state = ConnectionState.CLOSED
        self._client.pump(events.ConnectionClosed(server))
        leg = self._open.pop(server, None)
        self._client.http.forget(server)
        if leg is not None:
            leg.free()
            leg.transport.close()

    def balance(self) -> None:
        """Pause reading wherever the receiving side has more than enough waiting."""
        if self._client.transport.is_closing():
            return
        congested: set[Connection] = set()
        http2 = self._client.http.connections.get(self._client.client)
        if isinstance(http2, ClientHttp2) and http2.h2_conn.stream_buffers:
            for stream_id, waiting in http2.backlog().items():
                stream = self._client.http.streams.get(stream_id)
                if stream is not None and waiting > HIGH_BYTES:
                    congested.add(stream.context.server)
        # A client that does not read gets no further answers to its pings and settings either.
        is_http2 = isinstance(http2, ClientHttp2)
        waits = self._client.http.held_back or (is_http2 and self._client.paused_since is not None)
        turns = self._client.turns
        blocked: set[Connection] = set()
        slow: set[Connection] = set()
        memory = self._client.edge.memory
        is_tight = memory.is_tight(self._client)
        unsent = is_tight and memory.usage(self._client).outbound > LOW_BYTES
        for server, leg in self._open.items():
            if self._client.paused_since is not None or server in congested or unsent:
                blocked.add(server)
            if leg.usable:
                if server in blocked or turns.is_busy(server):
                    leg.transport.pause_reading()
                else:
                    leg.transport.resume_reading()
            child = getattr(self._client.http.connections.get(server), "child_layer", None)
            if leg.writing_paused or (
                isinstance(child, UpstreamHttp2) and bool(child.h2_conn.stream_buffers) and child.backlog() > HIGH_BYTES
            ):
                slow.add(server)
        self.uploads_wait = waits or bool(slow)
        # HTTP/2 has a window for each stream; HTTP/1.1 is read no further.
        waits |= not is_http2 and (bool(slow) or is_tight)
        self._client.http.congested, self._client.http.is_full = frozenset(slow), is_tight
        # Who does not read its answers gets no further request begun.
        unread = isinstance(http2, ClientHttp1) and self._client.paused_since is not None and http2.mid_head
        if waits or unread:
            blocked.add(self._client.client)
        input_waits = waits or unread or turns.is_busy(self._client.client)
        if input_waits != self.input_waits:
            self.input_waits = input_waits
            (self._client.transport.pause_reading if input_waits else self._client.transport.resume_reading)()
        turns.block(frozenset(blocked))
        if isinstance(http2, ClientHttp2):
            self._client.say(http2.open_windows())
