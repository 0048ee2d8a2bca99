from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.core.ports.stores import DeviceRecord, StoreDown
from gateway.core.subject import Device
from gateway.identity.devices.ca import issue_crl, issue_device
from gateway.identity.devices.ca_files import found_pki, load_authority, write_file
from gateway.identity.devices.certificates import DeviceTrust
from gateway.identity.devices.verifier import Devices
from tests.support.cost import cost_of
from tests.support.pki_world import DER, TRUST_DOMAIN, UUID, World, make_world, new_key, peer, reason_of, sha256


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = make_world(tmp_path)
    yield made
    await made.store.close()


async def test_a_device_in_good_standing_is_verified(world: World) -> None:
    device_id, der = await world.enrolled()
    assert await world.verify(der) == Device(device_id, sha256(der), "ada", "it", {})


async def test_the_posture_of_the_record_is_handed_on(world: World) -> None:
    device_id, der = await world.enrolled()
    await world.store.change_device(device_id, lambda record: replace(record, posture={"disk_encrypted": True}))
    device = await world.verify(der)
    assert isinstance(device, Device)
    assert device.posture == {"disk_encrypted": True}


async def test_without_a_certificate_there_is_no_device(world: World) -> None:
    assert await world.verify() is None


async def test_a_certificate_that_is_no_device_certificate_is_refused(world: World) -> None:
    assert reason_of(await world.verify(b"garbage")) == "certificate_malformed"


async def test_a_certificate_of_a_foreign_pki_is_refused_whatever_chain_comes_along(
    world: World, tmp_path: Path
) -> None:
    foreign = found_pki(tmp_path / "foreign", ["x"], now=world.clock.now, crl_life_s=60)
    authority = load_authority(foreign.device_ca, foreign.device_key)
    root = load_authority(foreign.root, foreign.root_key)
    await world.store.add_device(DeviceRecord(UUID, "n", "o", "d", "active", 1.0))
    leaf = issue_device(authority, new_key().public_key(), UUID, TRUST_DOMAIN, now=world.clock.now, life_s=60)
    chain = [one.public_bytes(DER) for one in (leaf, authority.certificate, root.certificate)]
    assert reason_of(await world.verify(*chain)) == "certificate_malformed"


async def test_an_unknown_device_is_refused(world: World) -> None:
    authority = load_authority(world.files.device_ca, world.files.device_key)
    leaf = issue_device(authority, new_key().public_key(), UUID, TRUST_DOMAIN, now=world.clock.now, life_s=60)
    assert reason_of(await world.verify(leaf.public_bytes(DER))) == "device_unknown"


async def test_a_device_that_is_still_pending_is_refused(world: World) -> None:
    authority = load_authority(world.files.device_ca, world.files.device_key)
    leaf = issue_device(authority, new_key().public_key(), UUID, TRUST_DOMAIN, now=world.clock.now, life_s=60)
    await world.store.add_device(DeviceRecord(UUID, "n", "o", "d", "pending", 1.0))
    assert reason_of(await world.verify(leaf.public_bytes(DER))) == "device_revoked"


async def test_a_revoked_device_is_out_at_the_next_request_even_before_a_new_list_is_there(world: World) -> None:
    device_id, der = await world.enrolled()
    assert isinstance(await world.verify(der), Device)
    await world.store.change_device(device_id, lambda record: record.revoke(world.clock.now, "stolen"))
    assert reason_of(await world.verify(der)) == "device_revoked"


async def test_a_certificate_on_the_list_is_refused_though_the_record_is_active(world: World) -> None:
    _, der = await world.enrolled()
    _, other = await world.enrolled()
    claimed = world.devices._examine(der, world.clock.now)
    authority = load_authority(world.files.device_ca, world.files.device_key)
    number = int(world.clock.now * 1000) + 5
    pem = issue_crl(authority, [(claimed.serial, world.clock.now)], number=number, now=world.clock.now, life_s=60)
    write_file(world.files.crl, pem, 0o644)
    assert reason_of(await world.verify(der)) == "certificate_revoked"
    assert isinstance(await world.verify(other), Device)


async def test_an_expired_certificate_is_refused_also_when_it_was_good_before(world: World) -> None:
    _, der = await world.enrolled()
    assert isinstance(await world.verify(der), Device)
    world.clock.now += 86_401
    assert reason_of(await world.verify(der)) == "device_expired"
    world.devices._known.clear()
    assert reason_of(await world.verify(der)) == "device_expired"


