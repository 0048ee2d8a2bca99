"""One pipeline, several edges, the same verdict: a third edge in memory serves the demo beside the real gateway.

The generation is the demo's own (its configuration, state, policies, provider and services); only the edge is another.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import json
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
import pytest_asyncio
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from prometheus_client import values

from gateway.config import load
from gateway.core import paths
from gateway.core.capabilities import ALL_HEADS, EdgeCapabilities
from gateway.core.decision import Decision, Obligation
from gateway.core.request import Peer, RawRequest
from gateway.core.routes import Route
from gateway.demo.clients import http as client
from gateway.demo.tour import attacks
from gateway.demo.world import DIRECTORY, ECHO, GATEWAY, PORTAL, World
from gateway.observability.metrics import Metrics, use_directory
from gateway.pipeline.reevaluation import ContinuousEvaluation
from gateway.wiring import Generation, ProcessResources
from tests.e2e.test_body_obligations import PLUGINS
from tests.support.edge_world import HOST, Ports
from tests.support.memory_edge import CAPABILITIES, Cut, MemoryEdge, MemoryResponse

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.timeout(180),
    pytest.mark.xdist_group("processes"),
]

BODIES = """\
# Bodies in both directions, streamed and whole.
package gateway.authz

obligations contains {"kind": "redact_text", "patterns": ["iban"], "texts": ["Engineering"]} if {
	input.service.name == "directory"
	input.request.path[0] == "export"
}

obligations contains {"kind": "require_json_body", "max_depth": 3, "max_bytes": 1000} if {
	input.service.name == "echo"
	input.request.method == "PUT"
}
"""
JSON = {"content-type": "application/json"}
PAGE = {"accept": "text/html", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
# What differs between two answers to the same request, whatever the edge.
VOLATILE = frozenset({"date", "server", "x-gateway-decision", "connection", "transfer-encoding", "content-length"})


@dataclass(frozen=True)
class Case:
    """A request of the demo and the status and reason that both edges must give."""

    name: str
    status: int
    host: str = DIRECTORY
    target: str = "/people"
    user: str | None = "alice"
    kind: str = "jwt"
    method: str = "GET"
    reason: str | None = None
    device: bool = True
    headers: Any = None
    body: bytes = b""


CASES = [
    Case("everybody", 200),
    Case("the page", 200, target="/"),
    Case("a person as an administrator", 200, target="/people/1"),
    Case("a person whose fields are masked as a whole body", 200, target="/people/1", user="bob"),
    Case("nobody of this number", 404, target="/people/9999"),
    Case("a note", 201, target="/people/2/note", method="POST", body=b"a note"),
    Case("an export that is redacted as it streams", 200, target="/export"),
    Case("an export of a form", 200, target="/export", method="POST", body=b"department=finance"),
    Case("a head", 200, method="HEAD", target="/export"),
    Case("no token", 401, user=None, reason="login_required"),
    Case("no token, a page", 302, user=None, reason="login_required", headers=PAGE),
    Case("no device", 403, device=False, reason="device_required"),
    Case("an expired token", 401, kind="expired", reason="token_expired"),
    Case("another department", 403, user="carol", reason="department_mismatch"),
    Case("another role", 403, user="dave", reason="role_missing"),
    Case("a password alone", 401, user="erin", reason="mfa_required"),
    Case("no service", 404, host=GATEWAY, reason="route_not_found"),
    Case("spoofed headers", 200, host=ECHO, target="/headers", headers=attacks.SPOOFED),
    Case("an upload", 200, host=ECHO, target="/echo", method="POST", body=b"x" * 100_000),
    Case("a JSON body, whole", 200, host=ECHO, target="/echo", method="PUT", headers=JSON, body=b"[1]"),
    Case(
        "a JSON body that is none", 400, host=ECHO, target="/echo", method="PUT", headers=JSON, body=b"{",
        reason="body_invalid",
    ),
    Case("events", 200, host=ECHO, target="/sse"),
    Case("a download", 200, host=ECHO, target="/big?mib=2"),
    Case("the public side", 200, host=PORTAL, target="/headers", user=None, device=False),
    Case("the keys", 200, host=GATEWAY, target=paths.JWKS, user=None, device=False, reason="local"),
    Case("the CRL", 200, host=GATEWAY, target=paths.CRL, user=None, device=False, reason="local"),
    Case("no own path", 404, host=GATEWAY, target="/.gateway/nothing", user=None, reason="route_not_found"),
    Case(
        "a bad enrolment", 400, host=GATEWAY, target=paths.ENROL, method="POST", user=None, device=False,
        headers=JSON, body=b'{"token":"none","csr":"none"}', reason="csr_malformed",
    ),
    *(Case(f"a path trick {path}", 400, host=ECHO, target=path, reason="malformed_request") for path in attacks.PATHS),
]  # fmt: skip


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    """The demo with its gateway, and with policies about bodies."""
    with World() as demo:
        demo.start()
        before = demo.policy_version()
        (demo.policies / "gateway" / "bodies.rego").write_text(BODIES, encoding="utf-8")
        until = time.monotonic() + 20
        while demo.policy_version() == before and time.monotonic() < until:
            time.sleep(0.1)
        assert demo.policy_version() != before
        yield demo


@pytest.fixture(scope="module")
def device(world: World) -> client.DeviceFiles:
    """An enrolled laptop."""
    _, token = world.add_device("laptop", "alice")
    answer, files = client.enrol(world.port, world.pki.root, token, world.folder / "laptop")
    assert files is not None, answer.text
    return files


class Tokens:
    """One access token for each person, as a program keeps it."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.issued: dict[tuple[str, str], str] = {}

    def of(self, user: str | None, kind: str = "jwt") -> str | None:
        if user is None:
            return None
        if (user, kind) not in self.issued:
            self.issued[user, kind] = self.world.token(user, kind)
        return self.issued[user, kind]


