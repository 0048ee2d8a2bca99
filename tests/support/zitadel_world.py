"""A Zitadel for these tests: a small server on loopback with the documented shapes, and what holds state."""

from __future__ import annotations

import base64
import itertools
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from gateway.core.ports.documents import Document
from gateway.core.ports.stores import StoreDown

NOW = 1_800_000_000.0
TOKEN = "pat-of-the-gateway"

Answer = tuple[int, dict[str, Any]]


def moment(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


@dataclass
class Asked:
    method: str
    path: str
    headers: dict[str, str]
    body: Any


@dataclass
class FakeZitadel:
    """Answers by (method, path) from `answers`; the Events and Session APIs work as documented."""

    url: str = ""
    answers: dict[tuple[str, str], Answer | Callable[[Any], Answer]] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    tokens: set[str] = field(default_factory=lambda: {TOKEN})
    stored: list[dict[str, Any]] = field(default_factory=list)
    sessions: dict[str, dict[str, Any]] = field(default_factory=dict)
    down: bool = False

    def event(
        self, kind: str, of: str, name: str, sequence: int, at: float, payload: dict[str, Any] | None = None
    ) -> None:
        # protojson: numbers are texts, and a zero is left out.
        entry: dict[str, Any] = {
            "aggregate": {"id": name, "type": {"type": of}, "resourceOwner": "1"},
            "creationDate": moment(at),
            "type": {"type": kind, "localized": {"key": kind}},
        }
        entry |= {"sequence": str(sequence)} if sequence else {}
        entry |= {"payload": payload} if payload else {}
        self.stored.append(entry)

    def session(self, name: str, user: str = "42", expires_at: float | None = None) -> None:
        held: dict[str, Any] = {"id": name, "factors": {"user": {"id": user, "verifiedAt": moment(NOW)}}}
        self.sessions[name] = held | ({"expirationDate": moment(expires_at)} if expires_at else {})

    def answer(self, asked: Asked) -> Answer:
        if self.down:
            return 503, {"code": 14, "message": "unavailable"}
        if asked.headers.get("authorization", "").removeprefix("Bearer ") not in self.tokens:
            return 401, {"code": 16, "message": "Errors.Token.Invalid (AUTH-7fs1e)"}
        found = self.answers.get((asked.method, asked.path))
        if callable(found):
            return found(asked.body)
        if found is not None:
            return found
        if asked.path == "/admin/v1/events/_search":
            return 200, self._events(asked.body)
        if asked.path == "/v2/sessions/search":
            return 200, self._search(asked.body)
        if asked.path.startswith("/v2/sessions/"):
            return self._one(asked)
        return 404, {"code": 5, "message": "Not Found"}

    def _events(self, body: Any) -> dict[str, Any]:
        found = [
            entry
            for entry in sorted(self.stored, key=lambda entry: entry["creationDate"])
            if entry["type"]["type"] in body["eventTypes"]
            and entry["creationDate"] > body.get("from", "")
            and body.get("aggregateId", entry["aggregate"]["id"]) == entry["aggregate"]["id"]
        ][: body["limit"]]
        return {"events": found} if found else {}

    def _search(self, body: Any) -> dict[str, Any]:
        query = body["queries"][0]
        if "idsQuery" in query:
            found = [self.sessions[name] for name in query["idsQuery"]["ids"] if name in self.sessions]
        else:
            user = query["userIdQuery"]["id"]
            found = [one for one in self.sessions.values() if one["factors"]["user"]["id"] == user]
        start = int(body["query"]["offset"])
        found = found[start : start + body["query"]["limit"]]
        return {"details": {"totalResult": str(len(found))}} | ({"sessions": found} if found else {})

    def _one(self, asked: Asked) -> Answer:
        name = asked.path.rpartition("/")[2]
        if name not in self.sessions:
            return 404, {"code": 5, "message": "Session not found", "details": [{"id": "QUERY-dd3kd"}]}
        if asked.method == "DELETE":
            del self.sessions[name]
            return 200, {"details": {"sequence": "5"}}
        return 200, {"session": self.sessions[name]}


@contextmanager
def zitadel() -> Iterator[FakeZitadel]:
    fake = FakeZitadel()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True
        wbufsize = 65_536

        def do(self) -> None:
            raw = self.rfile.read(int(self.headers.get("content-length", 0)))
            headers = {name.lower(): value for name, value in self.headers.items()}
            is_json = headers.get("content-type") == "application/json"
            asked = Asked(self.command, self.path, headers, json.loads(raw) if is_json else raw)
            fake.asked.append(asked)
            status, document = fake.answer(asked)
            body = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = do_PUT = do_DELETE = do  # noqa: N815

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    fake.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield fake
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class Memory:
    """`Documents` in memory; `down` makes every use of it fail."""

    def __init__(self) -> None:
        self.held: dict[tuple[str, str], Document] = {}
        self._versions = itertools.count(1, 7)  # a version is given once, and nobody guesses the next
        self.down = False

    def _look(self) -> None:
        if self.down:
            raise StoreDown("no disk")

    async def get(self, collection: str, key: str, now: float) -> Document | None:
        self._look()
        found = self.held.get((collection, key))
        return found if found is not None and found.expires_at > now else None

    async def put(
        self,
        collection: str,
        key: str,
        value: bytes,
        expires_at: float,
        *,
        version: int,
        group: str = "",
    ) -> bool:
        self._look()
        found = self.held.get((collection, key))
        if version != (found.version if found is not None else 0):
            return False
        await self.overwrite(collection, key, value, expires_at)
        return True

    async def overwrite(self, collection: str, key: str, value: bytes, expires_at: float, *, group: str = "") -> None:
        self._look()
        self.held[collection, key] = Document(key, value, next(self._versions), expires_at)

    async def take(self, collection: str, key: str, now: float) -> Document | None:
        found = await self.get(collection, key, now)
        self.held.pop((collection, key), None)
        return found

    async def delete(self, collection: str, key: str) -> bool:
        self._look()
        return self.held.pop((collection, key), None) is not None

    async def list(self, collection: str, group: str, now: float) -> Sequence[Document]:
        self._look()
        return ()


class Ender:
    """A `SessionEnder` that remembers what it was asked to end; `down` fails once for each time it says."""

    def __init__(self) -> None:
        self.ended: list[tuple[str | None, str | None, str]] = []
        self.before: list[float | None] = []
        self.down = 0

    async def end_login_sessions(
        self,
        issuer: str,
        *,
        sid: str | None = None,
        subject: str | None = None,
        why: str,
        before: float | None = None,
    ) -> int:
        if self.down:
            self.down -= 1
            raise StoreDown("no disk")
        self.ended.append((sid, subject, why))
        self.before.append(before)
        return 1

    @property
    def who(self) -> list[str | None]:
        return [sid or subject for sid, subject, _ in self.ended]


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


def b64(value: dict[str, Any]) -> str:
    return base64.b64encode(json.dumps(value).encode()).decode()
