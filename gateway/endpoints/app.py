"""The gateway's own paths, served in process: enrolment, keys, CRL, metadata; and the operator's listener.

Law: nothing here is believed because it came this far. Every input has a size and a type, and the device is the one
that the handshake proved.
"""

from __future__ import annotations

import json
import re
import secrets
from base64 import b64decode
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol
from urllib.parse import unquote

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Scope

from gateway.core import paths
from gateway.core.navigation import Resume
from gateway.core.ports.pipeline import Enrolled, OwnEndpoints
from gateway.core.reasons import Refusal
from gateway.core.request import RequestFacts
from gateway.core.subject import Device
from gateway.endpoints.rate_limit import RateLimiter
from gateway.observability.metrics import CONTENT_TYPE
from gateway.replies.replies import Reply, deny

BODY_LIMIT_BYTES = 32_768
_TOKEN_LIMIT = 512
_CSR_LIMIT = 16_384
_PEM_CRL = re.compile(rb"-----BEGIN X509 CRL-----\s+([A-Za-z0-9+/=\s]+?)-----END X509 CRL-----")
_NOTHING_TO_STORE = {"cache-control": "no-store"}
_FOR_MINUTES = {"cache-control": "public, max-age=300"}
_FAILURES = {404: "route_not_found", 405: "method_not_allowed"}


@dataclass(frozen=True, slots=True)
class Caller:
    """What the data path knows about a request for the gateway itself; `device` is verified and in good standing.

    `resume` takes the held request with which an endpoint wants the data path to go on in place of its answer.
    """

    host: str
    client_ip: str
    decision_id: str
    device: Device | None = None
    facts: RequestFacts | None = None
    resume: list[Resume] = field(default_factory=list, compare=False)


@dataclass(frozen=True, slots=True)
class Resuming(Reply):
    """A reply in whose place `resume` is to be judged and forwarded; whoever cannot do that sends the reply itself."""

    resume: Resume


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One more own path. `answer` gets the caller, the body and the path's parameters."""

    method: str
    path: str
    answer: Callable[[Caller, bytes, Mapping[str, str]], Awaitable[Reply]]


class OwnRequest(Protocol):
    """A request that the data path found to be for the gateway itself."""

    @property
    def facts(self) -> RequestFacts:
        """The request."""

    @property
    def device(self) -> Device | None:
        """The peer's device, verified and in good standing."""


def build(
    own: OwnEndpoints,
    attempts: RateLimiter | None = None,
    more: Sequence[Endpoint] = (),
    routes: Sequence[Route] = (),
) -> Starlette:
    """The application behind `call` and `answer_local`, with `more` paths and `routes`.

    Whatever a part raises comes out of them.
    """
    enrolment = own.enrolment
    bucket = RateLimiter() if attempts is None else attempts

    async def get_jwks(_: Request) -> Response:
        return JSONResponse(dict(own.jwks()), headers=_FOR_MINUTES)

    async def get_crl(request: Request) -> Response:
        return _file(request, _der(own.crl()), "application/pkix-crl")

    async def get_ca(request: Request) -> Response:
        return _file(request, own.ca(), "application/x-pem-file")

    async def get_metadata(request: Request) -> Response:
        path = request.path_params.get("path", "")
        document = own.protected_resource(_caller(request).host, f"/{path}")
        return _refuse(request, "route_not_found") if document is None else JSONResponse(dict(document))

    async def get_health(_: Request) -> Response:
        return JSONResponse({"status": "ok"}, headers=_NOTHING_TO_STORE)

    async def post_enrol(request: Request) -> Response:
        if enrolment is None:
            return _refuse(request, "route_not_found")
        if not bucket.take(_caller(request).client_ip):
            return _refuse(request, "too_many_attempts")
        wanted = await _texts(request, {"token": _TOKEN_LIMIT, "csr": _CSR_LIMIT})
        if isinstance(wanted, Refusal):
            return _refuse(request, wanted.reason)
        return _enrolled(request, await enrolment.enrol(wanted["token"], wanted["csr"]))

    async def post_renew(request: Request) -> Response:
        device = _caller(request).device
        if enrolment is None:
            return _refuse(request, "route_not_found")
        if device is None:
            return _refuse(request, "device_required")
        if not bucket.take(_caller(request).client_ip):
            return _refuse(request, "too_many_attempts")
        wanted = await _texts(request, {"csr": _CSR_LIMIT})
        if isinstance(wanted, Refusal):
            return _refuse(request, wanted.reason)
        return _enrolled(request, await enrolment.renew(device, wanted["csr"]))

    return _application(
        [
            Route(paths.JWKS, get_jwks),
            Route(paths.CRL, get_crl),
            Route(paths.DEVICE_CA, get_ca),
            Route(paths.HEALTH, get_health),
            Route(paths.ENROL, post_enrol, methods=["POST"]),
            Route(paths.RENEW, post_renew, methods=["POST"]),
            Route(paths.PROTECTED_RESOURCE, get_metadata),
            Route(paths.PROTECTED_RESOURCE + "/{path:path}", get_metadata),
            *map(_route, more),
            *routes,
        ]
    )


