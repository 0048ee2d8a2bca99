"""From the gateway's own host back to a service: a ticket, good once, for one host, one browser, one minute.

A session cookie belongs to one host (`__Host-`), so the sign-in ends with a visit there. What comes of it is a value:
`Redirect` to where the person wanted to go, or `Resume` when a form is to go on that a redirect would lose.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Callable
from urllib.parse import urlencode

from gateway.core import paths
from gateway.core.cookies import BINDING, SESSION, cookie, digest, is_value, read_cookie
from gateway.core.navigation import Redirect, Resume
from gateway.core.ports.documents import Documents
from gateway.core.reasons import Refusal
from gateway.core.request import RequestFacts
from gateway.core.subject import Device
from gateway.identity.login.browser_seal import seal, unseal
from gateway.identity.login.pending_requests import PendingRequest, PendingRequests, cookies_going_on
from gateway.identity.sessions.browser_sessions import BrowserSessions
from gateway.identity.sessions.login_sessions import LoginSession, LoginSessions
from gateway.identity.sessions.verification import is_foreign_device

COLLECTION = "ticket"
TICKET_LIFE_S = 60.0


class ReturnTickets:
    """Tickets and arrivals. `host` is the gateway's own, `origin` a host's web origin. Raises StoreDown."""

    def __init__(
        self,
        documents: Documents,
        cookies: BrowserSessions,
        logins: LoginSessions,
        held: PendingRequests,
        *,
        host: str,
        origin: Callable[[str], str],
        clock: Callable[[], float],
        random: Callable[[], str],
    ) -> None:
        self._documents = documents
        self._cookies = cookies
        self._logins = logins
        self._held = held
        self._host = host
        self._origin = origin
        self._clock = clock
        self._random = random

    def to_login(self, held: PendingRequest) -> str:
        """Where the sign-in for a held request begins."""
        return f"{self._origin(self._host)}{paths.LOGIN}?{urlencode({'held': held.id})}"

    def to_step_up(self, held: PendingRequest) -> str:
        """Where somebody proves what a held request needs."""
        return f"{self._origin(self._host)}{paths.STEP_UP}?{urlencode({'held': held.id})}"

    async def leave(self, login: LoginSession, held: PendingRequest) -> str:
        """Where somebody who is signed in goes on with a held request: its host, with a ticket."""
        if held.host == self._host:
            await self._held.take(held.id)
            return held.target
        ticket = self._random()
        document = {
            "login": login.id,
            "rotation": login.rotation,
            "held": held.id,
            "host": held.host,
            "binding": held.binding,
        }
        value = seal(ticket, COLLECTION, json.dumps(document).encode())
        await self._documents.put(COLLECTION, digest(ticket), value, self._clock() + TICKET_LIFE_S, version=0)
        return f"{self._origin(held.host)}{paths.SESSION}?{urlencode({'ticket': ticket})}"

    async def arrive(self, facts: RequestFacts, device: Device | None) -> Redirect | Resume | Refusal:
        """A visit with a ticket makes the host's session.

        Refusals: `malformed_request`, `login_expired`, `login_other_browser`, `login_failed`, `binding_mismatch`,
        `cookie_ambiguous`.
        """
        ticket = one_field(facts, "ticket")
        if ticket is None or facts.method != "GET" or not is_value(ticket):
            return Refusal("malformed_request", "ticket")
        sent = facts.header_values("cookie")
        binding, previous = read_cookie(sent, BINDING), read_cookie(sent, SESSION)
        for found in (binding, previous):
            if isinstance(found, Refusal) and found.reason == "cookie_ambiguous":
                return found
        document = await self._documents.take(COLLECTION, digest(ticket), self._clock())
        if document is None:
            return Refusal("login_expired", "ticket")
        said = json.loads(unseal(ticket, COLLECTION, document.value))
        if said["host"] != facts.host:
            return Refusal("login_failed", "a ticket for another host")
        if not isinstance(binding, str) or not hmac.compare_digest(digest(binding), said["binding"]):
            return Refusal("login_other_browser", "ticket")
        login = await self._logins.live(said["login"])
        if isinstance(login, Refusal) or login.rotation != said["rotation"]:
            # Another tab signed in meanwhile and ended this session, or stepped up: its request still waits.
            held = await self._held.look(said["held"])
            if held is not None:
                return Redirect(self.to_login(held))
            return login if isinstance(login, Refusal) else Refusal("login_expired", "a ticket from before a step-up")
        if is_foreign_device(login, None, device):
            await self._logins.end(login.id, "its ticket was used without its device")
            return Refusal("binding_mismatch", login.id)
        held = await self._held.take(said["held"])
        if held is None or held.host != facts.host:
            return Refusal("login_expired", "held")
        if isinstance(previous, str):
            await self._cookies.close(previous)
        value = await self._cookies.open(login, facts.host, device)
        cookies = (cookie(SESSION, value),)
        if held.is_safe:
            return Redirect(held.target, cookies)
        return Resume(held.raw(cookies_going_on(facts, SESSION, value)), held.body, cookies)


def one_field(facts: RequestFacts, name: str) -> str | None:
    """The value of the only query field, which has this name; None for any other query."""
    return facts.query_fields[0][1] if [key for key, _ in facts.query_fields] == [name] else None
