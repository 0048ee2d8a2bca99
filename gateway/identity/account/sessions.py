"""What people do about their own sessions: look at them, end one, end all others, sign out.

Law: nothing here changes anything unless the gateway's own page asked for it: our Origin, `Sec-Fetch-Site: same-origin`
where the browser says it, and a token that only a page made for this very cookie knows.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from gateway.core import paths
from gateway.core.cookies import SSO, no_cookie, read_cookie
from gateway.core.navigation import Redirect
from gateway.core.ports.stores import DeviceStore
from gateway.core.reasons import Refusal
from gateway.core.request import RequestFacts
from gateway.core.subject import Device
from gateway.identity.jose.jws import b64url_encode
from gateway.identity.login.flow import Login
from gateway.identity.oidc.relying_party import RelyingParty
from gateway.identity.sessions.browser_sessions import BrowserSessions
from gateway.identity.sessions.login_sessions import LoginSession, LoginSessions

_LABEL = b"gateway/v1/csrf"


@dataclass(frozen=True, slots=True)
class Mine:
    """A person's running sessions, newest first; `csrf` is the token for this browser's own pages.

    `devices` are the names of the devices that they are tied to, by id.
    """

    current: LoginSession
    sessions: tuple[LoginSession, ...]
    csrf: str = field(repr=False)
    devices: Mapping[str, str] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """What the page and the JSON answer show; the token for the page's forms is in it."""
        shown = [
            {
                "id": login.id,
                "current": login.id == self.current.id,
                "created_at": login.created_at,
                "last_seen_at": login.last_seen_at,
                "ends_at": login.ends_at,
                "device_id": login.device_id,
                "device": self.devices.get(login.device_id, ""),
                "browser": login.agent,
            }
            for login in self.sessions
        ]
        identity = self.current.identity
        return {"name": identity.name, "email": identity.email, "sessions": shown, "csrf": self.csrf}


class OwnSessions:
    """For the pages on the gateway's own host. `parties` are the relying parties by issuer. Raises StoreDown."""

    def __init__(
        self,
        login: Login,
        logins: LoginSessions,
        cookies: BrowserSessions,
        parties: Mapping[str, RelyingParty],
        devices: DeviceStore,
        *,
        origin: str,
        random: Callable[[], str],
    ) -> None:
        self._login = login
        self._logins = logins
        self._cookies = cookies
        self._parties = parties
        self._devices = devices
        self._origin = origin
        self._random = random

    async def mine(self, facts: RequestFacts, device: Device | None) -> Mine | Refusal:
        """The sessions of whoever is signed in. Refusal `login_required` or another of `Login.signed_in`."""
        current = await self._login.signed_in(facts, device)
        if not isinstance(current, LoginSession):
            return current or Refusal("login_required")
        found = await self._logins.of_subject(current.identity.issuer, current.identity.subject)
        records = [await self._devices.device(one) for one in {login.device_id for login in found if login.device_id}]
        names = {record.id: record.name for record in records if record is not None}
        return Mine(current, tuple(reversed(found)), self._token(facts), names)

    async def end(self, facts: RequestFacts, device: Device | None, form: Mapping[str, str]) -> int | Refusal:
        """`action=end` with a session's `id`, or `action=end_others`: how many ended.

        Refusals: `csrf_refused`, `malformed_request`, those of `mine`. Somebody else's session is not found: 0.
        """
        mine = await self.allowed(facts, device, form)
        if isinstance(mine, Refusal):
            return mine
        if form.get("action") == "end":
            wanted = [login for login in mine.sessions if login.id == form.get("id")]
        elif form.get("action") == "end_others":
            wanted = [login for login in mine.sessions if login.id != mine.current.id]
        else:
            return Refusal("malformed_request", "action")
        return sum([await self._logins.end(login.id, "ended by its owner") for login in wanted])

    async def sign_out(self, facts: RequestFacts, device: Device | None, form: Mapping[str, str]) -> Redirect | Refusal:
        """End this browser's session here, then at the issuer (RP-Initiated Logout 1.0).

        Refusals: `csrf_refused`, those of `mine`.
        """
        mine = await self.allowed(facts, device, form)
        if isinstance(mine, Refusal):
            return mine
        current = mine.current
        kept = await self._logins.tokens(current.id)
        await self._logins.end(current.id, "signed out")
        value = read_cookie(facts.header_values("cookie"), SSO)
        if isinstance(value, str):
            await self._cookies.close(value)
        party = self._parties.get(current.identity.issuer)
        url = None
        if party is not None:
            hint = kept[0].id_token if kept is not None else None
            url = await party.sign_out_url(hint, self._origin + paths.LOGOUT, self._random())
        return Redirect(url or paths.LOGOUT, (no_cookie(SSO),))

    async def allowed(self, facts: RequestFacts, device: Device | None, form: Mapping[str, str]) -> Mine | Refusal:
        """Whose form this is, if the gateway's own page, made for this cookie, sent it.

        Refusals: `csrf_refused`, those of `mine`.
        """
        if facts.method != "POST" or facts.header_values("origin") != [self._origin]:
            return Refusal("csrf_refused", "origin")
        if facts.header_values("sec-fetch-site") not in ([], ["same-origin"]):
            return Refusal("csrf_refused", "sec-fetch-site")
        mine = await self.mine(facts, device)
        if isinstance(mine, Refusal):
            return mine
        if not hmac.compare_digest(mine.csrf.encode(), form.get("csrf", "").encode("utf-8", "replace")):
            return Refusal("csrf_refused", "token")
        return mine

    def _token(self, facts: RequestFacts) -> str:
        value = read_cookie(facts.header_values("cookie"), SSO)
        text = value.encode("ascii") if isinstance(value, str) else b""
        return b64url_encode(hashlib.sha256(_LABEL + b"\0" + text).digest())
