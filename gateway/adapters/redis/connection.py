"""Connections to Redis, and to the Sentinels that know where it is. The only importer of the redis library.

Laws: whatever the library or the server does wrong is `StoreDown`, and its text holds no argument of a command. The
server proves its name by the configured CA alone, where one is configured.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import ssl
from collections import Counter
from collections.abc import Sequence
from typing import Any

from redis.asyncio.connection import Connection, SSLConnection
from redis.exceptions import RedisError, ResponseError

from gateway.config import SecretText, StateStore, resolve_secret
from gateway.config.models import Secret
from gateway.core.ports.stores import StoreDown

type Command = tuple[bytes | str | int | float, ...]
type Address = tuple[str, int]
_BROKEN = (RedisError, OSError, ValueError, RecursionError)
_RESP = 2


class BadReply:
    """An error that the server answered to one command; `text` says which."""

    def __init__(self, error: ResponseError) -> None:
        self.text = _said(error)


class _Connection(Connection):
    """A connection that can be closed at once: the library's own way lets the end of TLS wait for the peer."""

    _transport: asyncio.WriteTransport | None = None

    async def _connect(self) -> None:
        await super()._connect()  # type: ignore[no-untyped-call]
        if self._writer is not None:
            self._transport = self._writer.transport

    async def hang_up(self) -> None:
        """Close it, whatever state it is in."""
        if self._transport is not None:
            self._transport.abort()
        with contextlib.suppress(*_BROKEN):
            await self.disconnect(nowait=True)


class _TlsConnection(_Connection, SSLConnection):
    """The same over TLS."""


class RedisConnection:
    """One connection to a server, signed in."""

    def __init__(self, connection: _Connection) -> None:
        self._connection = connection

    async def is_clean(self) -> bool:
        """Whether it is open and nothing unasked for has arrived."""
        try:
            return not await self._connection.can_read()
        except _BROKEN:
            return False

    async def exchange(self, commands: Sequence[Command]) -> list[Any]:
        """The reply to every command, in order: None, whole number, bytes, list, `BadReply`. Raises StoreDown."""
        connection = self._connection
        try:
            packed = b"".join(connection.pack_commands(commands))
            await connection.send_packed_command(packed, check_health=False)
            return [await self._reply() for _ in commands]
        except _BROKEN as error:
            raise StoreDown(f"redis: {_said(error)}") from None

    async def message(self) -> Any:
        """The next message of a subscription, however long that takes. Raises StoreDown."""
        try:
            return await self._connection.read_response(disable_decoding=True, timeout=math.inf)
        except _BROKEN as error:
            raise StoreDown(f"redis: {_said(error)}") from None

    async def close(self) -> None:
        """Close it, without waiting for the peer."""
        await self._connection.hang_up()

    async def _reply(self) -> Any:
        try:
            return await self._connection.read_response(disable_decoding=True)
        except ResponseError as error:
            return BadReply(error)


class Dialer:
    """Opens connections as the configuration says. Raises ConfigError, OSError or ValueError for bad files."""

    def __init__(self, settings: StateStore) -> None:
        self._settings = settings
        self._timeout_s = settings.timeout_ms / 1000
        self._password = _resolved(settings.password)
        self._sentinel_password = _resolved(settings.sentinel.password if settings.sentinel else None)
        self._context = _context(settings)

    async def master(self) -> Address:
        """Where the master is: as configured, or as most of all Sentinels say. Raises StoreDown."""
        settings = self._settings
        if settings.sentinel is None:
            return address_of(settings.address or "")
        asked = (self._ask_sentinel(address_of(text)) for text in settings.sentinel.addresses)
        named = Counter([answer for answer in await asyncio.gather(*asked) if answer is not None])
        address, votes = max(named.items(), key=lambda item: item[1], default=(None, 0))
        if address is None or 2 * votes <= len(settings.sentinel.addresses):
            raise StoreDown(f"redis: most Sentinels name no master for {settings.sentinel.name}")
        return address

    async def dial(self, address: Address) -> RedisConnection:
        """A connection to the server at `address`. Raises StoreDown."""
        settings = self._settings
        return await self._open(address, settings.username, self._password, settings.database)

    async def _ask_sentinel(self, address: Address) -> Address | None:
        """What one Sentinel says; None when it cannot be asked in half of the time, or does not know."""
        sentinel = self._settings.sentinel
        if sentinel is None:
            return None
        try:
            async with asyncio.timeout(self._timeout_s / 2):
                wire = await self._open(address, sentinel.username, self._sentinel_password, 0)
                try:
                    [master] = await wire.exchange([("SENTINEL", "GET-MASTER-ADDR-BY-NAME", sentinel.name)])
                finally:
                    await wire.close()
            return master[0].decode("ascii"), int(master[1])
        except (StoreDown, TimeoutError, ValueError, TypeError, IndexError):
            return None

    async def _open(
        self, address: Address, username: str | None, password: SecretText | None, database: int
    ) -> RedisConnection:
        kind = _Connection if self._context is None else _TlsConnection
        connection = kind(
            host=address[0],
            port=address[1],
            db=database,
            username=username,
            password=password.reveal() if password is not None else None,
            socket_timeout=None,
            socket_connect_timeout=self._timeout_s,
            protocol=_RESP,
            driver_info=None,
        )
        if isinstance(connection, _TlsConnection):
            connection.ssl_context.context = self._context
        async with contextlib.AsyncExitStack() as undo:
            undo.push_async_callback(connection.hang_up)
            try:
                await connection.connect()  # type: ignore[no-untyped-call]
            except _BROKEN as error:
                raise StoreDown(f"redis: {_said(error)}") from None
            undo.pop_all()
        return RedisConnection(connection)


def address_of(text: str) -> Address:
    """Host and port of `host:port`. Raises ValueError."""
    host, _, port = text.rpartition(":")
    return host.strip("[]"), int(port)


def _resolved(secret: Secret | None) -> SecretText | None:
    return resolve_secret(secret) if secret is not None else None


def _context(settings: StateStore) -> ssl.SSLContext | None:
    tls = settings.tls
    if tls is None:
        return None
    context = ssl.create_default_context(cafile=tls.ca)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if tls.certificate is not None:
        context.load_cert_chain(tls.certificate, tls.key)
    return context


def _said(error: BaseException) -> str:
    """The error's kind and the start of its text; a server quotes the arguments of a command after "with args"."""
    text = str(error).partition(", with args")[0].partition(" script: ")[0]
    return f"{type(error).__name__} {text[:120]}".rstrip(" .")
