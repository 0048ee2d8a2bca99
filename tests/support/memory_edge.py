"""A third edge, in this process: requests are values, upstreams are httpx clients, a response is read piece by piece.

It translates and decides nothing: judge, answer, reevaluate, the body transforms and the response's rules are the
pipeline's. What a further edge needs stands here, without TLS and HTTP framing.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Iterable, Mapping, Sequence
from contextlib import aclosing
from typing import Any, Protocol

import httpx

from gateway.core.capabilities import ALL_BODIES, ALL_HEADS, EdgeCapabilities
from gateway.core.reasons import Refusal
from gateway.core.request import Peer, RawRequest
from gateway.obligations.body import OpenBody
from gateway.pipeline.bodies import open_request_body, transform_whole, with_new_body
from gateway.pipeline.headers import Forward
from gateway.pipeline.interaction import LocalEndpoints, answer
from gateway.pipeline.pipeline import Pipeline
from gateway.pipeline.response import enforce_response
from gateway.pipeline.verdicts import InteractionRequired, LocalRequest, Verdict
from gateway.replies.replies import Reply

CAPABILITIES = EdgeCapabilities("memory", ALL_HEADS, ALL_BODIES)
_BODYLESS = frozenset({204, 304})


class Cut(Exception):
    """The request was ended: a reset, for a client that has seen the response's head."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Serving(Protocol):
    """The generation that serves."""

    @property
    def pipeline(self) -> Pipeline:
        """Judges."""

    @property
    def endpoints(self) -> LocalEndpoints:
        """The gateway's own endpoints."""


class MemoryRequest:
    """An `OpenRequest` of this edge."""

    def __init__(self) -> None:
        self.verdict: Verdict | None = None
        self.over = False
        self.judged_at = self.used_at = time.monotonic()
        self.doubt_since: float | None = None
        self._ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def cut(self, reason: str) -> None:
        """End it: with a denial when no response was begun, else by cutting it."""
        if not self._ended.done():
            self._ended.set_result(reason)

    async def unless_cut[T](self, work: Awaitable[T]) -> T:
        """What `work` gives. Raises Cut as soon as the request is ended."""
        task = asyncio.ensure_future(work)
        await asyncio.wait({task, self._ended}, return_when=asyncio.FIRST_COMPLETED)
        if self._ended.done():
            task.cancel()
            await asyncio.wait({task})
            raise Cut(self._ended.result())
        return task.result()


class MemoryResponse:
    """A response's head, and its body as it comes. Reading the body raises Cut when the request is ended meanwhile."""

    def __init__(self, status: int, headers: Iterable[tuple[str, str]], pieces: AsyncIterator[bytes]) -> None:
        self.status, self.headers, self.pieces = status, list(headers), pieces

    def header(self, name: str) -> str | None:
        """The value of a header field."""
        return dict(self.headers).get(name)

    async def read(self) -> bytes:
        """The whole body."""
        return b"".join([piece async for piece in self.pieces])


