from __future__ import annotations

import asyncio
import gzip
import ssl
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gateway.adapters.http import HttpxClient
from gateway.core.ports.http import Unreachable

Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], object]


@asynccontextmanager
async def speaking(*chunks: bytes, pause_s: float = 0, seen: list[bytes] | None = None) -> AsyncIterator[str]:
    """A server on loopback that answers each connection with these bytes, whatever it is asked."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if seen is not None:
            seen.append(head)
        try:
            for chunk in chunks:
                writer.write(chunk)
                await writer.drain()
                await asyncio.sleep(pause_s)
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@asynccontextmanager
async def client(**options: object) -> AsyncIterator[HttpxClient]:
    made = HttpxClient(**({"timeout_s": 0.5} | options))  # type: ignore[arg-type]
    try:
        yield made
    finally:
        await made.close()


def ok(body: bytes, *extra: str) -> bytes:
    fields = "".join(f"{line}\r\n" for line in extra)
    return f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n{fields}\r\n".encode() + body


async def test_an_answer_is_handed_over_whole() -> None:
    seen: list[bytes] = []
    async with speaking(ok(b"{}", "Cache-Control: max-age=5"), seen=seen) as url, client() as http:
        answer = await http.get(f"{url}/x", {"x-a": "b"})
    assert (answer.status, answer.headers["cache-control"], answer.body) == (200, "max-age=5", b"{}")
    assert b"x-a: b" in seen[0]
    assert b"accept-encoding: identity" in seen[0].lower()


async def test_a_form_is_sent_as_a_form() -> None:
    seen: list[bytes] = []
    async with speaking(ok(b""), seen=seen) as url, client() as http:
        assert (await http.post_form(url, {"token": "a b&c"})).status == 200
    assert b"application/x-www-form-urlencoded" in seen[0].lower()


async def test_no_redirect_is_followed_and_no_cookie_is_kept() -> None:
    seen: list[bytes] = []
    moved = b"HTTP/1.1 302 Found\r\nLocation: /x\r\nSet-Cookie: a=b; Path=/\r\nContent-Length: 0\r\n\r\n"
    async with speaking(moved, seen=seen) as url, client() as http:
        for _ in range(2):
            assert (await http.get(url)).status == 302
    assert len(seen) == 2
    assert b"cookie" not in b"".join(seen).lower()


@pytest.mark.parametrize(
    "chunks",
    [
        (b"",),
        (b"nonsense\r\n\r\n",),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort",),
        (ok(b"x" * 2_000),),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n400\r\n" + b"x" * 1024 + b"\r\n1\r\nx\r\n0\r\n\r\n",),
        (ok(gzip.compress(b"x" * 100_000), "Content-Encoding: gzip"),),
    ],
    ids=["nothing", "no HTTP", "cut short", "too large", "too large in chunks", "compressed"],
)
async def test_no_usable_answer_is_unreachable(chunks: tuple[bytes, ...]) -> None:
    async with speaking(*chunks) as url, client(limit_bytes=1024) as http:
        with pytest.raises(Unreachable):
            await http.get(url)


@pytest.mark.parametrize("coding", ["gzip", "x-gzip", "deflate", "GZIP"])
async def test_a_compressed_answer_is_read_as_far_as_the_limit_goes(coding: str) -> None:
    folded = zlib.compress(b"x" * 1024) if coding == "deflate" else gzip.compress(b"x" * 1024)
    async with speaking(ok(folded, f"Content-Encoding: {coding}")) as url, client(limit_bytes=1024) as http:
        assert (await http.get(url)).body == b"x" * 1024


@pytest.mark.parametrize(
    ("body", "coding"),
    [
        (gzip.compress(b"x" * 1025), "gzip"),
        (gzip.compress(b"x" * 100)[:-4], "gzip"),
        (b"{}", "gzip"),
        (b"{}", "br"),
        (gzip.compress(gzip.compress(b"x")), "gzip, gzip"),
    ],
    ids=["too large", "cut short", "not compressed", "another coding", "twice"],
)
async def test_a_compressed_answer_that_cannot_be_trusted_is_none(body: bytes, coding: str) -> None:
    async with speaking(ok(body, f"Content-Encoding: {coding}")) as url, client(limit_bytes=1024) as http:
        with pytest.raises(Unreachable):
            await http.get(url)


async def test_an_answer_that_trickles_is_cut() -> None:
    started = asyncio.get_running_loop().time()
    async with speaking(*[ok(b"x" * 100)[:-100], *[b"x"] * 100], pause_s=0.05) as url, client() as http:
        with pytest.raises(Unreachable, match="in time"):
            await http.get(url)
    assert asyncio.get_running_loop().time() - started < 2


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:1/", "ftp://127.0.0.1/", "http://", "no url", "http://[::1", "http://a b/"]
)
async def test_an_address_that_does_not_answer_is_unreachable_and_not_quoted(url: str) -> None:
    async with client() as http:
        with pytest.raises(Unreachable) as failure:
            await http.post_form(url, {"token": "hunter2"})
    assert "hunter2" not in repr(failure.value)
    assert failure.value.__cause__ is None


def test_a_ca_that_cannot_be_read_is_an_error_at_once(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("nothing")
    for path in (tmp_path / "ca.pem", tmp_path / "missing.pem"):
        with pytest.raises((OSError, ssl.SSLError)):
            HttpxClient(ca=path)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
async def test_a_json_body_is_sent_with_any_method(method: str) -> None:
    seen: list[bytes] = []
    async with speaking(ok(b"{}"), seen=seen) as url, client() as http:
        answer = await http.send_json(method, f"{url}/x", {}, {"authorization": "Bearer t"})
    assert answer.body == b"{}"
    assert seen[0].startswith(f"{method} /x ".encode())
    assert b"content-type: application/json" in seen[0].lower()
    assert b"content-length: 2" in seen[0].lower()


async def test_no_json_body_is_no_body() -> None:
    seen: list[bytes] = []
    async with speaking(ok(b"{}"), seen=seen) as url, client() as http:
        await http.send_json("GET", f"{url}/x", None)
    assert b"content-type" not in seen[0].lower()
