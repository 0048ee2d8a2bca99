"""A device's own agent: it shows the device certificate for a browser that has no key store to show it from.

The browser speaks TLS to the agent on loopback, which speaks TLS with the certificate to the gateway. What is inside
passes as it is: to the gateway the browser is on the device.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

from gateway.demo.clients.http import ADDRESS, DeviceFiles, client_context

_CHUNK = 65_536


@contextlib.contextmanager
def agent(gateway_port: int, ca: Path, device: DeviceFiles, server: tuple[Path, Path]) -> Iterator[int]:
    """An agent in a thread of its own, until the block ends: its port on 127.0.0.1.

    `server` are the certificate and key it shows the browser: the gateway's own, for both are on this machine.
    """
    loop = asyncio.new_event_loop()
    started: asyncio.Future[int] = loop.create_future()
    stop = asyncio.Event()
    ready = threading.Event()

    async def serve() -> None:
        outwards = client_context(ca, device)
        outwards.set_alpn_protocols(["http/1.1"])
        inwards = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        inwards.load_cert_chain(*server)
        inwards.set_alpn_protocols(["http/1.1"])
        names: dict[ssl.SSLObject | ssl.SSLSocket, str] = {}
        inwards.sni_callback = lambda connection, name, _: names.__setitem__(connection, name or "")

        async def passing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            name = names.pop(writer.get_extra_info("ssl_object"), "")
            with contextlib.suppress(OSError, ssl.SSLError):
                gateway_writer, back = await asyncio.open_connection(
                    ADDRESS, gateway_port, ssl=outwards, server_hostname=name or None
                )
                await asyncio.gather(_copied(reader, back), _copied(gateway_writer, writer))
            writer.close()

        listening = await asyncio.start_server(passing, ADDRESS, 0, ssl=inwards)
        started.set_result(listening.sockets[0].getsockname()[1])
        ready.set()
        await stop.wait()
        listening.close()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),), name="device-agent", daemon=True)
    thread.start()
    ready.wait()
    try:
        yield started.result()
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()


async def _copied(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Everything from one side to the other, and then its end."""
    try:
        while piece := await reader.read(_CHUNK):
            writer.write(piece)
            await writer.drain()
    finally:
        writer.close()
