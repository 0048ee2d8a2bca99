"""Signing in: the good way, and everything that must not pass for it."""

from __future__ import annotations

from gateway.core.cookies import SSO
from tests.support.login_world import (
    HOST,
    WIKI,
    Browser,
    World,
    reason_of,
)

PAGE_URL = f"https://{WIKI}/page?x=1"


async def refused(world: World, browser: Browser, **sent: str) -> str:
    """The reason why a sign-in is refused at its return; the person is not signed in afterwards."""
    outcome = await world.back(browser, world.provider.authorize(await world.to_issuer(browser, PAGE_URL), **sent))
    assert SSO not in browser.jars[HOST]
    assert not world.documents.of("login_session")
    return reason_of(outcome)
