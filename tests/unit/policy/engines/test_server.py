from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from gateway.core.decision import Decision
from gateway.core.ports.pipeline import EngineFailure
from gateway.core.reasons import Refusal
from gateway.observability import log
from gateway.policy.bundle.loader import load
from gateway.policy.bundle.model import Bundle
from gateway.policy.decider import Decider
from gateway.policy.engines.opa_library import library
from gateway.policy.engines.server import OpaEngine

DEADLINE_S = 0.2
YES = {"result": {"effect": "allow", "reasons": ["policy_ok"]}}


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    (tmp_path / "authz.rego").write_text("package gateway.authz\n\ndecision := input.x\n")
    return load(tmp_path, {})


def http(status: str, body: bytes, kind: str = "application/json") -> bytes:
    head = f"HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


class Server:
    """An HTTP server on loopback that says what it is told, or nothing at all."""

    def __init__(self, answer: Callable[[bytes], bytes | None]) -> None:
        self.answer = answer
        self.requests: list[bytes] = []
        self.url = ""
        self.version = library().opa_version

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0] or 0)
                request = head + await reader.readexactly(length)
                if request.startswith(b"POST /v1/data/system/version"):
                    answer: bytes | None = http(
                        "200 OK", json.dumps({"provenance": {"version": self.version}}).encode()
                    )
                else:
                    self.requests.append(request)
                    answer = self.answer(request)
                if answer is None:
                    await asyncio.sleep(30)
                writer.write(answer or b"")
                await writer.drain()
                if not answer:
                    break
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def served(answer: Callable[[bytes], bytes | None]) -> AsyncIterator[Server]:
    fake = Server(answer)
    tasks: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.ensure_future(fake.handle(reader, writer)))

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    fake.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield fake
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.wait_closed()


async def decide(url: str, bundle: Bundle, token: str | None = None) -> Decision | Refusal:
    engine = OpaEngine(bundle, url, push=False, token=token)
    await engine.start()
    try:
        return await Decider(engine, DEADLINE_S).decide({"x": 1})
    finally:
        await engine.close()


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (http("200 OK", b"{}"), "policy_undefined"),
        (http("200 OK", b'{"result": null}'), "policy_undefined"),
        (http("200 OK", b'{"result": true}'), "policy_malformed"),
        (http("200 OK", b'{"result": {"effect": "allow"}}'), "policy_malformed"),
        (http("200 OK", b"[]"), "policy_malformed"),
        (http("200 OK", b"allow"), "policy_malformed"),
        (http("200 OK", b"\xff\xfe"), "policy_malformed"),
        (http("200 OK", b"{}", "text/html"), "policy_malformed"),
        (http("500 Internal Server Error", b'{"code": "internal_error"}'), "policy_error"),
        (http("401 Unauthorized", b"{}"), "policy_unavailable"),
        (http("404 Not Found", b"{}"), "policy_unavailable"),
        (http("503 Service Unavailable", b"{}"), "policy_unavailable"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\ncontent-type: application/json\r\n\r\n{", "policy_timeout"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "policy_unavailable"),
        (b"", "policy_unavailable"),
        (None, "policy_timeout"),
    ],
)
async def test_whatever_the_server_does_wrong_is_a_refusal(answer: bytes | None, reason: str, bundle: Bundle) -> None:
    async with served(lambda _: answer) as server:
        started = asyncio.get_running_loop().time()
        found = await decide(server.url, bundle)
        assert isinstance(found, Refusal)
        assert found.reason == reason
        assert asyncio.get_running_loop().time() - started < DEADLINE_S + 1


async def test_an_unreachable_server_is_a_refusal(bundle: Bundle) -> None:
    async with served(lambda _: None) as server:
        url = server.url
    found = await decide(url, bundle)
    assert isinstance(found, Refusal)
    assert found.reason == "policy_unavailable"


async def test_a_push_to_an_unreachable_server_fails(bundle: Bundle) -> None:
    async with served(lambda _: None) as server:
        url = server.url
    engine = OpaEngine(bundle, url)
    with pytest.raises(EngineFailure, match="policy_unavailable"):
        await engine.start()
    await engine.close()


async def test_a_connection_that_was_closed_while_idle_is_opened_again(bundle: Bundle) -> None:
    answers = iter([b"", http("200 OK", json.dumps(YES).encode())])
    async with served(lambda _: next(answers)) as server:
        assert isinstance(await decide(server.url, bundle), Decision)
        assert len(server.requests) == 2


async def test_the_query_asks_for_strict_errors_and_carries_the_token_and_the_input(bundle: Bundle) -> None:
    async with served(lambda _: http("200 OK", json.dumps(YES).encode())) as server:
        assert isinstance(await decide(server.url, bundle, "canary-7"), Decision)
    head, _, body = server.requests[0].partition(b"\r\n\r\n")
    assert head.startswith(b"POST /v1/data/gateway/authz/decision?strict-builtin-errors=True")
    assert b"authorization: bearer canary-7" in head.lower()
    assert json.loads(body) == {"input": {"x": 1}}


async def test_the_version_is_the_revision_that_opa_answered_with(bundle: Bundle) -> None:
    body = {**YES, "provenance": {"bundles": {"b": {"revision": "r2"}, "a": {"revision": "r1"}}}}
    async with served(lambda _: http("200 OK", json.dumps(body).encode())) as server:
        engine = OpaEngine(bundle, server.url, push=False)
        await engine.start()
        assert engine.version == ""
        await engine.evaluate({})
        assert engine.version == "r1,r2"
        await engine.close()


async def test_a_document_that_is_no_json_never_leaves(bundle: Bundle) -> None:
    async with served(lambda _: http("200 OK", json.dumps(YES).encode())) as server:
        engine = OpaEngine(bundle, server.url, push=False)
        await engine.start()
        found = await Decider(engine, DEADLINE_S).decide({"x": float("nan")})
        await engine.close()
    assert isinstance(found, Refusal)
    assert found.reason == "policy_error"
    assert server.requests == []


@pytest.mark.parametrize("url", ["", "opa:8181", "ftp://opa", "http://", "http://opa/v1", "http://opa?x=1"])
def test_an_address_that_is_not_one_is_refused(url: str, bundle: Bundle) -> None:
    with pytest.raises(ValueError, match="address"):
        OpaEngine(bundle, url)


@pytest.mark.parametrize(("version", "differs"), [("", True), ("0.70.0", True), (None, False)])
async def test_a_server_of_another_version_is_told_at_start(
    version: str | None, differs: bool, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = list[tuple[str, str]]()
    monkeypatch.setattr(
        log, "get", lambda name: SimpleNamespace(warning=lambda event, problem: told.append((event, problem)))
    )
    async with served(lambda _: http("200 OK", json.dumps(YES).encode())) as server:
        server.version = server.version if version is None else version
        await decide(server.url, bundle)
    assert [event for event, _ in told] == ["opa_version_differs"] * differs
    assert all(library().opa_version in problem for _, problem in told)
