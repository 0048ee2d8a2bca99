"""What the gateway remembers of a person's ways, and the last risk of each live session. No printing here."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from gateway.config import Config
from gateway.core.ports.stores import SessionRecord
from gateway.operations.errors import ActionFailed
from gateway.risk.memory import RiskMemory
from gateway.risk.scoring import digest
from gateway.wiring import open_state
from gateway.wiring.risk import assessor_of

_TAIL_BYTES = 16 << 20


async def explain(config: Config, issuer: str, subject: str) -> dict[str, Any]:
    """`history`: what is remembered, by signal ("login" is the login pattern); `sessions`: the live ones, newest first.

    Each session has the terms of its sign-in that are still open, and `last`, the last decision with a risk in the end
    of the record (None where there is none: a zero-log route leaves none). Raises ActionFailed and StoreDown.
    """
    if config.risk is None:
        raise ActionFailed("The configuration looks at no risk.", "Add `risk: {}` to it.")
    try:
        state = await open_state(config)
    except (OSError, ValueError) as error:
        raise ActionFailed(f"The state in {config.state} cannot be used: {error}.") from error
    try:
        history = await assessor_of(config, state.documents).history(issuer, subject)
        live = [
            session
            for session in await state.store.sessions(subject)
            if session.issuer == issuer and session.revoked_at is None
        ]
        memory = RiskMemory(state.documents, time.time)
        last = _last(config.record.file, {session.id for session in live})
        sessions = [await _session(session, memory, last.get(session.id)) for session in live]
    finally:
        await state.store.close()
    shown = {name: value for name, value in sorted(history.items()) if name != "v"}
    return {"issuer": issuer, "subject": subject, "history": shown, "sessions": sessions}


async def _session(record: SessionRecord, memory: RiskMemory, last: Mapping[str, Any] | None) -> dict[str, Any]:
    remembered = (await memory.read("session", digest(record.id)[:16])).of("login")
    terms = [dict(zip(("name", "value", "why"), term, strict=True)) for term in remembered.get("terms", ())]
    return {
        "id": record.id,
        "device_id": record.device_id,
        "created_at": record.created_at,
        "last_seen_at": record.last_seen_at,
        "sign_in": terms,
        "last": last,
    }


def _last(record: Path, wanted: set[str]) -> dict[str, dict[str, Any]]:
    """The last recorded decision of each session that had a risk, as far as the end of the record goes back."""
    decisions: dict[str, dict[str, Any]] = {}
    for event in _events(record) if wanted else ():
        if event.get("session") in wanted and "risk" in event:
            decisions[event["session"]] = {
                "at": event.get("ts"),
                "service": event.get("service"),
                "effect": event.get("effect"),
                "score": event["risk"],
                "level": event.get("risk_level", "none"),
                "terms": event.get("risk_terms", {}),
            }
    return decisions


def _events(record: Path) -> Iterator[dict[str, Any]]:
    try:
        with record.open("rb") as file:
            file.seek(max(0, record.stat().st_size - _TAIL_BYTES))
            for line in file:
                try:
                    event = json.loads(line)
                except ValueError:
                    continue  # the first line may be the end of one, the last one may be half written
                if isinstance(event, dict):
                    yield event
    except FileNotFoundError:
        return
    except OSError as error:
        raise ActionFailed(f"{record} cannot be read: {error.strerror}.", "Run this as the gateway's user.") from error
