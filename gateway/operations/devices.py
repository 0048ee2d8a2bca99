"""What an operator can do to devices: add them, list them, revoke them. No printing here."""

from __future__ import annotations

from collections.abc import Sequence

from gateway.config import Config
from gateway.core.ports.stores import DeviceRecord, Store
from gateway.core.reasons import Refusal, reason
from gateway.identity.devices.enrolment import Enrolment
from gateway.operations.errors import ActionFailed
from gateway.operations.lookup import pick_device
from gateway.operations.opened_state import opened


def enrolment_of(config: Config, store: Store) -> Enrolment:
    """The registration authority over this store. Raises ActionFailed where the device CA cannot be used."""
    try:
        return Enrolment(store, config.devices)
    except (OSError, ValueError) as error:
        fix = "`gateway pki init` makes a device CA; name it under `devices` (ca, issuing_key)."
        raise ActionFailed(f"The device CA cannot be used: {error}", fix) from error


async def add_device(config: Config, name: str, owner: str, department: str) -> tuple[DeviceRecord, str]:
    """A pending device and its one-time token."""
    async with opened(config) as state:
        try:
            return await enrolment_of(config, state.store).create_device(name, owner, department)
        except ValueError as error:
            raise ActionFailed(str(error)) from error


async def new_token(config: Config, wanted: str) -> tuple[DeviceRecord, str]:
    """Another one-time token for a device that is not revoked."""
    async with opened(config) as state:
        record = pick_device(await state.store.devices(), wanted)
        token = await enrolment_of(config, state.store).new_token(record.id)
        if isinstance(token, Refusal):
            raise ActionFailed(reason(token.reason).what, "Add it as a new device.")
        return record, token


async def list_devices(config: Config) -> Sequence[DeviceRecord]:
    """Every device, newest first."""
    async with opened(config) as state:
        return await state.store.devices()


async def find_device(config: Config, wanted: str) -> DeviceRecord:
    """One device by its id, the start of its id, or its name."""
    return pick_device(await list_devices(config), wanted)


async def revoke_device(config: Config, wanted: str, why: str) -> DeviceRecord:
    """Put a device out and publish the CRL; its record afterwards."""
    async with opened(config) as state:
        record = pick_device(await state.store.devices(), wanted)
        await enrolment_of(config, state.store).revoke(record.id, why)
        return await state.store.device(record.id) or record
