"""What Zitadel's events do here, and the receiver of its Actions v2 webhooks.

Zitadel delivers an event once at most, in any order, or not at all. So nothing depends on the order: an event only ends
things, doing so twice does no harm, and `zitadel_reconcile` reads the same events again.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Callable, Sequence
from hashlib import sha256

from gateway.core.ports.documents import Documents
from gateway.core.ports.stores import SessionEnder, StoreDown
from gateway.core.reasons import Refusal
from gateway.identity.zitadel.access import ApiFailure
from gateway.identity.zitadel.api import Zitadel
from gateway.identity.zitadel.events import GRANT_ADDED, Event, ending_of, grantee, hook_event

TOLERANCE_S = 300
BODY_LIMIT_BYTES = 65_536
_EVENTS, _GRANTS = "zitadel_event", "zitadel_grant"
_REMEMBER_S = 86_400.0
_GRANT_LIFE_S = 400 * 86_400.0
_MAX_PARTS = 16
_TIME = re.compile(r"[0-9]{1,12}\Z")
_MAC = re.compile(r"[0-9a-f]{64}\Z")


class EventActor:
    """Does what events of one issuer call for, each once.

    `api` None: a grant whose beginning was not seen here stays unknown.
    """

    def __init__(
        self,
        issuer: str,
        ender: SessionEnder,
        documents: Documents,
        clock: Callable[[], float],
        api: Zitadel | None = None,
    ) -> None:
        self._issuer = issuer
        self._ender = ender
        self._documents = documents
        self._clock = clock
        self._api = api

    async def act(self, event: Event) -> int | Refusal:
        """How many sessions the event ended here; 0 as well for one that was dealt with before.

        Refusal `issuer_unavailable` when Zitadel must be asked whom a grant belonged to and cannot be. Raises
        StoreDown. After both the event may come again.
        """
        now = self._clock()
        user = grantee(event)
        if event.type == GRANT_ADDED and user is not None:
            await self._remember(event.aggregate_id, user, now)
            return 0
        ending = ending_of(event)
        if ending is None:
            return 0
        key = self._key(event.key)
        if await self._documents.get(_EVENTS, key, now) is not None:
            return 0
        subject: str | Refusal | None = ending.subject
        if ending.grant is not None:
            subject = await self._holder(ending.grant, now)
        if isinstance(subject, Refusal):
            return subject
        ended = 0
        if ending.sid is not None or subject is not None:
            # Whoever had to change the password to sign in has signed in since.
            before = None if ending.is_final else event.created_at.timestamp()
            ended = await self._ender.end_login_sessions(
                self._issuer, sid=ending.sid, subject=subject, why=ending.why, before=before
            )
        await self._documents.overwrite(_EVENTS, key, b"{}", now + _REMEMBER_S)
        return ended

    async def _holder(self, grant: str, now: float) -> str | Refusal | None:
        """Whom a grant belongs to. Zitadel: the event that removes one does not say; the event that added it did."""
        held = await self._documents.get(_GRANTS, self._key(grant), now)
        if held is not None:
            return held.value.decode("utf-8")
        if self._api is None:
            return Refusal("issuer_unavailable", "a grant that was never seen")
        page = await self._api.events([GRANT_ADDED], aggregate_id=grant, limit=10)
        if isinstance(page, ApiFailure):
            return Refusal("issuer_unavailable", page.kind)
        user = next((user for event in page.events if (user := grantee(event))), None)
        if user is not None:
            await self._remember(grant, user, now)
        return user

    async def _remember(self, grant: str, user: str, now: float) -> None:
        await self._documents.overwrite(_GRANTS, self._key(grant), user.encode("utf-8"), now + _GRANT_LIFE_S)

    def _key(self, name: str) -> str:
        return sha256(f"{self._issuer}|{name}".encode()).hexdigest()


class HookReceiver:
    """The receiver of one target's webhooks. Several keys while one follows another. Raises ValueError without any."""

    def __init__(self, keys: Sequence[bytes], actor: EventActor, clock: Callable[[], float]) -> None:
        if not keys or not all(keys):
            raise ValueError("a webhook needs a signing key")
        self._keys = tuple(keys)
        self._actor = actor
        self._clock = clock

    def __repr__(self) -> str:
        return "HookReceiver()"

    async def receive(self, signatures: Sequence[str], body: bytes) -> int | Refusal:
        """Act on a delivery: the values of its `ZITADEL-Signature` headers and its body as it came.

        How many sessions it ended. Refusal `token_malformed`, `token_signature_invalid`, `token_expired` (a time too
        far from ours), `malformed_request` (a signed body that cannot be read), `issuer_unavailable`, `store_down`.
        """
        if len(body) > BODY_LIMIT_BYTES:
            return Refusal("body_too_large")
        if len(signatures) != 1:
            return Refusal("token_malformed", "not exactly one signature header")
        refusal = self._verify(signatures[0], body)
        if refusal is not None:
            return refusal
        event = hook_event(body)
        if event is None:
            return Refusal("malformed_request", "not an event")
        try:
            return await self._actor.act(event)
        except StoreDown:
            return Refusal("store_down", "webhook")

    def _verify(self, header: str, body: bytes) -> Refusal | None:
        pairs = [part.strip().partition("=") for part in header.split(",")]
        times = [value for name, _, value in pairs if name == "t"]
        macs = [value.encode() for name, _, value in pairs if name == "v1" and _MAC.match(value)]
        if len(pairs) > _MAX_PARTS or len(times) != 1 or not _TIME.match(times[0]) or not macs:
            return Refusal("token_malformed", "signature header")
        signed = times[0].encode("ascii") + b"." + body
        good = False
        for key in self._keys:
            ours = hmac.new(key, signed, sha256).hexdigest().encode("ascii")
            for mac in macs:
                good |= hmac.compare_digest(ours, mac)
        if not good:
            return Refusal("token_signature_invalid")
        # After the signature: an unsigned time says nothing about the delivery.
        if abs(self._clock() - int(times[0])) > TOLERANCE_S:
            return Refusal("token_expired", "signed too long ago, or in the future")
        return None
