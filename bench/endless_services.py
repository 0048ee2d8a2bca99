"""Services that never come to an end: events, a download, an upload that is swallowed, a WebSocket, a gRPC stream.

`python -m bench.endless_services PORT GRPC_PORT`; both on 127.0.0.1, the second speaks HTTP/2.
"""

from __future__ import annotations

import asyncio
import itertools
import sys

import h2.config
import h2.connection
import h2.events
import uvloop
from websockets.utils import accept_key

PACE_S = 0.5
TEXT_FRAME = b"\x81\x04tick"
GRPC_MESSAGE = b"\0\0\0\0\x04tick"
_ANSWERS = {
    b"/events": b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n",
    b"/download": b"HTTP/1.1 200 OK\r\ncontent-length: 1099511627776\r\n\r\n",
}
_PIECES = {b"/events": b"c\r\ndata: tick\n\n\r\n", b"/download": bytes(512), b"/socket": TEXT_FRAME}


async def _http1(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
        path = head.split(b" ", 2)[1]
        if path == b"/socket":
            fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:] if b": " in line)
            key = head.lower().index(b"sec-websocket-key: ") + 19
            accepted = accept_key(head[key : key + len(fields[b"sec-websocket-key"])].decode("ascii"))
            writer.write(
                b"HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n"
                b"sec-websocket-accept: %s\r\n\r\n" % accepted.encode("ascii")
            )
        elif path in _ANSWERS:
            writer.write(_ANSWERS[path])
        elif path == b"/upload":
            while await reader.read(65_536):
                pass
        else:
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
            return
        while path in _PIECES and not writer.is_closing():
            writer.write(_PIECES[path])
            await writer.drain()
            await asyncio.sleep(PACE_S)
    except (OSError, EOFError):
        return
    finally:
        writer.close()


async def _http2(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    wire = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
    wire.initiate_connection()
    writer.write(wire.data_to_send())
    open_streams: set[int] = set()

    async def pour() -> None:
        for _ in itertools.count():
            for stream in open_streams:
                if wire.local_flow_control_window(stream) >= len(GRPC_MESSAGE):
                    wire.send_data(stream, GRPC_MESSAGE)
            writer.write(wire.data_to_send())
            await asyncio.sleep(PACE_S)

    pouring = asyncio.ensure_future(pour())
    try:
        while data := await reader.read(65_536):
            for event in wire.receive_data(data):
                if isinstance(event, h2.events.RequestReceived):
                    wire.send_headers(event.stream_id, [(":status", "200"), ("content-type", "application/grpc")])
                    open_streams.add(event.stream_id)
                elif isinstance(event, h2.events.StreamReset):
                    open_streams.discard(event.stream_id)
            writer.write(wire.data_to_send())
    except OSError:
        return
    finally:
        pouring.cancel()
        writer.close()


async def _main(port: int, grpc_port: int) -> None:
    plain = await asyncio.start_server(_http1, "127.0.0.1", port, backlog=1024)
    grpc = await asyncio.start_server(_http2, "127.0.0.1", grpc_port, backlog=1024)
    await asyncio.gather(plain.serve_forever(), grpc.serve_forever())


if __name__ == "__main__":
    uvloop.run(_main(int(sys.argv[1]), int(sys.argv[2])))
