"""Signing in: OpenID Connect with code and PKCE, as a state table (RFC 9700, RFC 9207, OpenID Connect Core 1.0).

Laws: a step that is not in the table refuses the sign-in. A transaction is known by its state alone, is taken once, and
belongs to the browser that began it and to the issuer it was begun with. Nobody is sent to an address that came with a
request: the way back is always a held request.
"""

from __future__ import annotations

import hmac
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from urllib.parse import urlencode

from gateway.core import paths
from gateway.core.cookies import BINDING, SSO, cookie, digest, is_value, read_cookie
from gateway.core.decision import StepUp
from gateway.core.navigation import Redirect
from gateway.core.ports.documents import Documents
from gateway.core.reasons import Refusal
from gateway.core.request import RequestFacts
from gateway.core.routes import Route
from gateway.core.subject import Device
from gateway.identity.login.browser_seal import seal, unseal
from gateway.identity.login.pending_requests import LIFE_S as HELD_LIFE_S
from gateway.identity.login.pending_requests import PendingRequest, PendingRequests
from gateway.identity.login.return_ticket import ReturnTickets
from gateway.identity.oidc.claims import identity_of
from gateway.identity.oidc.relying_party import RelyingParty
from gateway.identity.sessions.browser_sessions import BrowserSessions
from gateway.identity.sessions.login_sessions import LoginSession, LoginSessions
from gateway.identity.sessions.verification import (
    SessionProof,
    check_rotation,
    locate_session,
    verify_device_binding,
    verify_proofs,
)

COLLECTION = "login"
TRANSACTION_LIFE_S = 600.0
_CODE = re.compile(r"[\x21-\x7e]{1,4096}\Z")
_ANSWER = ("state", "code", "error", "iss")
_AGENT_LIMIT = 200


class Step(StrEnum):
    """How far a sign-in is."""

    WAITING = "waiting"  # a request waits, nobody is asked yet
    AT_ISSUER = "at_issuer"  # the browser is at the issuer
    RETURNED = "returned"  # it came back, with a code
    PROVEN = "proven"  # the code gave tokens, and they say who it is
    GRANTED = "granted"  # a login session is made
    REFUSED = "refused"


class Event(StrEnum):
    """What can happen to a sign-in."""

    SENT = "sent"
    CODE = "code"
    ERROR = "error"
    TOKENS = "tokens"
    SESSION = "session"


NEXT: Mapping[tuple[Step, Event], Step] = {
    (Step.WAITING, Event.SENT): Step.AT_ISSUER,
    (Step.AT_ISSUER, Event.CODE): Step.RETURNED,
    (Step.RETURNED, Event.TOKENS): Step.PROVEN,
    (Step.PROVEN, Event.SESSION): Step.GRANTED,
}


def advance(step: Step, event: Event) -> Step:
    """The table; whatever is not in it is a refusal, and no refusal is ever left."""
    return NEXT.get((step, event), Step.REFUSED)


@dataclass(frozen=True, slots=True)
class Transaction:
    """One sign-in under way. `binding` is the digest of the browser's binding cookie; `held` the request that waits."""

    step: Step
    slug: str
    nonce: str = field(repr=False)
    verifier: str = field(repr=False)
    held: str = field(repr=False)
    binding: str = field(repr=False)
    begun_at: float
    fresh: bool = False

    def after(self, event: Event) -> Transaction:
        """This transaction, one step on."""
        return replace(self, step=advance(self.step, event))


@dataclass(frozen=True, slots=True)
class LoginCompleted:
    """Somebody signed in; `redirect` leads on. `zero_log`: it was for a service that leaves no trace."""

    login: LoginSession
    redirect: Redirect
    zero_log: bool = False


@dataclass(frozen=True, slots=True)
class IssuerChoice:
    """Several issuers will do: (issuer, where to go on with it) for each."""

    ways: tuple[tuple[str, str], ...]


