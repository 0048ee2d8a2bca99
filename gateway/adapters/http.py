"""HTTP out, over httpx: bounded in time, size and connections; no redirects, no cookies, no proxies by environment.

Compressed answers are not asked for. What comes in gzip or deflate all the same is unfolded, as far as the size limit
goes; no more than that is ever held.
"""

from __future__ import annotations

import asyncio
import ssl
import zlib
from collections.abc import Mapping
from http.cookiejar import CookieJar, DefaultCookiePolicy
from pathlib import Path
from types import MappingProxyType
from typing import Any

import httpx

from gateway.core.ports.http import HttpAnswer, Unreachable

_HEADERS = {"accept": "application/json", "accept-encoding": "identity", "user-agent": "zero-trust-gateway"}


_CODINGS = frozenset({"identity", "gzip", "x-gzip", "deflate"})
_GZIP_OR_ZLIB = 47  # zlib reads which of both it is


class HttpxClient:
    """A `HttpClient`. `timeout_s` bounds a whole exchange, waiting for a free connection included.

    `ca` (PEM) replaces the system's certificate authorities. Raises OSError or ssl.SSLError for a `ca` that cannot be
    read. Create and use it on one event loop.
    """

    def __init__(
        self,
        *,
        ca: Path | None = None,
        timeout_s: float = 5.0,
        limit_bytes: int = 1 << 20,
        connections: int = 32,
        user_agent: str = _HEADERS["user-agent"],
    ) -> None:
        context = ssl.create_default_context(cafile=str(ca) if ca is not None else None)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        self._timeout_s = timeout_s
        self._limit_bytes = limit_bytes
        self._client = httpx.AsyncClient(
            verify=context,
            trust_env=False,
            follow_redirects=False,
            timeout=timeout_s,
            limits=httpx.Limits(max_connections=connections, max_keepalive_connections=4, keepalive_expiry=20),
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
            headers=_HEADERS | {"user-agent": user_agent},
        )

    async def get(self, url: str, headers: Mapping[str, str] | None = None) -> HttpAnswer:
        """The answer, whatever its status. Raises `Unreachable`."""
        return await self._ask("GET", url, None, headers)

    async def post_form(
        self, url: str, form: Mapping[str, str], headers: Mapping[str, str] | None = None
    ) -> HttpAnswer:
        """The answer to a form, whatever its status. Raises `Unreachable`."""
        return await self._ask("POST", url, form, headers)

    async def send_json(
        self, method: str, url: str, value: Mapping[str, Any] | None, headers: Mapping[str, str] | None = None
    ) -> HttpAnswer:
        """The answer to a JSON body, None for no body, whatever its status. Raises `Unreachable`."""
        return await self._ask(method, url, None, headers, value)

    async def post_bytes(self, url: str, content: bytes, headers: Mapping[str, str]) -> HttpAnswer:
        """The answer to a body as it is, whatever its status. Raises `Unreachable`."""
        return await self._ask("POST", url, None, headers, content=content)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def _ask(
        self,
        method: str,
        url: str,
        form: Mapping[str, str] | None,
        headers: Mapping[str, str] | None,
        value: Mapping[str, Any] | None = None,
        content: bytes | None = None,
    ) -> HttpAnswer:
        try:
            # httpx bounds each read; only the outer timeout bounds an answer that trickles.
            async with (
                asyncio.timeout(self._timeout_s),
                self._client.stream(method, url, data=form, json=value, content=content, headers=headers) as answer,
            ):
                body = await self._body(answer)
                return HttpAnswer(answer.status_code, MappingProxyType(dict(answer.headers)), body)
        except TimeoutError:
            raise Unreachable("no answer in time") from None
        # RuntimeError: the client was closed, as on a reload. The texts may quote what was sent: only kinds are told.
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, OSError, ValueError, RuntimeError) as error:
            raise Unreachable(type(error).__name__) from None

    async def _body(self, answer: httpx.Response) -> bytes:
        coding = answer.headers.get("content-encoding", "identity").strip().lower()
        if coding not in _CODINGS:
            raise Unreachable("an answer in a coding that nobody asked for")
        body, wire_bytes = bytearray(), 0
        unfolding = None if coding == "identity" else zlib.decompressobj(_GZIP_OR_ZLIB)
        async for chunk in answer.aiter_raw():
            wire_bytes += len(chunk)
            try:
                body += chunk if unfolding is None else unfolding.decompress(chunk, self._limit_bytes + 1 - len(body))
            except zlib.error:
                raise Unreachable("a compressed answer that cannot be read") from None
            if max(len(body), wire_bytes) > self._limit_bytes:
                raise Unreachable("an answer that is too large")
        if unfolding is not None and not unfolding.eof:
            raise Unreachable("a compressed answer that breaks off")
        return bytes(body)
