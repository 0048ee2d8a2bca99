"""The gateway's records in a Redis that several machines share.

Laws: whatever names a person is sealed, and stands in no key but as a keyed digest. Each method is one step in the
server. What has ended is forgotten by the server itself, a minute after its end.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from dataclasses import astuple
from typing import Any

from gateway.adapters.redis import scripts as lua
from gateway.adapters.redis.changes import RedisChanges
from gateway.core.ports.stores import DeviceChange, DeviceRecord, IssuedCertificate, SessionRecord, StoreDown

_REVOCATION_KEPT_S = 400 * 86_400
_TIMES, _LENGTH, _TIME = struct.Struct("<dddd"), struct.Struct("<I"), struct.Struct("<d")
_NOT_REVOKED = -1.0
_PAGE = 500
_TRIES = 50
_SESSION, _WHY, _DEVICE = "sessions", "sessions/why", "devices"


class RedisStore(RedisChanges):
    """Meets `gateway.core.ports.Store`."""

    # ---- devices ----

    async def device(self, device_id: str) -> DeviceRecord | None:
        """The record, None for an unknown id."""
        value = await self.read("HGET", lua.DEVICES, _text(device_id))
        return None if value is None else self._device(device_id, value)

    async def devices(self) -> Sequence[DeviceRecord]:
        """Every record, newest first."""
        records: dict[str, DeviceRecord] = {}
        cursor: Any = 0
        while cursor != b"0":
            cursor, pairs = await self.listed("HSCAN", lua.DEVICES, cursor, "COUNT", _PAGE)
            for name, value in zip(pairs[::2], pairs[1::2], strict=True):
                records[_name(name)] = self._device(_name(name), value)
        return sorted(records.values(), key=lambda record: (-record.created_at, record.id))

    async def add_device(self, record: DeviceRecord) -> bool:
        """Insert a record; False, and nothing is written, when there is one of its id."""
        return await self._write_device(record, b"")

    async def change_device(self, device_id: str, change: DeviceChange) -> DeviceRecord | None:
        """Apply a change to the record as it is. No two sealed values are equal, so the value is its own version."""
        for _ in range(_TRIES):
            value = await self.read("HGET", lua.DEVICES, _text(device_id))
            record = None if value is None else self._device(device_id, value)
            changed = None if record is None else record.apply(change)
            if changed is None or await self._write_device(changed, value):
                return changed or record
        raise StoreDown("redis: too many changes of one device at the same time")

    async def _write_device(self, record: DeviceRecord, over: bytes) -> bool:
        """Write a record over exactly this value, b"" for none; whether it was written."""
        fields = json.dumps([*astuple(record)[1:9], dict(record.posture)]).encode("ascii")
        mark = b"R" if record.status == "revoked" else b"-"
        sealed = mark + self.seal.seal(_DEVICE, record.id, fields)
        revoked = "" if record.revoked_at is None else repr(record.revoked_at)
        change = self.change_name(record.id)
        values = (_text(record.id), over, sealed, revoked, repr(self.clock()), change)
        return await self.tell(lua.WRITE_DEVICE, [], *values)

    async def add_enrolment(self, token_sha256: str, device_id: str, expires_at: float) -> None:
        """Remember a one-time token by the hex SHA-256 of its text."""
        life_ms = int((max(expires_at - self.clock(), 0) + lua.MARGIN_S) * 1000)
        value = _TIME.pack(expires_at) + _text(device_id)
        await self.write("SET", lua.ENROLMENT + _text(token_sha256), value, "PX", life_ms)

    async def take_enrolment(self, token_sha256: str, now: float) -> str | None:
        """Consume a token atomically: its device id, or None when it is unknown, used or expired."""
        value = await self.run(lua.TAKE_ENROLMENT, [lua.ENROLMENT + _text(token_sha256)], repr(now))
        return None if value is None else _name(value[_TIME.size :])

    async def add_certificate(self, certificate: IssuedCertificate) -> None:
        """Remember an issued certificate."""
        member = json.dumps([certificate.serial, certificate.not_before])
        key = lua.CERTIFICATES + _text(certificate.device_id)
        end, now = repr(certificate.not_after), repr(self.clock())
        await self.run(lua.ADD_CERTIFICATE, [key], member, end, now, lua.MARGIN_S)

    async def revoked_certificates(self, now: float) -> Sequence[tuple[IssuedCertificate, float]]:
        """Unexpired certificates of revoked devices, each with the time of the revocation."""
        revoked_certificates = []
        revoked = await self.listed("HGETALL", lua.REVOKED_DEVICES)
        for device, at in zip(revoked[::2], revoked[1::2], strict=True):
            key = lua.CERTIFICATES + device
            rows = await self.listed("ZRANGEBYSCORE", key, f"({now!r}", "+inf", "WITHSCORES")
            for member, end in zip(rows[::2], rows[1::2], strict=True):
                serial, not_before = json.loads(member)
                certificate = IssuedCertificate(serial, _name(device), not_before, float(end))
                revoked_certificates.append((certificate, float(at) if at else now))
        return sorted(revoked_certificates, key=lambda pair: pair[0].serial)

    # ---- sessions ----

    async def session(self, session_id: str) -> SessionRecord | None:
        """The record, None for an unknown id."""
        value = await self.read("GET", lua.SESSION + _text(session_id))
        return None if value is None else self._session(session_id, value)

    async def sessions(self, subject: str | None = None) -> Sequence[SessionRecord]:
        """Unexpired sessions, newest first, of one subject or of all."""
        now = self.clock()
        if subject is None:
            records = await self._every_session()
        else:
            names = await self.listed("ZRANGEBYSCORE", self._subject(subject), f"({now!r}", "+inf")
            records = [
                record for at in range(0, len(names), _PAGE) for record in await self._several(names[at:][:_PAGE])
            ]
        unexpired = {record.id: record for record in records if record.expires_at > now}
        return sorted(unexpired.values(), key=lambda record: (-record.created_at, record.id))

    async def put_session(self, record: SessionRecord) -> None:
        """Insert, or refresh `last_seen_at` and `expires_at`; never clears a revocation."""
        revoked = _NOT_REVOKED if record.revoked_at is None else record.revoked_at
        why = self._why(record.id, record.revoked_why)
        person = json.dumps([record.issuer, record.subject, record.identity, record.device_id])
        value = (
            _TIMES.pack(record.created_at, record.last_seen_at, record.expires_at, revoked)
            + _LENGTH.pack(len(why))
            + why
            + self.seal.seal(_SESSION, record.id, _text(person))
        )
        name = _text(record.id)
        keys = [lua.SESSION + name, self._subject(record.subject)]
        times = (repr(self.clock()), lua.MARGIN_S, _REVOCATION_KEPT_S)
        await self.run(lua.PUT_SESSION, keys, value, name, *times)

    async def revoke_session(self, session_id: str, now: float, why: str) -> bool:
        """Revoke; False for an unknown id. The first revocation's time and reason stay."""
        key, change = lua.SESSION + _text(session_id), self.change_name(session_id)
        kept_s = _REVOCATION_KEPT_S + lua.MARGIN_S
        reason = self._why(session_id, why)
        return await self.tell(lua.REVOKE_SESSION, [key], repr(now), reason, repr(self.clock()), kept_s, change)

    # ---- things used once, secrets ----

    async def first_use(self, key: str, now: float, expires_at: float) -> bool:
        """Whether `key` is used for the first time before `expires_at`, atomically."""
        times = (repr(now), repr(expires_at), lua.MARGIN_S)
        return bool(await self.run(lua.FIRST_USE, [lua.USED + self.hidden("used", key)], *times) == 1)

    async def secrets(self, purpose: str) -> Sequence[tuple[str, float, bytes]]:
        """(name, created_at, value) of every secret of a purpose, newest first. StoreDown when one does not open."""
        pairs = await self.read("HGETALL", lua.SECRETS + _text(purpose))
        secrets = []
        for raw, value in zip(pairs[::2], pairs[1::2], strict=True):
            name = _name(raw)
            created_at = _TIME.unpack_from(value)[0]
            secrets.append((name, created_at, self.unsealed(purpose, name, value[_TIME.size :])))
        return sorted(secrets, key=lambda secret: (secret[1], secret[0]), reverse=True)

    async def put_secret(self, purpose: str, name: str, created_at: float, value: bytes) -> bool:
        """Add a secret; False when one of that purpose and name is there already."""
        sealed = _TIME.pack(created_at) + self.seal.seal(purpose, name, value)
        return bool(await self.write("HSETNX", lua.SECRETS + _text(purpose), _text(name), sealed) == 1)

    async def drop_secret(self, purpose: str, name: str) -> None:
        """Forget a secret."""
        await self.write("HDEL", lua.SECRETS + _text(purpose), _text(name))

    # ---- how records are kept ----

    def _subject(self, subject: str) -> bytes:
        return lua.SUBJECT + self.hidden("subject", subject)

    def _why(self, session_id: str, why: str) -> bytes:
        return self.seal.seal(_WHY, session_id, _text(why)) if why else b""

    async def _every_session(self) -> list[SessionRecord]:
        records: list[SessionRecord] = []
        cursor: Any = 0
        while cursor != b"0":
            cursor, keys = await self.listed("SCAN", cursor, "MATCH", lua.SESSION + b"*", "COUNT", _PAGE)
            records += await self._several([key[len(lua.SESSION) :] for key in keys])
        return records

    async def _several(self, names: Sequence[bytes]) -> list[SessionRecord]:
        """Those of some sessions that are there."""
        values = await self.listed("MGET", *(lua.SESSION + name for name in names)) if names else []
        pairs = zip(names, values, strict=True)
        return [self._session(_name(name), value) for name, value in pairs if value is not None]

    def _device(self, device_id: str, value: bytes) -> DeviceRecord:
        return DeviceRecord(device_id, *json.loads(self.unsealed(_DEVICE, device_id, value[1:])))

    def _session(self, session_id: str, value: bytes) -> SessionRecord:
        try:
            created_at, last_seen_at, expires_at, revoked = _TIMES.unpack_from(value)
            start = _TIMES.size + _LENGTH.size
            end = start + _LENGTH.unpack_from(value, _TIMES.size)[0]
            why = _name(self.unsealed(_WHY, session_id, value[start:end])) if end > start else ""
            issuer, subject, identity, device_id = json.loads(self.unsealed(_SESSION, session_id, value[end:]))
        except (struct.error, ValueError) as error:
            raise StoreDown(f"redis: a session that nobody can read ({type(error).__name__})") from None
        revoked_at = None if revoked < 0 else revoked
        return SessionRecord(
            session_id, issuer, subject, identity, device_id, created_at, last_seen_at, expires_at, revoked_at, why
        )


def _text(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _name(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogatepass")
