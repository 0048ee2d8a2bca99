from __future__ import annotations

import asyncio
import stat
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ed25519

from gateway.core.ports.pipeline import Enrolled
from gateway.core.subject import Device
from gateway.identity.devices.certificates import Crl, DeviceTrust, load_crl
from gateway.identity.devices.enrolment import Enrolment
from tests.support.pki_world import DER, World, csr, der_of, make_world, new_key, reason_of


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = make_world(tmp_path)
    yield made
    await made.store.close()


async def device_of(world: World, der: bytes) -> Device:
    device = await world.verify(der)
    assert isinstance(device, Device)
    return device


def crl_of(world: World) -> Crl:
    trust = DeviceTrust(world.files.device_ca.read_bytes())
    found = load_crl(world.files.crl.read_bytes(), trust.issuing, world.clock.now, 86_400)
    assert isinstance(found, Crl)
    return found


async def test_a_device_enrols_with_its_token(world: World) -> None:
    record, token = await world.enrolment.create_device("laptop", "ada", "it")
    assert record.status == "pending"
    key = new_key()
    answer = await world.enrolment.enrol(token, csr(key))
    assert isinstance(answer, Enrolled)
    assert answer.device_id == record.id
    leaf = x509.load_pem_x509_certificate(answer.certificate_pem.encode())
    assert leaf.public_key() == key.public_key()
    leaf.verify_directly_issued_by(x509.load_pem_x509_certificate(answer.chain_pem.encode()))
    assert leaf.not_valid_after_utc.timestamp() == world.clock.now + 86_400
    enrolled = await world.store.device(record.id)
    assert enrolled == replace(record, status="active", enrolled_at=world.clock.now)
    assert (await device_of(world, leaf.public_bytes(DER))).id == record.id


async def test_a_token_is_readable_long_and_not_in_the_state(world: World, tmp_path: Path) -> None:
    _, token = await world.enrolment.create_device("laptop", "ada", "it")
    assert token.startswith("gwe_")
    assert len(token) == 4 + 43
    assert all(token.encode() not in file.read_bytes() for file in (tmp_path / "state").iterdir())


async def test_a_token_works_once(world: World) -> None:
    _, token = await world.enrolment.create_device("laptop", "ada", "it")
    assert isinstance(await world.enrolment.enrol(token, csr(new_key())), Enrolled)
    assert reason_of(await world.enrolment.enrol(token, csr(new_key()))) == "enrolment_invalid"


async def test_of_two_that_use_a_token_at_once_one_wins(world: World) -> None:
    _, token = await world.enrolment.create_device("laptop", "ada", "it")
    answers = await asyncio.gather(*(world.enrolment.enrol(token, csr(new_key())) for _ in range(6)))
    assert [isinstance(answer, Enrolled) for answer in answers].count(True) == 1


async def test_a_token_lives_ten_minutes(world: World) -> None:
    _, token = await world.enrolment.create_device("laptop", "ada", "it")
    world.clock.now += 600
    assert reason_of(await world.enrolment.enrol(token, csr(new_key()))) == "enrolment_invalid"


@pytest.mark.parametrize(
    "token", ["", "gwe_", "gwe_" + "A" * 43, "gwe_" + "A" * 43 + "\n", "\u00e9" * 47, "x" * 10_000]
)
async def test_an_unknown_token_is_refused(world: World, token: str) -> None:
    assert reason_of(await world.enrolment.enrol(token, csr(new_key()))) == "enrolment_invalid"


async def test_a_bad_request_does_not_use_up_the_token(world: World) -> None:
    _, token = await world.enrolment.create_device("laptop", "ada", "it")
    assert reason_of(await world.enrolment.enrol(token, "garbage")) == "csr_malformed"
    assert isinstance(await world.enrolment.enrol(token, csr(new_key())), Enrolled)


@pytest.mark.parametrize("name", ["", "a\nb", "\x00", "x" * 201])
async def test_a_device_has_a_printable_name(world: World, name: str) -> None:
    with pytest.raises(ValueError, match="printable"):
        await world.enrolment.create_device(name, "ada", "it")


async def test_a_device_whose_certificate_ran_out_can_enrol_again(world: World) -> None:
    device_id, _ = await world.enrolled()
    token = await world.enrolment.new_token(device_id)
    assert isinstance(token, str)
    assert isinstance(await world.enrolment.enrol(token, csr(new_key())), Enrolled)


async def test_no_token_for_an_unknown_or_revoked_device(world: World) -> None:
    device_id, _ = await world.enrolled()
    await world.enrolment.revoke(device_id, "stolen")
    assert reason_of(await world.enrolment.new_token(device_id)) == "device_revoked"
    assert reason_of(await world.enrolment.new_token("nobody")) == "device_unknown"


# ---- renewal ----


async def test_a_device_renews_with_a_new_key(world: World) -> None:
    device_id, der = await world.enrolled()
    key = ed25519.Ed25519PrivateKey.generate()
    answer = await world.enrolment.renew(await device_of(world, der), csr(key))
    assert isinstance(answer, Enrolled)
    assert answer.device_id == device_id
    assert (await device_of(world, der_of(answer))).id == device_id


