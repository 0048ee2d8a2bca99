"""What an operator can do to devices, sessions and the PKI. No printing here: the command line and others call this."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from cryptography import x509

from gateway.config import Config
from gateway.core.ports.documents import Documents
from gateway.core.ports.stores import DeviceRecord, SessionRecord, Store
from gateway.core.reasons import Refusal, reason
from gateway.identity.devices.ca_files import PkiFiles, found_pki, renew_server
from gateway.identity.devices.enrolment import Enrolment
from gateway.identity.sessions.cookies import COLLECTION as COOKIES
from gateway.identity.sessions.dbsc import COLLECTION as KEYS
from gateway.identity.sessions.login_sessions import SESSIONS as LOGINS
from gateway.operations.errors import ActionFailed
from gateway.wiring import State, open_state

CRL_LIFE_S = 86_400.0
_PREFIX_LENGTH = 6


@asynccontextmanager
async def _opened(config: Config) -> AsyncIterator[Store]:
    """The store of this configuration. Raises StoreDown."""
    store = (await _state(config)).store
    try:
        yield store
    finally:
        await store.close()


async def _state(config: Config) -> State:
    try:
        return await open_state(config)
    except (OSError, ValueError) as error:
        raise ActionFailed(f"The state in {config.state} cannot be used: {error}.") from error


def _enrolment(store: Store, config: Config) -> Enrolment:
    try:
        return Enrolment(store, config.devices)
    except (OSError, ValueError) as error:
        fix = "`gateway pki init` makes a device CA; name it under `devices` (ca, issuing_key)."
        raise ActionFailed(f"The device CA cannot be used: {error}", fix) from error


async def add_device(config: Config, name: str, owner: str, department: str) -> tuple[DeviceRecord, str]:
    """A pending device and its one-time token."""
    async with _opened(config) as store:
        try:
            return await _enrolment(store, config).create_device(name, owner, department)
        except ValueError as error:
            raise ActionFailed(str(error)) from error


async def new_token(config: Config, wanted: str) -> tuple[DeviceRecord, str]:
    """Another one-time token for a device that is not revoked."""
    async with _opened(config) as store:
        record = _pick_device(await store.devices(), wanted)
        token = await _enrolment(store, config).new_token(record.id)
        if isinstance(token, Refusal):
            raise ActionFailed(reason(token.reason).what, "Add it as a new device.")
        return record, token


async def devices(config: Config) -> Sequence[DeviceRecord]:
    """Every device, newest first."""
    async with _opened(config) as store:
        return await store.devices()


async def device(config: Config, wanted: str) -> DeviceRecord:
    """One device by its id, the start of its id, or its name."""
    return _pick_device(await devices(config), wanted)


async def revoke_device(config: Config, wanted: str, why: str) -> DeviceRecord:
    """Put a device out and publish the CRL; its record afterwards."""
    async with _opened(config) as store:
        record = _pick_device(await store.devices(), wanted)
        await _enrolment(store, config).revoke(record.id, why)
        return await store.device(record.id) or record


async def sessions(config: Config, subject: str | None = None) -> Sequence[SessionRecord]:
    """Unexpired sessions, newest first, of one subject or of all."""
    async with _opened(config) as store:
        return await store.sessions(subject)


async def session(config: Config, wanted: str) -> SessionRecord:
    """One session by its id or the start of it."""
    return _pick_session(await sessions(config), wanted)


async def bindings(config: Config, records: Sequence[SessionRecord]) -> dict[str, list[str] | None]:
    """What each of these sessions is tied to, by its id: "device", "dbsc"; None where each token says that anew."""
    state = await _state(config)
    try:
        return {record.id: await _bound_by(state.documents, record) for record in records}
    finally:
        await state.store.close()


async def _bound_by(documents: Documents, record: SessionRecord) -> list[str] | None:
    now = time.time()
    if await documents.get(LOGINS, record.id, now) is None:
        return None
    found = ["device"] if record.device_id else []
    for cookie in await documents.list(COOKIES, record.id, now):
        if await documents.get(KEYS, cookie.key, now) is not None:
            return [*found, "dbsc"]
    return found


async def revoke_session(config: Config, wanted: str, why: str) -> SessionRecord:
    """End a session; its record afterwards."""
    async with _opened(config) as store:
        record = _pick_session(await store.sessions(), wanted)
        await store.revoke_session(record.id, time.time(), why)
        return await store.session(record.id) or record


def _pick_device(records: Sequence[DeviceRecord], wanted: str) -> DeviceRecord:
    return _pick([r for r in records if wanted in {r.id, r.name}] or _started(records, wanted), wanted)


def _pick_session(records: Sequence[SessionRecord], wanted: str) -> SessionRecord:
    return _pick([r for r in records if r.id == wanted] or _started(records, wanted), wanted)


def _started[Record: (DeviceRecord, SessionRecord)](records: Sequence[Record], wanted: str) -> list[Record]:
    return [record for record in records if len(wanted) >= _PREFIX_LENGTH and record.id.startswith(wanted)]


def _pick[Record: (DeviceRecord, SessionRecord)](found: list[Record], wanted: str) -> Record:
    if not found:
        raise ActionFailed(f"There is no `{wanted}`.", "The list command shows what there is.")
    if len(found) > 1:
        raise ActionFailed(f"`{wanted}` stands for {len(found)} entries.", "Use the whole id.")
    return found[0]


def hosts_of(config: Config) -> list[str]:
    """Every host name a server certificate has to cover: the gateway's own, then the services'."""
    return list(dict.fromkeys([config.host, *(service.host for service in config.services.values())]))


def make_pki(folder: Path, hosts: Sequence[str], crl_life_s: float) -> PkiFiles:
    """Found a PKI in a folder that holds none."""
    try:
        return found_pki(folder, hosts, now=time.time(), crl_life_s=crl_life_s)
    except FileExistsError as error:
        raise ActionFailed(str(error), "Choose another folder; a PKI is never overwritten.") from error
    except (OSError, ValueError) as error:
        raise ActionFailed(f"The PKI cannot be made: {error}") from error


def new_server_certificate(folder: Path, hosts: Sequence[str]) -> PkiFiles:
    """A new server certificate and key beside the PKI in `folder`."""
    files = PkiFiles(folder)
    try:
        renew_server(files, hosts, now=time.time())
    except (OSError, ValueError) as error:
        raise ActionFailed(
            f"The server certificate cannot be made: {error}", "`gateway pki init` comes first."
        ) from error
    return files


async def renew_crl(config: Config) -> bool:
    """Make a new CRL if the present one is past half its life or unusable; whether one was made."""
    async with _opened(config) as store:
        return await _enrolment(store, config).refresh_crl()


def certificates(paths: Sequence[Path]) -> list[dict[str, Any]]:
    """What stands in certificate files, one entry for each certificate. `not_after` in seconds since the epoch."""
    entries = []
    for path in paths:
        try:
            chain = x509.load_pem_x509_certificates(path.read_bytes())
        except (OSError, ValueError) as error:
            raise ActionFailed(f"{path} cannot be read as certificates: {error}") from error
        entries += [
            {
                "file": str(path),
                "subject": certificate.subject.rfc4514_string(),
                "names": names_of(certificate),
                "serial": f"{certificate.serial_number:032x}",
                "not_after": certificate.not_valid_after_utc.timestamp(),
            }
            for certificate in chain
        ]
    return entries


def names_of(certificate: x509.Certificate) -> list[str]:
    """The DNS names, addresses and URIs of a certificate's subjectAltName."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return [str(name.value) for name in names]
