"""Requests that wait for their sender to sign in or step up: a deep link, or a form with its body.

Law: a held request goes on only in the browser that sent it, on the host it was sent to, once. One that changes
something is held whole only when the host's own page sent it: a form that another site sent would otherwise get, by way
of the sign-in, the session that SameSite keeps from it.
"""

from __future__ import annotations

import json
import time
from base64 import b64decode, b64encode
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from gateway.core.canonical import client_network
from gateway.core.cookies import digest, is_value, without_ours
from gateway.core.decision import StepUp
from gateway.core.ports.documents import Documents
from gateway.core.reasons import Refusal
from gateway.core.request import RawRequest, RequestFacts
from gateway.core.routes import Route
from gateway.identity.login.browser_seal import seal, unseal
from gateway.state.collection import Codec, Collection

COLLECTION = "held"
LIFE_S = 900
BODY_LIMIT_BYTES = 1 << 20
_SAFE = frozenset({"GET", "HEAD"})
# What belongs to the first attempt alone: its credentials, its conditions, its transfer.
_LEFT = frozenset({"cookie", "authorization", "dpop", "expect", "range", "if-range", "if-none-match", "if-match"})
_BUDGET_BYTES, _BUDGET_ALL_BYTES, _FAIR_BYTES = 8 << 20, 256 << 20, 64 << 10


@dataclass(frozen=True, slots=True)
class PendingRequest:
    """A request that waits. `binding` is the digest of the browser's binding cookie on `host`.

    `authority` is the host as the browser wrote it, with its port. `issuers` are those its service accepts, empty for
    every one; `fresh`: a session is there, and policy wants a new sign-in all the same. `step_up_methods` and
    `step_up_max_age_s` are what has to be proven first, 0 seconds for nothing; `reasons` says why. A GET or HEAD goes
    on as a redirect to `target`, so it has neither headers nor body.
    """

    id: str = field(repr=False)
    host: str
    method: str
    target: str
    binding: str = field(repr=False)
    authority: str = ""
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    body: bytes = field(default=b"", repr=False)
    issuers: tuple[str, ...] = ()
    zero_log: bool = False
    fresh: bool = False
    step_up_methods: tuple[str, ...] = ()
    step_up_max_age_s: int = 0
    reasons: tuple[str, ...] = ()

    @property
    def step_up(self) -> StepUp | None:
        """What has to be proven before it goes on; None where it waits for a sign-in."""
        return StepUp(self.step_up_methods, self.step_up_max_age_s) if self.step_up_max_age_s else None

    @property
    def is_safe(self) -> bool:
        """Whether a redirect is all it takes to go on."""
        return self.method in _SAFE

    def raw(self, cookies: str) -> RawRequest:
        """The request as it goes on, to be admitted and judged like any other, with these cookies."""
        headers = [("host", self.authority or self.host), *self.headers, ("content-length", str(len(self.body)))]
        if cookies:
            headers.append(("cookie", cookies))
        fields = [(name.encode("ascii"), value.encode("latin-1")) for name, value in headers]
        return RawRequest(self.method.encode("ascii"), b"", self.target.encode("ascii"), fields, "1.1")


def _encode(held: PendingRequest) -> bytes:
    document = {
        "host": held.host,
        "method": held.method,
        "target": held.target,
        "binding": held.binding,
        "authority": held.authority,
        "headers": held.headers,
        "body": b64encode(held.body).decode("ascii"),
        "issuers": held.issuers,
        "zero_log": held.zero_log,
        "fresh": held.fresh,
        "step_up_methods": held.step_up_methods,
        "step_up_max_age_s": held.step_up_max_age_s,
        "reasons": held.reasons,
    }
    return json.dumps(document, separators=(",", ":")).encode()


def _decode(value: bytes) -> PendingRequest:
    """The request; its id stands in no document, whoever asks for it has it."""
    document = json.loads(value)
    return PendingRequest(
        id="",
        host=document["host"],
        method=document["method"],
        target=document["target"],
        binding=document["binding"],
        authority=document["authority"],
        headers=tuple((name, text) for name, text in document["headers"]),
        body=b64decode(document["body"]),
        issuers=tuple(document["issuers"]),
        zero_log=document["zero_log"],
        fresh=document["fresh"],
        step_up_methods=tuple(document["step_up_methods"]),
        step_up_max_age_s=document["step_up_max_age_s"],
        reasons=tuple(document["reasons"]),
    )


# Sealed under the request's id, which is nowhere but in the browser.
_CODEC: Codec[bytes] = Codec(encode=bytes, decode=bytes)


def _sealed(pending: PendingRequest) -> bytes:
    return seal(pending.id, COLLECTION, _encode(pending))


def _opened(held_id: str, sealed: bytes) -> PendingRequest:
    return replace(_decode(unseal(held_id, COLLECTION, sealed)), id=held_id)