async def test_no_key_is_certified_twice(world: World) -> None:
    _, token = await world.enrolment.create_device("laptop", "ada", "it")
    key = new_key()
    first = await world.enrolment.enrol(token, csr(key))
    assert isinstance(first, Enrolled)
    device = await device_of(world, der_of(first))
    assert reason_of(await world.enrolment.renew(device, csr(key))) == "key_reused"
    _, token = await world.enrolment.create_device("another", "bob", "it")
    assert reason_of(await world.enrolment.enrol(token, csr(key))) == "key_reused"


async def test_a_request_to_renew_that_cannot_be_read_is_refused(world: World) -> None:
    _, der = await world.enrolled()
    assert reason_of(await world.enrolment.renew(await device_of(world, der), "garbage")) == "csr_malformed"


# ---- revocation ----


async def test_every_certificate_of_a_revoked_device_dies(world: World) -> None:
    device_id, first = await world.enrolled()
    _, other = await world.enrolled("other")
    renewed = await world.enrolment.renew(await device_of(world, first), csr(new_key()))
    assert isinstance(renewed, Enrolled)
    before = crl_of(world)
    assert await world.enrolment.revoke(device_id, "stolen") is True
    for der in (first, der_of(renewed)):
        assert reason_of(await world.verify(der)) == "device_revoked"
    assert isinstance(await world.verify(other), Device)
    after = crl_of(world)
    serials = {f"{x509.load_der_x509_certificate(der).serial_number:032x}" for der in (first, der_of(renewed))}
    assert (before.serials, after.serials) == (frozenset(), serials)
    assert after.number > before.number
    record = await world.store.device(device_id)
    assert record is not None
    assert (record.status, record.revoked_at, record.revoked_why) == ("revoked", world.clock.now, "stolen")
    assert stat.S_IMODE(world.files.crl.stat().st_mode) == 0o644


async def test_a_device_revoked_while_it_renews_gets_nothing(world: World) -> None:
    device_id, der = await world.enrolled()
    device = await device_of(world, der)
    await world.enrolment.revoke(device_id, "stolen")
    assert reason_of(await world.enrolment.renew(device, csr(new_key()))) == "device_revoked"


async def test_a_pending_device_can_be_revoked_and_its_token_with_it(world: World) -> None:
    record, token = await world.enrolment.create_device("laptop", "ada", "it")
    assert await world.enrolment.revoke(record.id, "never came") is True
    assert reason_of(await world.enrolment.enrol(token, csr(new_key()))) == "device_revoked"


async def test_the_first_reason_of_a_revocation_stays(world: World) -> None:
    device_id, _ = await world.enrolled()
    await world.enrolment.revoke(device_id, "stolen")
    world.clock.now += 5
    assert await world.enrolment.revoke(device_id, "again") is True
    record = await world.store.device(device_id)
    assert record is not None
    assert record.revoked_why == "stolen"


async def test_an_unknown_device_cannot_be_revoked(world: World) -> None:
    assert await world.enrolment.revoke("nobody", "why") is False


async def test_many_revocations_at_once_all_arrive_on_the_list(world: World) -> None:
    ids = [(await world.enrolled())[0] for _ in range(8)]
    second = Enrolment(world.store, world.config, world.clock)
    parts = (world.enrolment, second)
    await asyncio.gather(*(parts[n % 2].revoke(device_id, "all") for n, device_id in enumerate(ids)))
    assert len(crl_of(world).serials) == 8


async def test_expired_certificates_leave_the_list(world: World) -> None:
    device_id, _ = await world.enrolled()
    await world.enrolment.revoke(device_id, "stolen")
    world.clock.now += 86_401
    assert await world.enrolment.refresh_crl() is True
    assert crl_of(world).serials == frozenset()


# ---- keeping the list fresh ----


async def test_the_list_is_made_anew_at_half_its_life(world: World) -> None:
    number = crl_of(world).number
    world.clock.now += 43_199
    assert await world.enrolment.refresh_crl() is False
    world.clock.now += 1
    assert await world.enrolment.refresh_crl() is True
    assert crl_of(world).number > number
    assert await world.enrolment.refresh_crl() is False


@pytest.mark.parametrize("content", [None, b"", b"garbage"])
async def test_a_lost_or_broken_list_is_made_anew(world: World, content: bytes | None) -> None:
    if content is None:
        world.files.crl.unlink()
    else:
        world.files.crl.write_bytes(content)
    assert await world.enrolment.refresh_crl() is True
    crl_of(world)


async def test_numbers_grow_when_the_clock_is_set_back(world: World) -> None:
    await world.enrolment.revoke((await world.enrolled())[0], "one")
    first = crl_of(world).number
    world.clock.now -= 40_000
    assert await world.enrolment.refresh_crl() is True
    assert crl_of(world).number > first


# ---- the files ----


async def test_enrolment_needs_the_key_of_a_device_authority(world: World) -> None:
    wrong = world.config.model_copy(update={"issuing_key": world.files.root_key})
    with pytest.raises(ValueError, match="device-issuing CA"):
        Enrolment(world.store, wrong)
    with pytest.raises(ValueError, match="issuing_key"):
        Enrolment(world.store, world.config.model_copy(update={"issuing_key": None}))
