"""Two demo services on loopback, over plain http: a staff directory and an echo. Neither writes a log.

`python -m gateway.demo.services directory|echo [--port N]` serves one and prints its URL. With `--jwks` the directory
believes nobody but the gateway: no request is answered without an assertion that verifies.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import socket
import ssl
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import httpx
import jwt
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

ASSERTION = "x-gateway-jwt-assertion"
EVENTS, EVENT_GAP_S = 5, 0.1
_TYPE = "gateway-assertion+jwt"
_CHUNK = b"\x00" * 65_536
_MOST_MIB = 4096
_NAMES = (
    ("Alice Adler", "people"),
    ("Bob Brandt", "people"),
    ("Carol Cho", "finance"),
    ("Dave Diaz", "people"),
    ("Erin Ek", "people"),
    ("Fay Fox", "people"),
    ("Gita Gupta", "engineering"),
    ("Hugo Haas", "engineering"),
    ("Ines Ibarra", "engineering"),
    ("Jonas Jung", "finance"),
    ("Kaya Koc", "support"),
    ("Liam Lund", "support"),
)


def people() -> list[dict[str, Any]]:
    """Twelve people who do not exist. The salary account has the shape of an IBAN and the country XX."""
    staff = []
    for number, (name, department) in enumerate(_NAMES, 1):
        digits = str(int(hashlib.sha256(name.encode()).hexdigest(), 16))
        staff.append(
            {
                "id": number,
                "name": name,
                "department": department,
                "email": f"{name.split()[0].lower()}@acme.localhost",
                "phone": f"+00 555 01{number:02}",
                "salary_account": f"XX{digits[:20]}",
                "birthday": f"{1960 + int(digits[20:22]) % 45}-{1 + int(digits[22:24]) % 12:02}-{1 + number:02}",
                "notes": [],
            }
        )
    return staff


class Assertions:
    """Verifies what the gateway says about the caller, as a service behind it should.

    `jwks_url` is the gateway's key set, `ca` the CA of its certificate; with `address` that host is connected to, and
    the URL's host is the name that is asked for.
    """

    def __init__(self, jwks_url: str, ca: Path, audience: str, address: str = "") -> None:
        self._url = httpx.URL(jwks_url)
        self._issuer = f"https://{self._url.host}"
        self._audience = audience
        self._address = address or self._url.host
        self._context = ssl.create_default_context(cafile=ca)
        self._keys: dict[str, jwt.PyJWK] = {}

    async def verify(self, token: str, method: str, path: str) -> Mapping[str, Any]:
        """The claims. Raises PyJWTError for an assertion that is not for this service, this request and this minute."""
        header = jwt.get_unverified_header(token)
        if header.get("typ") != _TYPE:
            raise jwt.InvalidTokenError("not an assertion")
        kid = str(header.get("kid"))
        if kid not in self._keys:
            self._keys = await self._fetch()
        if kid not in self._keys:
            raise jwt.InvalidTokenError("a key the gateway does not publish")
        claims: dict[str, Any] = jwt.decode(
            token,
            self._keys[kid],
            ["ES256"],
            audience=self._audience,
            issuer=self._issuer,
            options={"require": ["iss", "aud", "exp", "iat", "sub", "req"]},
        )
        if claims["req"] != {"method": method, "path": path}:
            raise jwt.InvalidTokenError("made for another request")
        return claims

    async def _fetch(self) -> dict[str, jwt.PyJWK]:
        named = {"host": self._url.netloc.decode("ascii")}
        try:
            async with httpx.AsyncClient(verify=self._context, trust_env=False, timeout=5) as client:
                answer = await client.get(
                    self._url.copy_with(host=self._address),
                    headers=named,
                    extensions={"sni_hostname": self._url.host},
                )
            keys = jwt.PyJWKSet.from_dict(answer.raise_for_status().json()).keys
        except (httpx.HTTPError, ValueError) as error:
            raise jwt.InvalidTokenError("the gateway's keys cannot be read") from error
        return {key.key_id: key for key in keys if key.key_id is not None}


class Vouched:
    """ASGI middleware: no request without a valid assertion; the claims are `request.scope["caller"]`."""

    def __init__(self, app: ASGIApp, assertions: Assertions | None) -> None:
        self._app = app
        self._assertions = assertions

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Verify, then hand on."""
        scope["caller"] = {}
        if scope["type"] == "http" and self._assertions is not None:
            request = Request(scope)
            path = scope["raw_path"].decode("ascii")
            try:
                scope["caller"] = await self._assertions.verify(
                    request.headers.get(ASSERTION, ""), request.method, path
                )
            except jwt.PyJWTError as error:
                refusal = JSONResponse({"error": "no valid assertion of the gateway", "why": str(error)}, 401)
                await refusal(scope, receive, send)
                return
        await self._app(scope, receive, send)