async def test_a_certificate_of_the_future_is_refused(world: World) -> None:
    _, der = await world.enrolled()
    world.clock.now -= 61
    assert reason_of(await world.verify(der)) == "certificate_malformed"


async def test_what_the_edge_says_about_the_hash_is_not_believed(world: World) -> None:
    _, der = await world.enrolled()
    device = await world.devices.verify(replace(peer(der), cert_sha256="something else"))
    assert isinstance(device, Device)
    assert device.cert_sha256 == sha256(der)


# ---- the list ----


async def test_no_list_refuses_every_device(world: World) -> None:
    _, der = await world.enrolled()
    world.files.crl.unlink()
    assert reason_of(await world.verify(der)) == "crl_stale"


async def test_a_list_that_goes_away_later_refuses_and_one_that_comes_back_admits(world: World) -> None:
    _, der = await world.enrolled()
    assert isinstance(await world.verify(der), Device)
    kept = world.files.crl.read_bytes()
    world.files.crl.unlink()
    assert reason_of(await world.verify(der)) == "crl_stale"
    world.files.crl.write_bytes(kept)
    assert isinstance(await world.verify(der), Device)


@pytest.mark.parametrize("content", [b"", b"garbage"])
async def test_a_broken_list_refuses_every_device(world: World, content: bytes) -> None:
    _, der = await world.enrolled()
    world.files.crl.write_bytes(content)
    assert reason_of(await world.verify(der)) == "crl_stale"


async def test_a_list_that_another_ca_signed_refuses_every_device(world: World) -> None:
    _, der = await world.enrolled()
    wrong = load_authority(world.files.server_ca, world.files.server_ca_key)
    write_file(world.files.crl, issue_crl(wrong, [], number=1 << 60, now=world.clock.now, life_s=60), 0o644)
    assert reason_of(await world.verify(der)) == "crl_stale"


async def test_a_list_goes_stale_without_any_change_to_the_file(world: World) -> None:
    authority = load_authority(world.files.device_ca, world.files.device_key)
    number = int(world.clock.now * 1000) + 5
    write_file(world.files.crl, issue_crl(authority, [], number=number, now=world.clock.now, life_s=60), 0o644)
    _, der = await world.enrolled()
    assert isinstance(await world.verify(der), Device)
    world.clock.now += 60
    assert reason_of(await world.verify(der)) == "crl_stale"


async def test_an_older_list_put_back_is_refused(world: World) -> None:
    device_id, der = await world.enrolled()
    _, good = await world.enrolled()
    older = world.files.crl.read_bytes()
    world.clock.now += 1
    await world.enrolment.revoke(device_id, "stolen")
    assert isinstance(await world.verify(good), Device)
    write_file(world.files.crl, older, 0o644)
    assert reason_of(await world.verify(good)) == "crl_stale"
    assert reason_of(await world.verify(der)) == "crl_stale"


async def test_the_file_is_looked_at_once_a_second_at_most(world: World) -> None:
    ticks = [0.0]
    trust = DeviceTrust(world.files.device_ca.read_bytes())
    devices = Devices(
        world.store,
        trust,
        TRUST_DOMAIN,
        crl=world.files.crl,
        crl_max_age_s=86_400,
        clock=world.clock,
        monotonic=lambda: ticks[0],
    )
    _, der = await world.enrolled()
    assert isinstance(await devices.verify(peer(der)), Device)
    world.files.crl.unlink()
    ticks[0] = 0.9
    assert isinstance(await devices.verify(peer(der)), Device)
    ticks[0] = 1.0
    assert reason_of(await devices.verify(peer(der))) == "crl_stale"


# ---- the rest ----


async def test_a_store_that_is_down_is_not_access(world: World, tmp_path: Path) -> None:
    _, der = await world.enrolled()
    broken = make_world(tmp_path / "second")
    await broken.store.close()
    broken.devices._trust = world.devices._trust
    broken.devices._list = world.devices._list
    with pytest.raises(StoreDown):
        await broken.verify(der)


async def test_the_memory_of_certificates_is_bounded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.identity.devices.verifier._KNOWN_LIMIT", 2)
    ders = [(await world.enrolled())[1] for _ in range(4)]
    for der in ders * 2:
        assert isinstance(await world.verify(der), Device)
    assert len(world.devices._known) == 2


async def test_a_known_device_is_verified_in_microseconds(world: World) -> None:
    _, der = await world.enrolled()
    known = peer(der)
    assert await cost_of(lambda: world.devices.verify(known)) < 8  # 2
