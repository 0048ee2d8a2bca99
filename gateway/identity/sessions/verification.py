"""Session cookie verification: the one place that says whether a cookie is good here, now, and for its holder.

Laws: a cookie is good on the host it was made for, and nowhere else. A session that was made over a device certificate
is good with that device alone, one with a key in the browser with that key: the first use without it ends the login
session.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from gateway.core.reasons import Refusal
from gateway.core.request import RequestFacts
from gateway.core.subject import Device
from gateway.identity.sessions.browser_sessions import BrowserSession, BrowserSessions
from gateway.identity.sessions.login_sessions import LoginSession, LoginSessions


class SessionProof(Protocol):
    """A further proof that a session is used by its holder (a key in the browser)."""

    async def prove(self, browser: BrowserSession, login: LoginSession, facts: RequestFacts) -> Sequence[str] | Refusal:
        """The names of the proofs that held, none when the session has no such key; a Refusal stops."""


async def locate_session(
    cookies: BrowserSessions, logins: LoginSessions, value: str, host: str, *, end_elsewhere: bool = True
) -> tuple[BrowserSession, LoginSession] | Refusal:
    """The session of a cookie value that came to `host`, and its login session, which lives. Raises StoreDown.

    Refusals: `login_required` for a value that is none; `binding_mismatch` for the cookie of another host, which ends
    the login session (with `end_elsewhere` False it is only none here); `session_expired`, `session_revoked`.
    """
    browser = await cookies.find(value)
    if browser is None or (browser.host != host and not end_elsewhere):
        return Refusal("login_required", "an unknown session cookie")
    if browser.host != host:
        await logins.end(browser.login_id, "its cookie was used on another host")
        return Refusal("binding_mismatch", f"a cookie of {browser.host}")
    login = await logins.live(browser.login_id)
    return login if isinstance(login, Refusal) else (browser, login)


def check_rotation(browser: BrowserSession, login: LoginSession) -> Refusal | None:
    """`login_required` for a cookie from before the last change of what its login session may do."""
    return None if browser.rotation == login.rotation else Refusal("login_required", "a cookie from before a step-up")


async def verify_device_binding(
    logins: LoginSessions, login: LoginSession, browser: BrowserSession, device: Device | None
) -> Refusal | None:
    """`binding_mismatch` for a session that is used without its device, which ends it. Raises StoreDown."""
    if not is_foreign_device(login, browser, device):
        return None
    await logins.end(login.id, "its cookie was used without its device")
    return Refusal("binding_mismatch", login.id)


async def verify_proofs(
    logins: LoginSessions,
    proofs: Sequence[SessionProof],
    browser: BrowserSession,
    login: LoginSession,
    facts: RequestFacts,
) -> tuple[str, ...] | Refusal:
    """The names of the proofs that held, or the first refusal; `binding_mismatch` ends the session."""
    proven: list[str] = []
    for proof in proofs:
        names = await proof.prove(browser, login, facts)
        if isinstance(names, Refusal):
            if names.reason == "binding_mismatch":
                await logins.end(login.id, "its key was not proven")
            return names
        proven += names
    return tuple(proven)


def is_foreign_device(login: LoginSession, browser: BrowserSession | None, device: Device | None) -> bool:
    """Whether a session that is bound to a device is used with another one, or none."""
    bound = {login.device_id, "" if browser is None else browser.device_id} - {""}
    return bool(bound) and bound != {"" if device is None else device.id}