def build_admin(*, metrics: Callable[[], bytes], ready: Callable[[], bool], policy: Callable[[], str]) -> Starlette:
    """The operator's listener: `/metrics`, `/healthz` (this process answers), `/readyz` (it should get requests)."""

    # Plain functions: Starlette runs them in a thread, so reading every worker's figures stops nobody.
    def get_metrics(_: Request) -> Response:
        return Response(metrics(), headers={**_NOTHING_TO_STORE, "content-type": CONTENT_TYPE})

    def get_health(_: Request) -> Response:
        return JSONResponse({"healthy": True}, headers=_NOTHING_TO_STORE)

    def get_ready(_: Request) -> Response:
        fine = ready()
        return JSONResponse({"ready": fine, "policy": policy()}, 200 if fine else 503, _NOTHING_TO_STORE)

    return _application([Route("/metrics", get_metrics), Route("/healthz", get_health), Route("/readyz", get_ready)])


async def answer_local(app: ASGIApp, local: OwnRequest, body: bytes) -> Reply:
    """The reply to a request for the gateway itself, without a length; `Resuming` where a held request goes on.

    Raises what an endpoint raises.
    """
    facts = local.facts
    caller = Caller(facts.authority or facts.host, facts.client_ip, secrets.token_hex(12), local.device, facts)
    headers = [("host", facts.host), *facts.headers]
    status, answer, content = await call(
        app, facts.method, facts.path, facts.query, headers=headers, body=body, caller=caller
    )
    fields = [(name, value) for name, value in answer if name != "content-length"]
    code = next((value for name, value in answer if name == "x-gateway-reason"), "local")
    if caller.resume:
        return Resuming(status, tuple(fields), content, code, caller.resume[0])
    return Reply(status, tuple(fields), content, code)


async def call(
    app: ASGIApp,
    method: str,
    path: str,
    query: str,
    *,
    headers: Iterable[tuple[str, str]],
    body: bytes,
    caller: Caller,
) -> tuple[int, list[tuple[str, str]], bytes]:
    """Ask `app` in this process: status, headers, body. `path` and `query` are as in the request target.

    Raises whatever an endpoint raises.
    """
    scope: Scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "https",
        "path": unquote(path),
        "raw_path": path.encode("ascii"),
        "query_string": query.encode("ascii"),
        "root_path": "",
        "headers": [(name.lower().encode("ascii"), value.encode("latin-1")) for name, value in headers],
        "client": (caller.client_ip, 0),
        "server": (caller.host, 443),
        "gateway.caller": caller,
    }
    pending: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]
    start: Message = {}
    parts: list[bytes] = []

    async def receive() -> Message:
        return pending.pop() if pending else {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            start.update(message)
        elif message["type"] == "http.response.body":
            parts.append(message.get("body", b""))

    await app(scope, receive, send)
    answer = [(name.decode("ascii"), value.decode("latin-1")) for name, value in start["headers"]]
    return start["status"], answer, b"" if method == "HEAD" else b"".join(parts)


def _application(routes: list[Route]) -> Starlette:
    async def failed(request: Request, problem: Exception) -> Response:
        status = problem.status_code if isinstance(problem, HTTPException) else 500
        response = _refuse(request, _FAILURES.get(status, "gateway_error"))
        if isinstance(problem, HTTPException) and problem.headers:
            response.headers.update(problem.headers)
        return response

    app = Starlette(routes=routes, exception_handlers={HTTPException: failed})
    app.router.redirect_slashes = False
    return app


def _route(own: Endpoint) -> Route:
    async def answer(request: Request) -> Response:
        caller, body = _caller(request), await request.body()
        if len(body) > BODY_LIMIT_BYTES:
            return _refuse(request, "body_too_large")
        reply = await own.answer(caller, body, request.path_params)
        if isinstance(reply, Resuming):
            caller.resume.append(reply.resume)
        response = Response(reply.body, reply.status)
        for name, value in reply.headers:
            response.headers.append(name, value)
        return response

    return Route(own.path, answer, methods=[own.method])


def _caller(request: Request) -> Caller:
    caller: Caller = request.scope["gateway.caller"]
    return caller


def _refuse(request: Request, code: str) -> Response:
    caller = request.scope.get("gateway.caller")
    reply = deny(None, (code,), caller.decision_id if isinstance(caller, Caller) else "-")
    return Response(reply.body, reply.status, dict(reply.headers))


def _enrolled(request: Request, outcome: Enrolled | Refusal) -> Response:
    if isinstance(outcome, Refusal):
        return _refuse(request, outcome.reason)
    document = {
        "device_id": outcome.device_id,
        "certificate": outcome.certificate_pem,
        "chain": outcome.chain_pem,
    }
    return JSONResponse(document, 201, _NOTHING_TO_STORE)


async def _texts(request: Request, limits: Mapping[str, int]) -> dict[str, str] | Refusal:
    """The members of a JSON object: exactly these, each a string of 1 to so many characters."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        return Refusal("malformed_request", "content type")
    body = await request.body()
    if len(body) > BODY_LIMIT_BYTES:
        return Refusal("body_too_large")
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return Refusal("malformed_request", "not JSON")
    if not isinstance(found, dict) or found.keys() != limits.keys():
        return Refusal("malformed_request", "members")
    if not all(isinstance(found[name], str) and 0 < len(found[name]) <= limit for name, limit in limits.items()):
        return Refusal("malformed_request", "values")
    return found


def _file(request: Request, content: bytes | None, kind: str) -> Response:
    if content is None:
        return _refuse(request, "route_not_found")
    return Response(content, headers={**_FOR_MINUTES, "content-type": kind})


def _der(crl: bytes | None) -> bytes | None:
    """A CRL in DER (RFC 2585), whichever form the file has."""
    found = _PEM_CRL.search(crl) if crl is not None else None
    return crl if found is None else b64decode(found[1])