class MemoryEdge:
    """The edge. `upstreams`: a client with a base URL for each upstream of the routes. It is an `OpenRequests`."""

    def __init__(
        self,
        serving: Serving,
        upstreams: Mapping[str, httpx.AsyncClient],
        capabilities: EdgeCapabilities = CAPABILITIES,
    ) -> None:
        self._serving, self._upstreams, self._capabilities = serving, upstreams, capabilities
        self._open: set[MemoryRequest] = set()
        self.rejudge_s = 15.0
        self.cuts: list[str] = []

    # ---- what the continuous evaluation asks ----

    @property
    def pipeline(self) -> Pipeline:
        """The pipeline of the generation that serves."""
        return self._serving.pipeline

    def open_requests(self) -> list[MemoryRequest]:
        """Every request that is open or being judged."""
        return list(self._open)

    def record_cut(self, reason: str) -> None:
        """Count a request that was cut."""
        self.cuts.append(reason)

    # ---- a request ----

    async def send(self, raw: RawRequest, peer: Peer, body: Sequence[bytes] = ()) -> MemoryResponse:
        """The response to one request; its body may still be on its way."""
        request = MemoryRequest()
        self._open.add(request)
        try:
            return await self._respond(request, raw, peer, body)
        except Cut as cut:
            return self._refuse(request, cut.reason)
        except httpx.HTTPError:
            return self._refuse(request, "upstream_unreachable")

    async def _respond(
        self, request: MemoryRequest, raw: RawRequest, peer: Peer, body: Sequence[bytes]
    ) -> MemoryResponse:
        pipeline = self.pipeline
        verdict = await pipeline.judge(raw, peer, self._capabilities)
        if isinstance(verdict, LocalRequest | InteractionRequired):
            whole = b"".join(body)
            answered = await answer(pipeline, self._serving.endpoints, verdict, whole, peer, self._capabilities)
            verdict, body = answered.verdict, [answered.body] if answered.body else []
        request.verdict = verdict
        if isinstance(verdict, Reply):
            return self._reply(request, verdict)
        transform = open_request_body(verdict) if body else None
        if isinstance(transform, Refusal):
            return self._refuse(request, transform.reason)
        content: bytes | AsyncIterator[bytes] | None = _streamed(verdict, transform, body) if body else None
        if transform is not None:
            if transform.mode == "whole":
                outcome = transform_whole(
                    transform, b"".join([piece async for piece in _streamed(verdict, None, body)])
                )
                if isinstance(outcome, Refusal):
                    return self._refuse(request, outcome.reason)
                content = outcome
            verdict = with_new_body(verdict, transform)
        return await self._forward(request, verdict, content)

    async def _forward(self, request: MemoryRequest, forward: Forward, content: Any) -> MemoryResponse:
        """Stages 11 and 12."""
        facts, client = forward.facts, self._upstreams[forward.route.upstream]
        url = client.base_url.copy_with(raw_path=facts.target.encode("ascii"))
        headers = [("host", facts.authority or facts.host), *forward.headers]
        outgoing = httpx.Request(facts.method, url, headers=headers, content=content)
        response = await request.unless_cut(client.send(outgoing, stream=True))
        status = response.status_code
        fields = [(name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in response.headers.raw]
        has_body = facts.method != "HEAD" and status not in _BODYLESS and ("content-length", "0") not in fields
        head = enforce_response(forward, status, fields, has_body=has_body)
        pieces = self._pieces(request, response, None if isinstance(head, Refusal) else head.body)
        if isinstance(head, Refusal):
            await pieces.aclose()
            await response.aclose()
            return self._refuse(request, head.reason)
        if head.body is not None and head.body.mode == "whole":
            whole = b"".join([piece async for piece in pieces])
            return MemoryResponse(status, [*head.headers, ("content-length", str(len(whole)))], _once(whole))
        return MemoryResponse(status, head.headers, pieces)

    async def _pieces(self, request: MemoryRequest, response: httpx.Response, transform: OpenBody | None) -> Any:
        """The response's body as it goes out; a transform's refusal is a cut."""
        try:
            async with aclosing(response.aiter_raw()) as arriving:
                while (piece := await request.unless_cut(anext(arriving, None))) is not None:  # type: ignore[arg-type]
                    request.used_at = time.monotonic()
                    yield _allowed(piece if transform is None else transform.feed(piece))
            if transform is not None:
                yield _allowed(transform.finish())
        finally:
            self._end(request)
            await response.aclose()

    # ---- ends ----

    def _end(self, request: MemoryRequest) -> None:
        request.over = True
        self._open.discard(request)

    def _reply(self, request: MemoryRequest, reply: Reply) -> MemoryResponse:
        self._end(request)
        return MemoryResponse(reply.status, reply.headers, _once(reply.body))

    def _refuse(self, request: MemoryRequest, reason: str) -> MemoryResponse:
        forward = request.verdict
        known = (forward.facts, reason, forward.decision_id) if isinstance(forward, Forward) else (None, reason)
        return self._reply(request, self.pipeline.refuse(*known))


async def _streamed(forward: Forward, transform: OpenBody | None, body: Sequence[bytes]) -> AsyncIterator[bytes]:
    """The request's body up to the route's limit, transformed as it goes."""
    arrived = 0
    for piece in body:
        arrived += len(piece)
        if arrived > forward.route.body_limit_bytes:
            raise Cut("body_too_large")
        yield _allowed(piece if transform is None else transform.feed(piece))
    if transform is not None:
        yield _allowed(transform.finish())


async def _once(body: bytes) -> AsyncIterator[bytes]:
    yield body


def _allowed(outcome: bytes | Refusal) -> bytes:
    if isinstance(outcome, Refusal):
        raise Cut(outcome.reason)
    return outcome