class PendingRequests:
    """Requests that wait, for a quarter of an hour. Raises StoreDown."""

    def __init__(
        self,
        documents: Documents,
        clock: Callable[[], float],
        random: Callable[[], str],
        origin: Callable[[str], str],
        budget_bytes: int = _BUDGET_BYTES,
    ) -> None:
        self._pending = Collection(documents=documents, name=COLLECTION, codec=_CODEC, clock=clock)
        self._clock = clock
        self._random = random
        self._origin = origin
        self._budget = _Budget(budget_bytes)

    async def hold(
        self,
        facts: RequestFacts,
        route: Route | None,
        body: bytes | None,
        binding: str,
        *,
        fresh: bool = False,
        step_up: StepUp | None = None,
        reasons: Sequence[str] = (),
    ) -> PendingRequest | Refusal:
        """Let a request wait. `body` is None when it is not there as a whole; `binding` is the cookie's value.

        A change that the host's own page did not send waits as a GET of the same target. Refusal `login_required` for
        a body that cannot wait, `too_many_attempts` when too much of this client's waits already.
        """
        whole = facts.method in _SAFE or self._is_own(facts)
        method = facts.method if whole else "GET"
        headers: tuple[tuple[str, str], ...] = ()
        content = b""
        if method not in _SAFE:
            if body is None or len(body) > BODY_LIMIT_BYTES:
                return Refusal("login_required", "a body that cannot wait")
            headers, content = (*(item for item in facts.headers if item[0] not in _LEFT), *facts.asserted), body
        held = PendingRequest(
            id=self._random(),
            host=facts.host,
            method=method,
            target=facts.target,
            binding=digest(binding),
            authority=facts.authority,
            headers=headers,
            body=content,
            issuers=route.issuers if route is not None else (),
            zero_log=route is not None and route.zero_log,
            fresh=fresh,
            step_up_methods=step_up.methods if step_up is not None else (),
            step_up_max_age_s=step_up.max_age_s if step_up is not None else 0,
            reasons=tuple(reasons),
        )
        if not self._budget.take(client_network(facts.client_ip), len(_encode(held))):
            return Refusal("too_many_attempts", "held requests")
        await self._pending.add(digest(held.id), _sealed(held), self._clock() + LIFE_S)
        return held

    async def look(self, held_id: str) -> PendingRequest | None:
        """The request that waits under this id; None when there is none (any more)."""
        if not is_value(held_id):
            return None
        pending = await self._pending.get(digest(held_id))
        return None if pending is None else _opened(held_id, pending)

    async def freshen(self, held: PendingRequest) -> bool:
        """From now on this request waits for a new sign-in, as long as it would have; False when it waits no more."""
        entry = await self._pending.read(digest(held.id))
        if entry.value is None:
            return False
        waiting = replace(_opened(held.id, entry.value), fresh=True)
        return await self._pending.replace(entry, _sealed(waiting), entry.expires_at)

    async def take(self, held_id: str) -> PendingRequest | None:
        """As `look`, and it waits no longer: of several callers one gets it."""
        if not is_value(held_id):
            return None
        pending = await self._pending.take(digest(held_id))
        return None if pending is None else _opened(held_id, pending)

    def _is_own(self, facts: RequestFacts) -> bool:
        """Whether the host's own page sent this; saying nothing is not enough.

        A page without a referrer has `Origin: null`; then `Sec-Fetch-Site` decides, which no page can set.
        """
        site = facts.header_values("sec-fetch-site")
        if facts.header_values("origin") == ["null"]:
            return site == ["same-origin"]
        return facts.header_values("origin") == [self._origin(facts.host)] and site in ([], ["same-origin"])


class _Budget:
    """How much a client may let wait, in this process: anybody can ask for a sign-in, and disks are finite.

    When all of them together let too much wait, each may still sign in: nobody can use up what is everybody's.
    """

    def __init__(self, each_bytes: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._each = each_bytes
        self._clock = clock
        self._since = clock()
        self._all = 0
        self._used: OrderedDict[str, int] = OrderedDict()

    def take(self, address: str, size: int) -> bool:
        now = self._clock()
        if now - self._since >= LIFE_S:
            self._since, self._all = now, 0
            self._used.clear()
        used = self._used.get(address, 0) + size
        if used > self._each or (used > _FAIR_BYTES and self._all + size > _BUDGET_ALL_BYTES):
            return False
        self._used[address] = used
        self._all += size
        return True


def cookies_going_on(facts: RequestFacts, name: str, value: str) -> str:
    """The Cookie header of a request that goes on: the browser's present cookies and the new one of ours."""
    return "; ".join([*without_ours(facts.header_values("cookie")), f"{name}={value}"])