class Login:
    """Sign-ins at the configured issuers, on the gateway's own `host`. Raises StoreDown."""

    def __init__(
        self,
        parties: Sequence[RelyingParty],
        documents: Documents,
        held: PendingRequests,
        logins: LoginSessions,
        cookies: BrowserSessions,
        handover: ReturnTickets,
        *,
        host: str,
        clock: Callable[[], float],
        random: Callable[[], str],
        proofs: Sequence[SessionProof] = (),
    ) -> None:
        self._parties = {party.slug: party for party in parties}
        if len(self._parties) != len(parties):
            raise ValueError("two issuers have the same redirect URI")
        self._documents = documents
        self._held = held
        self._logins = logins
        self._cookies = cookies
        self._handover = handover
        self._host = host
        self._clock = clock
        self._random = random
        self._proofs = proofs

    async def start(
        self,
        facts: RequestFacts,
        route: Route | None,
        body: bytes | None,
        *,
        fresh: bool = False,
        step_up: StepUp | None = None,
        reasons: Sequence[str] = (),
    ) -> Redirect | Refusal:
        """Let a page request wait and send its sender to sign in; `fresh`: even when a session is there.

        With `step_up` they are sent to prove that; `reasons` are policy's for it.
        `body` None: it is not there as a whole. Refusals: `login_required` when nobody can sign in for this or it
        cannot wait, `cookie_ambiguous`, `too_many_attempts`.
        """
        if not self._fitting(route.issuers if route is not None else ()):
            return Refusal("login_required", "no issuer to sign in at")
        binding = self._binding(facts)
        if isinstance(binding, Refusal):
            return binding
        held = await self._held.hold(facts, route, body, binding, fresh=fresh, step_up=step_up, reasons=reasons)
        if isinstance(held, Refusal):
            return held
        way = self._handover.to_login(held) if step_up is None else self._handover.to_step_up(held)
        return Redirect(way, (cookie(BINDING, binding, HELD_LIFE_S),))

    async def begin(self, facts: RequestFacts, device: Device | None) -> Redirect | IssuerChoice | Refusal:
        """`GET /.gateway/login?held=...[&issuer=slug]`: on with the session that is there, or to the issuer.

        Refusals: `malformed_request`, `login_expired`, `login_failed`, `cookie_ambiguous`, `binding_mismatch`,
        `issuer_unavailable`.
        """
        query = fields_of(facts, ("held", "issuer"))
        if query is None or "held" not in query:
            return Refusal("malformed_request", "query")
        held = await self._held.look(query["held"])
        if held is None:
            return Refusal("login_expired", "held")
        parties = self._fitting(held.issuers)
        login = await self.signed_in(facts, device)
        if isinstance(login, Refusal) and login.reason in {"cookie_ambiguous", "binding_mismatch"}:
            return login
        accepted = {party.config.issuer for party in parties}
        if isinstance(login, LoginSession) and not held.fresh and login.identity.issuer in accepted:
            return Redirect(await self._handover.leave(login, held))
        if "issuer" in query:
            parties = [party for party in parties if party.slug == query["issuer"]]
        if len(parties) > 1:
            ways = (
                (p.config.issuer, f"{paths.LOGIN}?{urlencode({'held': held.id, 'issuer': p.slug})}") for p in parties
            )
            return IssuerChoice(tuple(ways))
        return await self._send(parties[0], held, facts) if parties else Refusal("login_failed", "no such issuer")

    async def callback(self, facts: RequestFacts, device: Device | None, slug: str) -> LoginCompleted | Refusal:
        """`GET /.gateway/callback/{slug}`: what the issuer sent back with the browser.

        Refusals: `malformed_request`, `login_expired`, `login_other_browser`, `login_failed`, `login_denied`,
        `auth_stale`, `amr_missing`, `session_revoked`, `cookie_ambiguous`, `issuer_unavailable`.
        """
        answer = fields_of(facts, _ANSWER, others=True)
        if answer is None or not is_value(answer.get("state", "")) or ("code" in answer) == ("error" in answer):
            return Refusal("malformed_request", "authorization response")
        binding = read_cookie(facts.header_values("cookie"), BINDING)
        document = await self._documents.take(COLLECTION, digest(answer["state"]), self._clock())
        if isinstance(binding, Refusal) and binding.reason == "cookie_ambiguous":
            return binding
        if document is None:
            return Refusal("login_expired", "state")
        found = json.loads(unseal(answer["state"], COLLECTION, document.value))
        transaction = Transaction(**(found | {"step": Step(found["step"])}))
        if not isinstance(binding, str) or not hmac.compare_digest(digest(binding), transaction.binding):
            return Refusal("login_other_browser", "state")
        party = self._parties.get(slug)
        if party is None or not hmac.compare_digest(slug.encode(), transaction.slug.encode()):
            return Refusal("login_failed", "the answer came to another issuer's redirect URI")
        if refusal := await _check_issuer(party, answer.get("iss")):
            return refusal
        transaction = transaction.after(Event.CODE if "code" in answer else Event.ERROR)
        if transaction.step is not Step.RETURNED or not _CODE.match(answer.get("code", "")):
            error = answer.get("error", "")
            return Refusal("login_denied" if error == "access_denied" else "login_failed", _plain(error)[:64])
        return await self._grant(party, transaction, answer["code"], facts, device)

    async def signed_in(self, facts: RequestFacts, device: Device | None) -> LoginSession | Refusal | None:
        """The login session of this browser on the gateway's own host; None without its cookie.

        Refusals: those of `sessions.verification`; `binding_mismatch` ends the session.
        """
        value = read_cookie(facts.header_values("cookie"), SSO)
        if not isinstance(value, str):
            return value
        session = await locate_session(self._cookies, self._logins, value, self._host, end_elsewhere=False)
        if isinstance(session, Refusal):
            return session
        browser, login = session
        refusal = await verify_device_binding(self._logins, login, browser, device) or check_rotation(browser, login)
        if refusal is not None:
            return refusal
        proven = await verify_proofs(self._logins, self._proofs, browser, login, facts)
        return proven if isinstance(proven, Refusal) else login

    # ---- the steps ----

    async def _send(self, party: RelyingParty, held: PendingRequest, facts: RequestFacts) -> Redirect | Refusal:
        """WAITING -> AT_ISSUER."""
        binding = self._binding(facts)
        if isinstance(binding, Refusal):
            return binding
        state, now = self._random(), self._clock()
        waiting = Transaction(
            step=Step.WAITING,
            slug=party.slug,
            nonce=self._random(),
            verifier=self._random(),
            held=held.id,
            binding=digest(binding),
            begun_at=now,
            fresh=held.fresh,
        )
        transaction = waiting.after(Event.SENT)
        url = await party.authorization_url(
            state=state,
            nonce=transaction.nonce,
            verifier=transaction.verifier,
            max_age_s=0 if held.fresh else party.login.max_age_s,
            prompt="login" if held.fresh else None,
        )
        if isinstance(url, Refusal):
            return url
        value = seal(state, COLLECTION, json.dumps(asdict(transaction)).encode())
        await self._documents.put(COLLECTION, digest(state), value, now + TRANSACTION_LIFE_S, version=0)
        return Redirect(url, (cookie(BINDING, binding, HELD_LIFE_S),))

    async def _grant(
        self, party: RelyingParty, transaction: Transaction, code: str, facts: RequestFacts, device: Device | None
    ) -> LoginCompleted | Refusal:
        """RETURNED -> PROVEN -> GRANTED."""
        # Of a fresh sign-in, only one that happened after it was asked for will do.
        max_age_s = self._clock() - transaction.begun_at if transaction.fresh else party.login.max_age_s
        redeemed = await party.redeem(code, nonce=transaction.nonce, verifier=transaction.verifier, max_age_s=max_age_s)
        if isinstance(redeemed, Refusal):
            return redeemed
        tokens, claims = redeemed
        transaction = transaction.after(Event.TOKENS)
        sid = str(claims.get("sid", ""))
        identity = identity_of(claims, party.config, kind="session", expires_at=float(claims["exp"]), hint="")
        if isinstance(identity, Refusal):
            return Refusal("login_failed", f"id token: {identity.detail}")
        held = await self._held.look(transaction.held)
        zero_log = held is not None and held.zero_log
        login = await self._logins.create(
            identity,
            sid,
            tokens,
            device_id="" if device is None else device.id,
            agent="" if zero_log else _plain(facts.header("user-agent") or "")[:_AGENT_LIMIT],
            issued_at=float(claims["iat"]),
        )
        if isinstance(login, Refusal):
            return login
        transaction = transaction.after(Event.SESSION)
        if transaction.step is not Step.GRANTED:
            await self._logins.end(login.id, "a step out of order")
            return Refusal("login_failed", transaction.step)
        await self._replace(facts)
        value = await self._cookies.open(login, self._host, device)
        onward = paths.ME if held is None else await self._handover.leave(login, held)
        return LoginCompleted(login, Redirect(onward, (cookie(SSO, value),)), zero_log)

    async def _replace(self, facts: RequestFacts) -> None:
        """What this browser was signed in with before ends, its cookie with it."""
        value = read_cookie(facts.header_values("cookie"), SSO)
        previous = await self._cookies.find(value) if isinstance(value, str) else None
        if previous is not None and isinstance(value, str):
            await self._cookies.close(value)
            await self._logins.end(previous.login_id, "replaced by a new sign-in")

    def _fitting(self, issuers: Sequence[str]) -> list[RelyingParty]:
        """The issuers to sign in at for a service that accepts `issuers`; empty accepts every one."""
        return [party for party in self._parties.values() if not issuers or party.config.issuer in issuers]

    def _binding(self, facts: RequestFacts) -> str | Refusal:
        """The browser's binding cookie on this host, or a new one: tabs that sign in at once share it."""
        value = read_cookie(facts.header_values("cookie"), BINDING)
        if isinstance(value, Refusal) and value.reason == "cookie_ambiguous":
            return value
        return value if isinstance(value, str) else self._random()


def fields_of(facts: RequestFacts, names: Sequence[str], *, others: bool = False) -> dict[str, str] | None:
    """The query fields of these names; None when one stands there twice, or another one and `others` is False."""
    keys = [name for name, _ in facts.query_fields if name in names]
    if len(set(keys)) != len(keys) or (not others and len(keys) != len(facts.query_fields)):
        return None
    return {name: value for name, value in facts.query_fields if name in names}


async def _check_issuer(party: RelyingParty, said: str | None) -> Refusal | None:
    """RFC 9207: an answer that names its issuer names this one; an issuer that says it does so always does."""
    published = await party.published()
    if isinstance(published, Refusal):
        return published
    if (said is None and published.names_itself) or (said is not None and said != party.config.issuer):
        return Refusal("login_failed", "iss of the authorization response")
    return None


def _plain(text: str) -> str:
    return "".join(letter if letter.isascii() and letter.isprintable() else "?" for letter in text)
