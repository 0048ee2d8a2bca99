"""Device Bound Session Credentials: a key in the browser, which a stolen cookie does not bring along (W3C DBSC).

An answer that opens a session asks the browser for a key (`offer`). From then on the session cookie counts only beside
a second one that lives for minutes; the browser gets the next one for a proof of its key, before it lets a request go.

Laws: the first key of a session stays its only key. A challenge is good once, for one session and one use; no cookie is
looked at beside it, because a browser that a link on another site made act sends none. A session without a key goes on
as it is: most browsers have none. One whose key is not proven is refused, at every request, and
when `GRACE_S` after the first such request there is still no proof, the next one ends the session: a browser that
could not reach us, or was held up by its own limits, has that long to catch up.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from gateway.core import paths
from gateway.core.cookies import BOUND, SESSION, SSO, cookie, digest, read_cookie
from gateway.core.ports.documents import Documents
from gateway.core.reasons import Refusal
from gateway.core.request import RequestFacts
from gateway.identity.jose.key_proof import ClaimedProof, public_key, read_proof
from gateway.identity.sessions.browser_sessions import BrowserSession, BrowserSessions
from gateway.identity.sessions.login_sessions import LoginSession, LoginSessions
from gateway.state.collection import Codec, Collection, Entry

COLLECTION, CHALLENGES = "dbsc", "dbsc_challenge"
REGISTRATION, CHALLENGE = "secure-session-registration", "secure-session-challenge"
RESPONSE, SESSION_ID = "secure-session-response", "sec-secure-session-id"
ALGORITHMS = ("ES256", "RS256")
LIFE_S, GRACE_S = 900.0, 300.0
_CHALLENGE_LIFE_S = 300.0
_IN_FLIGHT_S = 10.0  # what was sent before a cookie was there, or ran out, may still arrive
_KEPT_S = 3_600.0
_TYP, _REASON = "dbsc+jwt", "key_proof_invalid"
_TRIES = 5
_QUOTES = 2


@dataclass(frozen=True, slots=True)
class BoundKey:
    """A session's key in the browser. `cookies`: the bound cookies that are good, each a digest and its end.

    `unproven_at`: when the session was first used without its key since the last proof.
    """

    algorithm: str
    jwk: Mapping[str, str]
    registered_at: float
    ends_at: float
    cookies: tuple[tuple[str, float], ...] = field(repr=False)
    unproven_at: float | None = None

    def knows(self, cookie_digest: str, now: float) -> bool:
        """Whether this is the digest of a bound cookie that is good now."""
        return any(now < until and hmac.compare_digest(kept, cookie_digest) for kept, until in self.cookies)


def _decode(value: bytes) -> BoundKey:
    document: dict[str, Any] = json.loads(value)
    return BoundKey(**(document | {"cookies": tuple((cookie, until) for cookie, until in document["cookies"])}))


_CODEC: Codec[BoundKey] = Codec(
    encode=lambda key: json.dumps(asdict(key), separators=(",", ":")).encode(), decode=_decode
)


@dataclass(frozen=True, slots=True)
class Instructions:
    """The answer to a good proof: status 200, this JSON document, this cookie."""

    document: Mapping[str, Any]
    set_cookie: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Challenged:
    """The answer to a refresh without a proof that can be used: status 403, `header` as Secure-Session-Challenge."""

    header: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Over:
    """The answer to a refresh of a session that is no more: the browser forgets its key."""

    document: Mapping[str, Any] = field(default_factory=lambda: {"continue": False})


class Dbsc:
    """Keys of browser sessions; meets `SessionProof`. `origin` gives a host's web origin. Raises StoreDown."""

    def __init__(
        self,
        documents: Documents,
        cookies: BrowserSessions,
        logins: LoginSessions,
        *,
        origin: Callable[[str], str],
        clock: Callable[[], float],
        random: Callable[[], str],
        life_s: float = LIFE_S,
    ) -> None:
        self._documents = documents
        self._keys = Collection(documents=documents, name=COLLECTION, codec=_CODEC, clock=clock)
        self._cookies = cookies
        self._logins = logins
        self._origin = origin
        self._clock = clock
        self._random = random
        self._life_s = int(life_s)

    # ---- stage 6 ----

    async def prove(self, browser: BrowserSession, login: LoginSession, facts: RequestFacts) -> Sequence[str] | Refusal:
        """`("dbsc",)` beside a good bound cookie, nothing for a session without a key.

        Refusals: `cookie_ambiguous`; `binding_unproven`; `binding_mismatch` once the grace is over.
        """
        now = self._clock()
        entry = await self._keys.read(browser.key)
        key = entry.value
        if key is None:
            return ()
        value = read_cookie(facts.header_values("cookie"), BOUND)
        if isinstance(value, Refusal) and value.reason == "cookie_ambiguous":
            return value
        if isinstance(value, str) and key.knows(digest(value), now):
            return ("dbsc",)
        if now < key.registered_at + _IN_FLIGHT_S:
            return ()
        if key.unproven_at is not None and now >= key.unproven_at + GRACE_S:
            return Refusal("binding_mismatch", login.id)
        if key.unproven_at is None:
            # Lost when a proof comes in between, and then there is nothing to note.
            await self._keys.replace(entry, replace(key, unproven_at=now), key.ends_at + _KEPT_S)
        return Refusal("binding_unproven", login.id)

    # ---- registration ----

    async def offer(self, cookies: Sequence[str]) -> tuple[tuple[str, str], ...]:
        """Header fields for an answer with these Set-Cookie values: where one opens a session, ask for a key."""
        pairs = (text.partition(";")[0].partition("=") for text in cookies)
        opened = [value for name, _, value in pairs if name in {SESSION, SSO} and value]
        if not opened:
            return ()
        challenge = await self._challenge("register", digest(opened[-1]))
        return ((REGISTRATION, f'({" ".join(ALGORITHMS)});path="{paths.DBSC_REGISTER}";challenge="{challenge}"'),)

    async def register(self, facts: RequestFacts) -> Instructions | Refusal:
        """`POST paths.DBSC_REGISTER`: the browser has made a key. Refusal `key_proof_invalid`."""
        proof = self._proof(facts)
        if isinstance(proof, Refusal):
            return proof
        jwk = public_key(proof.jwk) if proof.jwk is not None else None
        if proof.jwk is None or jwk is None:
            return Refusal(_REASON, "no key")
        found = await self._session(facts, await self._answered("register", proof))
        if found is None:
            return Refusal(_REASON, "challenge")
        if not proof.is_signed_by(proof.jwk):
            return Refusal(_REASON, "signature")
        browser, login = found
        key = BoundKey(proof.algorithm, jwk, self._clock(), login.ends_at, ())
        return await self._renew(browser, key, Entry(browser.key, None, 0)) or Refusal(_REASON, "the session has a key")

    # ---- refresh ----

    async def refresh(self, facts: RequestFacts) -> Instructions | Challenged | Over | Refusal:
        """`POST paths.DBSC_REFRESH`: the browser wants the next bound cookie. Refusal `key_proof_invalid`.

        A proof for an old challenge is asked for anew; a session that is over here ends in the browser as well.
        """
        names = facts.header_values(SESSION_ID)
        if len(names) != 1:
            return Refusal(_REASON, "session id")
        # Chromium 150 sends the id without the quotes of a structured field.
        found = await self._session(facts, _unquoted(names[0]))
        if found is None:
            return Over()
        browser, _ = found
        key = await self._keys.get(browser.key)
        if key is None:
            return Over()
        if facts.header(RESPONSE) is None:
            return await self._challenged(browser)
        proof = self._proof(facts)
        if isinstance(proof, Refusal):
            return proof
        if proof.jwk is not None or proof.algorithm != key.algorithm:
            return Refusal(_REASON, "a key or an algorithm of its own")
        if await self._answered("refresh", proof) != browser.key:
            return await self._challenged(browser)
        if not proof.is_signed_by(key.jwk):
            return Refusal(_REASON, "signature")
        async for entry in self._keys.attempts(browser.key, _TRIES):
            if entry.value is None:
                return Over()
            if renewed := await self._renew(browser, entry.value, entry):
                return renewed
        return await self._challenged(browser)

    # ---- the parts ----

    def _proof(self, facts: RequestFacts) -> ClaimedProof | Refusal:
        sent = facts.header_values(RESPONSE)
        if len(sent) != 1:
            return Refusal(_REASON, "not one proof")
        return read_proof(_unquoted(sent[0]), typ=_TYP, algorithms=ALGORITHMS, reason=_REASON)

    async def _session(self, facts: RequestFacts, key: str | None) -> tuple[BrowserSession, LoginSession] | None:
        """The session with this key, if it is one of this host and good now."""
        browser = await self._cookies.at(key) if key is not None else None
        if browser is None or browser.host != facts.host:
            return None
        login = await self._logins.live(browser.login_id)
        return None if isinstance(login, Refusal) else (browser, login)

    async def _challenge(self, use: str, session_key: str) -> str:
        challenge = self._random()
        value = json.dumps({"use": use, "session": session_key}).encode()
        ends_at = self._clock() + _CHALLENGE_LIFE_S
        await self._documents.put(CHALLENGES, digest(challenge), value, ends_at, version=0)
        return challenge

    async def _challenged(self, browser: BrowserSession) -> Challenged:
        return Challenged(f'"{await self._challenge("refresh", browser.key)}";id="{browser.key}"')

    async def _answered(self, use: str, proof: ClaimedProof) -> str | None:
        """The key of the session whose challenge this answers; the challenge is then used up, good proof or not."""
        said = proof.claims.get("jti")
        document = (
            await self._documents.take(CHALLENGES, digest(said), self._clock()) if isinstance(said, str) else None
        )
        asked: Mapping[str, str] = {} if document is None else json.loads(document.value)
        return asked.get("session") if asked.get("use") == use else None

    async def _renew(self, browser: BrowserSession, key: BoundKey, over: Entry[BoundKey]) -> Instructions | None:
        """A new bound cookie beside those that are still good; None when somebody else wrote meanwhile."""
        now, value = self._clock(), self._random()
        good = tuple(item for item in key.cookies if now < item[1])[-1:]
        fresh = (digest(value), now + self._life_s + _IN_FLIGHT_S)
        renewed = replace(key, cookies=(*good, fresh), unproven_at=None)
        if not await self._keys.replace(over, renewed, key.ends_at + _KEPT_S):
            return None
        return Instructions(self._document(browser), cookie(BOUND, value, self._life_s))

    def _document(self, browser: BrowserSession) -> Mapping[str, Any]:
        """The session's instructions to the browser."""
        return {
            "session_identifier": browser.key,
            "refresh_url": paths.DBSC_REFRESH,
            "scope": {
                "origin": self._origin(browser.host),
                "include_site": False,
                "scope_specification": [{"type": "exclude", "domain": browser.host, "path": paths.DBSC}],
            },
            # The attributes are those of the Set-Cookie field itself, its life apart, or the browser ends the session.
            "credentials": [{"type": "cookie", "name": BOUND, "attributes": cookie(BOUND, "").partition("; ")[2]}],
            # A link on another site leads here too; without this the browser would follow it with no fresh cookie.
            "allowed_refresh_initiators": ["*"],
        }


def _unquoted(text: str) -> str:
    """A structured field's string, or the bare text that stands in its place."""
    return text[1:-1] if len(text) >= _QUOTES and text[0] == text[-1] == '"' else text