class _Mirror(Response):
    """Sends each piece of the request's body back as it comes.

    A StreamingResponse listens for a disconnect meanwhile, and what it hears then is the body.
    """

    def __init__(self, kind: str) -> None:
        super().__init__(media_type=kind)
        del self.headers["content-length"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async for piece in Request(scope, receive).stream():
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


def directory(assertions: Assertions | None = None) -> ASGIApp:
    """The staff directory: `/`, `/people`, `/people/{id}`, `/people/{id}/note`, `/export`, `/whoami`."""
    staff = people()

    def find(request: Request) -> dict[str, Any] | None:
        return next((person for person in staff if person["id"] == request.path_params["id"]), None)

    async def page(request: Request) -> Response:
        return HTMLResponse(_page(staff, str(request.scope["caller"].get("name", ""))))

    async def everybody(_: Request) -> Response:
        return JSONResponse({"people": staff})

    async def person(request: Request) -> Response:
        found = find(request)
        return JSONResponse(found) if found else JSONResponse({"error": "nobody"}, 404)

    async def note(request: Request) -> Response:
        employee = find(request)
        if employee is None:
            return JSONResponse({"error": "nobody"}, 404)
        text = (await request.body()).decode("utf-8", errors="replace")[:500]
        employee["notes"].append({"by": request.scope["caller"].get("name", ""), "text": text})
        return JSONResponse(employee, 201)

    async def export(request: Request) -> Response:
        wanted = dict(parse_qsl((await request.body()).decode("ascii", "replace"))).get("department", "")
        rows = [f"{one['name']};{one['department']}" for one in staff if wanted in {"", one["department"]}]
        return PlainTextResponse("\n".join(["name;department", *rows, ""]))

    async def whoami(request: Request) -> Response:
        verified = assertions is not None
        claims = dict(request.scope["caller"])
        return JSONResponse({"verified": verified, "claims": claims, "headers": request.headers.items()})

    app = Starlette(
        routes=[
            Route("/", page),
            Route("/people", everybody),
            Route("/people/{id:int}", person),
            Route("/people/{id:int}/note", note, methods=["POST"]),
            Route("/export", export, methods=["GET", "POST"]),
            Route("/whoami", whoami),
        ]
    )
    return Vouched(app, assertions)


def echo() -> ASGIApp:
    """The echo: `/headers`, `/echo`, `/sse`, `/ws`, `/big?mib=N`, and `/count`, how many requests came."""
    count = 0

    def counted(handler: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            nonlocal count
            count += 1
            return await handler(request)

        return answer

    async def headers(request: Request) -> Response:
        target = request.scope["raw_path"].decode("latin-1")
        return JSONResponse({"method": request.method, "path": target, "headers": request.headers.items()})

    async def body(request: Request) -> Response:
        return _Mirror(request.headers.get("content-type", "application/octet-stream"))

    async def events(_: Request) -> Response:
        async def pieces() -> AsyncIterator[str]:
            for number in range(EVENTS):
                yield f"id: {number}\ndata: {json.dumps({'tick': number})}\n\n"
                await asyncio.sleep(EVENT_GAP_S)

        return StreamingResponse(pieces(), media_type="text/event-stream", headers={"cache-control": "no-store"})

    async def big(request: Request) -> Response:
        wanted = request.query_params.get("mib", "1")
        mib = int(wanted) if wanted.isascii() and wanted.isdigit() and len(wanted) <= len(str(_MOST_MIB)) else -1
        if not 0 <= mib <= _MOST_MIB:
            return JSONResponse({"error": f"mib is a number up to {_MOST_MIB}"}, 400)

        async def chunks() -> AsyncIterator[bytes]:
            for _ in range(mib * 16):
                yield _CHUNK

        length = {"content-length": str(mib << 20)}
        return StreamingResponse(chunks(), media_type="application/octet-stream", headers=length)

    async def socket_echo(websocket: WebSocket) -> None:
        nonlocal count
        count += 1
        await websocket.accept()
        try:
            while True:
                message = await websocket.receive()
                if message["type"] == "websocket.disconnect":
                    return
                if message.get("text") is not None:
                    await websocket.send_text(message["text"])
                else:
                    await websocket.send_bytes(message["bytes"])
        except WebSocketDisconnect:
            return

    async def total(_: Request) -> Response:
        return JSONResponse({"requests": count})

    return Starlette(
        routes=[
            Route("/headers", counted(headers), methods=["GET", "POST", "PUT", "DELETE"]),
            Route("/echo", counted(body), methods=["POST", "PUT"]),
            Route("/sse", counted(events)),
            Route("/big", counted(big)),
            Route("/count", total),
            WebSocketRoute("/ws", socket_echo),
        ]
    )


_STYLE = """
:root{color-scheme:light dark;--ink:#1d2433;--soft:#667;--line:#e3e6ee;--card:#fff;--back:#f5f6fa;--mark:#3b5bdb}
@media(prefers-color-scheme:dark){:root{--ink:#e8eaf2;--soft:#9aa3b8;--line:#2c3242;--card:#1b2030;--back:#12151f}}
*{box-sizing:border-box}body{margin:0;background:var(--back);color:var(--ink);font:16px/1.5 system-ui,sans-serif}
main{max-width:64rem;margin:0 auto;padding:3rem 1.5rem}h1{margin:0;font-size:1.9rem}header p{margin:.2rem 0 2rem;
color:var(--soft)}ul{display:grid;grid-template-columns:repeat(auto-fill,minmax(15rem,1fr));gap:1rem;padding:0;
list-style:none}li{display:flex;gap:.9rem;align-items:center;padding:1rem;border:1px solid var(--line);
border-radius:.8rem;background:var(--card)}li span{flex:none;width:2.6rem;height:2.6rem;border-radius:50%;
background:var(--mark);color:#fff;display:grid;place-items:center;font-weight:600}b{display:block}
small{color:var(--soft)}
"""


def _page(staff: Sequence[Mapping[str, Any]], name: str) -> str:
    cards = "".join(
        f"<li><span aria-hidden=true>{escape(''.join(part[0] for part in person['name'].split()))}</span>"
        f"<div><b>{escape(person['name'])}</b><small>{escape(person['department'])} · {escape(person['email'])}</small>"
        "</div></li>"
        for person in staff
    )
    hello = f"You are {escape(name)}: the gateway says so, and its signature verifies." if name else "Who works here."
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>Staff directory</title><style>{_STYLE}</style>"
        f"<main><header><h1>Staff directory</h1><p>{hello}</p></header><ul>{cards}</ul></main></html>"
    )


def server(app: ASGIApp) -> uvicorn.Server:
    """A quiet server for one of these services."""
    return uvicorn.Server(
        uvicorn.Config(
            app,
            loop="asyncio",
            ws="websockets-sansio",
            lifespan="off",
            log_level="critical",
            access_log=False,
            server_header=False,
            timeout_keep_alive=30,
            timeout_graceful_shutdown=1,
        )
    )


def main(arguments: list[str] | None = None) -> int:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(prog="python -m gateway.demo.services", description="A demo service.")
    parser.add_argument("service", choices=["directory", "echo"])
    parser.add_argument("--port", type=int, default=0, help="The port on 127.0.0.1; 0 picks a free one.")
    parser.add_argument("--jwks", default="", help="The gateway's key set; without it nothing is verified.")
    parser.add_argument("--ca", type=Path, help="PEM: the CA of the gateway's certificate.")
    parser.add_argument("--gateway-address", default="", help="Connect there for the key set.")
    given = parser.parse_args(arguments)
    if given.jwks and given.ca is None:
        parser.error("--jwks needs --ca")
    if given.service == "directory":
        vouchers = Assertions(given.jwks, given.ca, "directory", given.gateway_address) if given.jwks else None
        app = directory(vouchers)
    else:
        app = echo()
    with socket.create_server(("127.0.0.1", given.port), backlog=512) as listener:
        sys.stdout.write(f"http://127.0.0.1:{listener.getsockname()[1]}\n")
        sys.stdout.flush()
        server(app).run(sockets=[listener])
    return 0


if __name__ == "__main__":
    sys.exit(main())
