"""The service behind every proxy here: as little as HTTP/1.1 can be. `/bytes/N` sends N bytes, all else two.

`python -m bench.upstream PORT`
"""

from __future__ import annotations

import asyncio
import sys
from typing import cast

import uvloop

_SMALL = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 2\r\n\r\nok"
_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/octet-stream\r\ncontent-length: %d\r\n\r\n"
_BLOCK = bytes(262_144)


class Service(asyncio.Protocol):
    """One connection."""

    def __init__(self) -> None:
        self._received = b""
        self._left = 0
        self._paused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A proxy has connected."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Requests without a body, one after the other."""
        self._received += data
        while b"\r\n\r\n" in self._received:
            head, _, self._received = self._received.partition(b"\r\n\r\n")
            path = head.split(b" ", 2)[1]
            if path.startswith(b"/bytes/"):
                self._left = int(path[7:])
                self._transport.write(_HEAD % self._left)
                self._pour()
            else:
                self._transport.write(_SMALL)

    def _pour(self) -> None:
        while self._left and not self._paused:
            block = _BLOCK[: self._left]
            self._left -= len(block)
            self._transport.write(block)

    def pause_writing(self) -> None:
        """The proxy does not keep up."""
        self._paused = True

    def resume_writing(self) -> None:
        """The proxy keeps up again."""
        self._paused = False
        self._pour()


async def _main(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Service, "127.0.0.1", port, backlog=1024)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_main(int(sys.argv[1])))