@pytest.fixture(scope="module")
def tokens(world: World) -> Tokens:
    return Tokens(world)


@pytest.fixture(scope="module")
def ja4(world: World, device: client.DeviceFiles) -> str:
    """The TLS fingerprint of the client that the real gateway hears: another one would be another program."""
    through_the_gateway(world, device, Case("", 401, user=None), None)
    record = (world.folder / "state" / "decisions.jsonl").read_text(encoding="ascii").splitlines()
    return str(json.loads(record[-1])["ja4"])


class Side:
    """The demo's generation behind the edge in memory."""

    def __init__(self, world: World, ja4: str, generation: Generation, shared: ProcessResources) -> None:
        self.world, self.ja4, self.shared = world, ja4, shared
        urls = {"directory": world.directory_url, "echo": world.echo_url, "portal": world.echo_url}
        self.upstreams = {name: httpx.AsyncClient(base_url=url, trust_env=False) for name, url in urls.items()}
        self.edge = MemoryEdge(generation, self.upstreams)
        certificates = x509.load_pem_x509_certificates((world.folder / "laptop" / "device.pem").read_bytes())
        self.chain = tuple(certificate.public_bytes(Encoding.DER) for certificate in certificates)

    def peer(self, host: str, *, device: bool = True) -> Peer:
        chain = self.chain if device else ()
        digest = base64.urlsafe_b64encode(hashlib.sha256(chain[0]).digest()).rstrip(b"=").decode() if chain else ""
        return Peer("127.0.0.1", 40_000, chain, digest, host, "http/1.1", self.ja4, self.world.port)

    async def send(self, case: Case, token: str | None) -> MemoryResponse:
        pieces = [case.body[at : at + 4_096] for at in range(0, len(case.body), 4_096)]
        headers = [(name.encode(), value.encode()) for name, value in fields_of(case, token)]
        host = (b"host", f"{case.host}:{self.world.port}".encode())
        raw = RawRequest(case.method.encode(), b"", case.target.encode(), [host, *headers], "1.1", not case.body)
        return await self.edge.send(raw, self.peer(case.host, device=case.device), pieces)


