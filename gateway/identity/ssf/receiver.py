"""Other systems' shared signals, followed here: pushed (RFC 8935) or polled (RFC 8936).

Laws: an event is done before it is acknowledged; one that came twice is done once. What tightens is believed of every
configured source; nothing that a source says grants anything.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any, Protocol

from gateway.config import Issuer
from gateway.core.ports.documents import Documents
from gateway.core.ports.http import HttpClient, Unreachable
from gateway.core.ports.stores import Changes, DeviceRecord, DeviceStore, SessionEnder, StoreDown
from gateway.core.reasons import Refusal
from gateway.core.subject import subject_key
from gateway.identity.jose.strict_json import read_object
from gateway.identity.oidc.discovery import IssuerDirectory
from gateway.identity.ssf.events import (
    ASSURANCE,
    COMPLIANCE,
    CREDENTIAL,
    RISK,
    SESSION_REVOKED,
    SecurityEvent,
    verified_set,
)
from gateway.state.collection import Codec, Collection

RISKS = "external_risk"
_SEEN = "set_seen"
_SEEN_S, _RISK_S = 8 * 86_400.0, 86_400.0
_GONE = frozenset({"account-disabled", "account-purged", "account-credential-change-required", "identifier-changed"})
_LEVELS = {"LOW": "low", "MEDIUM": "medium", "HIGH": "high"}
_MAX_EVENTS, _TIMEOUT_S, _SUCCESS = 50, 20.0, 200
_RISKS_BY_SOURCE: Codec[dict[str, Any]] = Codec(
    encode=lambda risks: json.dumps(risks).encode(), decode=lambda value: dict(json.loads(value))
)
_RETRY = frozenset({"store_down", "issuer_unavailable"})
_ERRORS = {
    "token_signature_invalid": "invalid_key",
    "token_key_unknown": "invalid_key",
    "token_algorithm_refused": "invalid_key",
    "token_issuer_unknown": "invalid_issuer",
    "token_audience_wrong": "invalid_audience",
}


class Logins(Protocol):
    """Takes back what a person proved here, and ends a session by the name that others have for it."""

    async def lower(self, issuer: str, subject: str) -> int:
        """End every elevation of a subject; how many."""

    async def end_named(self, issuer: str, subject: str, name: str, why: str) -> int:
        """End the session that another gateway calls `name`, used here before or not; how many."""


@dataclass(frozen=True, slots=True)
class Source:
    """A configured transmitter. `trust` is its issuer, audiences and algorithms; `people_of` whose people it knows."""

    name: str
    trust: Issuer
    directory: IssuerDirectory
    people_of: str
    poll_url: str = ""
    poll_token: str = ""
    poll_s: float = 2.0
    http: HttpClient | None = None


class SignalReceiver:
    """Follows one source. Raises StoreDown from nothing but `act`."""

    def __init__(
        self,
        source: Source,
        ender: SessionEnder,
        logins: Logins,
        devices: DeviceStore,
        documents: Documents,
        changes: Changes,
        clock: Callable[[], float],
    ) -> None:
        self.source = source
        self._ender = ender
        self._logins = logins
        self._devices = devices
        self._documents = documents
        self._risks = Collection(documents=documents, name=RISKS, codec=_RISKS_BY_SOURCE, clock=clock)
        self._changes = changes
        self._clock = clock

    async def receive(self, token: str) -> int | Refusal:
        """Do what a token says: how many of its events were understood. What `is_retry` may be sent again."""
        now = self._clock()
        said = await verified_set(token, self.source.trust, self.source.directory, self.source.people_of, now)
        if isinstance(said, Refusal):
            return said
        key = sha256(f"{self.source.trust.issuer}|{said.jti}".encode()).hexdigest()
        try:
            if await self._documents.get(_SEEN, key, now) is None:
                for event in said.events:
                    await self.act(event)
                await self._documents.overwrite(_SEEN, key, b"{}", now + _SEEN_S)
        except StoreDown:
            return Refusal("store_down", "shared signals")
        return len(said.events)

    async def act(self, event: SecurityEvent) -> None:
        """What an event calls for."""
        about, details = event.about, event.details
        why = f"{self.source.name}: {event.kind}"
        if event.kind == SESSION_REVOKED or event.kind in _GONE:
            sid = about.session or None
            await self._ender.end_login_sessions(
                about.issuer, sid=sid, subject=None if sid else about.subject or None, why=why
            )
            if about.session and about.subject:
                await self._logins.end_named(about.issuer, about.subject, about.session, why)
        elif event.kind == CREDENTIAL and details.get("change_type") in {"revoke", "delete", "update"}:
            await self._ender.end_login_sessions(about.issuer, subject=about.subject or None, why=why)
        elif event.kind == COMPLIANCE and about.device:
            await self._complies(about.device, details.get("current_status") == "compliant", event.at)
        elif event.kind == RISK and about.subject:
            level = _LEVELS.get(str(details.get("current_level")), "high")
            await self._at_risk(about.issuer, about.subject, level, event.at)
        elif event.kind == ASSURANCE and about.subject and details.get("change_direction") != "increase":
            await self._logins.lower(about.issuer, about.subject)
            await self._changes.announce("subject", subject_key(about.issuer, about.subject))

    async def _complies(self, device_id: str, is_compliant: bool, at: float) -> None:
        compliance = {"compliant": is_compliant, "compliance_by": self.source.name, "compliance_at": at}

        def report(record: DeviceRecord) -> DeviceRecord | None:
            if record.posture.get("compliance_at", 0.0) > at:
                return None  # what came later is newer
            return replace(record, posture={**record.posture, **compliance})

        await self._devices.change_device(device_id, report)

    async def _at_risk(self, issuer: str, subject: str, level: str, at: float) -> None:
        """Keep the level beside what others have said: nobody takes back another's word, or a newer one."""
        key, now = subject_key(issuer, subject), self._clock()
        async for entry in self._risks.attempts(key):
            risks = entry.value or {}
            if risks.get(self.source.name, {}).get("at", 0.0) > at:
                return
            risk = {"level": level, "at": at, "until": now + _RISK_S}
            if await self._risks.replace(entry, {**risks, self.source.name: risk}, now + _RISK_S):
                await self._changes.announce("subject", key)
                return
        raise StoreDown("too much at the same time")

    # ---- polling ----

    async def run(self, heard: Callable[[str, str], None]) -> None:
        """For ever: ask for events, do them, acknowledge them with the next question. Trouble goes to `heard`."""
        done: list[str] = []
        errors: dict[str, Mapping[str, str]] = {}
        while True:
            try:
                more = await self.poll(done, errors)
            except (Unreachable, TimeoutError, ValueError) as failure:
                heard(self.source.name, f"{type(failure).__name__}: {failure}"[:200])
                more = False
            if not more:
                await asyncio.sleep(self.source.poll_s)

    async def poll(self, done: list[str], errors: dict[str, Mapping[str, str]]) -> bool:
        """One question; whether more waits. Raises Unreachable, TimeoutError or ValueError."""
        if self.source.http is None:
            raise ValueError("nothing to ask with")
        asked: dict[str, Any] = {"maxEvents": _MAX_EVENTS, "returnImmediately": True, "ack": list(done)}
        if errors:
            asked["setErrs"] = dict(errors)
        headers = {"authorization": f"Bearer {self.source.poll_token}"} if self.source.poll_token else {}
        async with asyncio.timeout(_TIMEOUT_S):
            answer = await self.source.http.send_json("POST", self.source.poll_url, asked, headers)
        document = read_object(answer.body, members=1_000) if answer.status == _SUCCESS else None
        sets = document.get("sets") if document is not None else None
        if document is None or not isinstance(sets, dict):
            raise ValueError(f"status {answer.status} without a usable answer")
        done.clear()
        errors.clear()
        for jti, token in list(sets.items())[:_MAX_EVENTS]:
            outcome = await self.receive(token) if isinstance(token, str) else Refusal("token_malformed")
            if not isinstance(outcome, Refusal):
                done.append(jti)
            elif not is_retry(outcome):
                errors[jti] = error_of(outcome)
        # A worker that dies here leaves them unacknowledged: they come again, and are done once.
        return bool(document.get("moreAvailable")) or bool(done) or bool(errors)


def is_retry(refusal: Refusal) -> bool:
    """Whether the same token may be good later."""
    return refusal.reason in _RETRY


def error_of(refusal: Refusal) -> dict[str, str]:
    """What the transmitter is told (RFC 8935 section 2.4)."""
    return {"err": _ERRORS.get(refusal.reason, "invalid_request"), "description": refusal.reason}
