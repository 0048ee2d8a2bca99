"""The own paths of device bound session credentials: a browser registers its key, and proves it again and again.

Thin: `gateway.identity.sessions.dbsc` decides. The browser itself asks here, not a page, and the proof is all that
counts: it may come without a cookie, an origin or a site. No answer is a 401, a 204 or empty, because the
browser would end its session; one that only means "later" is a 503.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace

from gateway.core import paths as own
from gateway.core.reasons import Refusal
from gateway.core.request import RequestFacts
from gateway.endpoints.app import Caller, Endpoint
from gateway.endpoints.rate_limit import RateLimiter
from gateway.identity.sessions.dbsc import CHALLENGE, Challenged, Dbsc, Instructions, Over
from gateway.replies.replies import Reply, deny

_HEADERS = (
    ("cache-control", "no-store"),
    ("content-type", "application/json"),
    ("x-content-type-options", "nosniff"),
)


type _Outcome = Instructions | Challenged | Over | Refusal


def paths(keys: Dbsc, attempts: RateLimiter | None = None) -> list[Endpoint]:
    """The paths to hand to `endpoints.build`; they are there on every host. Both take from one bucket of attempts."""
    # A whole office behind one address refreshes every few minutes, each browser once for each service.
    bucket = RateLimiter(burst=1_000, per_s=100) if attempts is None else attempts

    def at(path: str, work: Callable[[RequestFacts], Awaitable[_Outcome]]) -> Endpoint:
        async def answer(caller: Caller, _body: bytes, _params: Mapping[str, str]) -> Reply:
            facts = caller.facts
            if facts is None:
                raise RuntimeError("a request that the data path has not seen")
            if not bucket.take(caller.client_ip):
                return replace(deny(None, ("too_many_attempts",), caller.decision_id), status=503)
            outcome = await work(facts)
            if isinstance(outcome, Instructions):
                return _json(200, outcome.document, ("set-cookie", outcome.set_cookie))
            if isinstance(outcome, Over):
                return _json(200, outcome.document)
            if isinstance(outcome, Challenged):
                return _json(403, {"error": "a proof of the session's key is needed"}, (CHALLENGE, outcome.header))
            return deny(None, ("key_proof_invalid",), caller.decision_id)

        return Endpoint("POST", path, answer)

    return [at(own.DBSC_REGISTER, keys.register), at(own.DBSC_REFRESH, keys.refresh)]


async def with_offer(keys: Dbsc, reply: Reply) -> Reply:
    """The reply; where it opens a session, it asks the browser for a key as well."""
    fields = await keys.offer([value for name, value in reply.headers if name == "set-cookie"])
    return replace(reply, headers=(*reply.headers, *fields)) if fields else reply


def _json(status: int, document: Mapping[str, object], *more: tuple[str, str]) -> Reply:
    body = json.dumps(document, separators=(",", ":")).encode() + b"\n"
    return Reply(status, (*_HEADERS, *more, ("x-gateway-reason", "local")), body, "local")