def fields_of(case: Case, token: str | None) -> list[tuple[str, str]]:
    given = case.headers.items() if isinstance(case.headers, dict) else case.headers or ()
    length = [("content-length", str(len(case.body)))] if case.body else []
    return [*given, *length, *([("authorization", f"Bearer {token}")] if token else [])]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def side(world: World, ja4: str) -> AsyncIterator[Side]:
    """A second generation of the demo's configuration, in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(values, "ValueClass", values.ValueClass)
        patch.setenv("PROMETHEUS_MULTIPROC_DIR", "")
        use_directory(world.folder / "metrics-beside", fresh=True)
        config = load(world.config)
        async with contextlib.AsyncExitStack() as undo:
            shared = await ProcessResources.open(config, Metrics(edge="memory"))
            undo.push_async_callback(shared.close)
            generation = await Generation.build(config, shared)
            undo.push_async_callback(generation.close)
            beside = Side(world, ja4, generation, shared)
            for upstream in beside.upstreams.values():
                undo.push_async_callback(upstream.aclose)
            yield beside
        values.close_all_multiprocess_files()


def through_the_gateway(
    world: World, device: client.DeviceFiles, case: Case, token: str | None
) -> tuple[int, dict[str, str], bytes]:
    """The answer of the real gateway process, written byte by byte as the case has it."""
    context = client.client_context(world.pki.root, device if case.device else None)
    lines = [f"{case.method} {case.target} HTTP/1.1", f"Host: {case.host}:{world.port}", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in fields_of(case, token)]
    text = "\r\n".join([*lines, "", ""]).encode("latin-1")
    answer = client.raw(world.port, case.host, context, text + case.body)
    head, _, body = answer.partition(b"\r\n\r\n")
    status, *fields = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in fields)}
    if headers.get("transfer-encoding") == "chunked":
        body = dechunked(body)
    return int(status.split(" ")[1]), headers, body


def dechunked(body: bytes) -> bytes:
    parts = []
    while body:
        size, _, body = body.partition(b"\r\n")
        parts.append(body[: int(size, 16)])
        body = body[int(size, 16) + 2 :]
    return b"".join(parts)


def same(body: bytes, decision: str) -> Any:
    """A body without what is made anew for every request."""
    text = body.replace(decision.encode(), b"DECISION") if decision else body
    try:
        document = json.loads(text)
    except ValueError:
        return text
    if isinstance(document, dict) and "headers" in document:
        anew = {"x-gateway-jwt-assertion", "x-gateway-decision", "accept-encoding", "connection"}
        document["headers"] = sorted(item for item in document["headers"] if item[0] not in anew)
    if isinstance(document, dict):
        document.pop("notes", None)
    return document


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name.replace(" ", "_"))
async def test_both_edges_give_the_same_answer(
    case: Case, side: Side, world: World, device: client.DeviceFiles, tokens: Tokens
) -> None:
    token = tokens.of(case.user, case.kind)
    status, headers, body = await asyncio.to_thread(through_the_gateway, world, device, case, token)
    response = await side.send(case, token)
    read = await response.read()
    assert (response.status, response.header("x-gateway-reason")) == (case.status, case.reason)
    assert (status, headers.get("x-gateway-reason")) == (case.status, case.reason)
    ours = {name: value for name, value in response.headers if name not in VOLATILE | {"location", "set-cookie"}}
    theirs = {name: value for name, value in headers.items() if name not in VOLATILE | {"location", "set-cookie"}}
    assert ours == theirs
    if case.method != "HEAD":
        assert same(read, response.header("x-gateway-decision") or "") == same(
            body, headers.get("x-gateway-decision", "")
        )
    assert side.edge.open_requests() == []


async def test_bodies_are_transformed_whole_and_streamed_in_this_edge_too(side: Side, tokens: Tokens) -> None:
    masked = json.loads(await (await side.send(Case("", 200, target="/people/1"), tokens.of("bob"))).read())
    assert masked["salary_account"].startswith("***")
    export = await (await side.send(Case("", 200, target="/export"), tokens.of("alice"))).read()
    assert b"name;department" in export
    assert b"Engineering" not in export


async def test_an_open_request_of_this_edge_is_judged_again_and_cut(side: Side, tokens: Tokens) -> None:
    response = await side.send(Case("", 200, host=ECHO, target="/big?mib=64"), tokens.of("bob"))
    await anext(response.pieces)
    [request] = side.edge.open_requests()
    watch = ContinuousEvaluation(side.edge, side.shared.store)
    following = asyncio.ensure_future(watch.follow_changes())
    await asyncio.sleep(0.1)
    session = request.verdict.session  # type: ignore[union-attr]
    assert session is not None
    await side.shared.store.revoke_session(session.id, time.time(), "test")
    started = time.monotonic()
    with pytest.raises(Cut, match="session_revoked"):
        async for _ in response.pieces:
            await asyncio.sleep(0.001)
    assert time.monotonic() - started < 5
    assert (side.edge.cuts, side.edge.open_requests()) == (["session_revoked"], [])
    following.cancel()


# ---- streams, without the demo ----


def edge_under(
    *obligations: Obligation, capabilities: EdgeCapabilities = CAPABILITIES
) -> tuple[MemoryEdge, list[bytes]]:
    """An edge that demands these of every request; its service echoes in lower case. And what the service got."""
    ports, arrived = Ports(), []
    ports.decision = Decision("allow", ("policy_ok",), obligations)

    async def service(request: httpx.Request) -> httpx.Response:
        arrived.append(await request.aread())
        return httpx.Response(
            200, headers={"etag": '"1"', "content-type": "text/plain"}, content=pieces_of(arrived[-1])
        )

    async def pieces_of(body: bytes) -> AsyncIterator[bytes]:
        yield body.lower()[:3]
        yield body.lower()[3:]

    route = Route("svc", HOST, upstream="svc", device_required=False, body_limit_bytes=20)
    serving = SimpleNamespace(pipeline=ports.pipeline([route], obligations=PLUGINS), endpoints=None)
    upstream = httpx.AsyncClient(transport=httpx.MockTransport(service), base_url="http://svc.internal")
    return MemoryEdge(serving, {"svc": upstream}, capabilities), arrived


async def post(edge: MemoryEdge, *body: bytes) -> MemoryResponse:
    headers = [(b"host", HOST.encode()), (b"authorization", b"Bearer good")]
    return await edge.send(
        RawRequest(b"POST", b"", b"/", headers, "1.1", not body), Peer("127.0.0.1", 1, sni=HOST), body
    )


SHOUT = [Obligation("shout_request", {}), Obligation("shout_response", {})]


async def test_bodies_are_transformed_as_they_stream_in_both_directions() -> None:
    edge, arrived = edge_under(*SHOUT)
    response = await post(edge, b"abc", b"def")
    assert await response.read() == b"ABCDEF.."
    assert arrived == [b"ABCDEF."]
    assert response.header("etag") is None


@pytest.mark.parametrize(("body", "reason"), [(b"a?b", "body_invalid"), (b"a!b", "obligation_failed")])
async def test_a_request_whose_transform_refuses_is_never_sent_whole(body: bytes, reason: str) -> None:
    edge, arrived = edge_under(SHOUT[0])
    response = await post(edge, b"ok", body)
    assert (response.header("x-gateway-reason"), arrived) == (reason, [])


async def test_a_response_whose_transform_refuses_is_cut() -> None:
    edge, _ = edge_under(SHOUT[1])
    response = await post(edge, b"abc", b"de?")
    with pytest.raises(Cut, match="body_invalid"):
        await response.read()
    assert edge.open_requests() == []


async def test_a_body_over_the_routes_limit_is_refused() -> None:
    edge, _ = edge_under()
    assert (await post(edge, b"x" * 15, b"x" * 15)).header("x-gateway-reason") == "body_too_large"


async def test_an_edge_that_can_do_less_is_told_so_before_anything_is_sent() -> None:
    edge, arrived = edge_under(*SHOUT, capabilities=EdgeCapabilities("heads", ALL_HEADS))
    response = await post(edge, b"abc")
    assert (response.header("x-gateway-reason"), arrived) == ("obligation_unsupported", [])
