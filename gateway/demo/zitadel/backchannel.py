"""Back-channel logout of the emulated instance (OpenID Connect Back-Channel Logout 1.0)."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

from gateway.demo.idp.token_issuer import TokenIssuer, snowflake
from gateway.demo.zitadel.courier import Courier

_EVENT = "http://schemas.openid.net/event/backchannel-logout"
ATTEMPTS, TIMEOUT_S, TOKEN_LIFE_S = 3, 5.0, 900
_DELIVERED = frozenset({200, 202, 204})
_DROPPED = 400


class LogoutSender:
    """Tells clients that a session ended. `wait_s` lies between attempts."""

    def __init__(self, office: TokenIssuer, courier: Courier, clock: Callable[[], float], wait_s: float = 0.2) -> None:
        self.wait_s = wait_s
        self._office, self._courier, self._clock = office, courier, clock

    def token(self, subject: str, sid: str, client: str) -> str:
        """Zitadel C11: header typ is "JWT", aud the one client, exp fifteen minutes on; sid and sub, never a nonce."""
        now = int(self._clock())
        events: dict[str, Any] = {_EVENT: {}}
        claims = {"iss": self._office.issuer, "sub": subject, "aud": [client], "iat": now, "exp": now + TOKEN_LIFE_S}
        return self._office.keys[0].sign({**claims, "jti": snowflake(), "sid": sid, "events": events})

    def send(self, uri: str, subject: str, sid: str, client: str) -> None:
        """Post soon. Zitadel C11: 3 attempts of 5 s; 200, 202, 204 are good, and 400 counts as delivered."""

        def deliver() -> None:
            body = urlencode({"logout_token": self.token(subject, sid, client)}).encode()
            headers = {"content-type": "application/x-www-form-urlencoded"}
            for attempt in range(ATTEMPTS):
                if attempt:
                    time.sleep(self.wait_s)
                status = self._courier.post(uri, body, headers, TIMEOUT_S)
                if status in _DELIVERED or status == _DROPPED:
                    return

        self._courier.later("logout", deliver)
