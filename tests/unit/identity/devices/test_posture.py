"""What a device says of itself."""

import json

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from gateway.adapters.sqlite.store import SqliteStore
from gateway.core.ports.stores import DeviceRecord
from gateway.core.reasons import Refusal
from gateway.core.request import Peer
from gateway.core.subject import Device
from gateway.identity.devices.ca import issue_device, make_issuing, make_root
from gateway.identity.devices.posture import PostureReports, signed_report
from gateway.identity.jose.jws import b64url_encode

NOW = 1_795_000_000.0
JTI, DEVICE = "a" * 22, "0b0e5b7e-3d0c-4f0e-9d6f-0a4f6f0d3c11"


class World:
    def __init__(self, folder):
        self.now = NOW
        self.store = SqliteStore(folder / "store", bytes(32), lambda: self.now)
        self.reports = PostureReports(self.store, self.store, lambda: self.now)
        self.key = ec.generate_private_key(ec.SECP256R1())
        issuing = make_issuing(make_root("Root", NOW), "Issuing", "device", NOW)
        leaf = issue_device(issuing, self.key.public_key(), DEVICE, "gateway.internal", now=NOW, life_s=86_400)
        self.peer = Peer("192.0.2.1", 1, (leaf.public_bytes(Encoding.DER),), "x" * 43)
        self.device = Device(DEVICE, "x" * 43)

    async def take(self, token):
        return await self.reports.take(token, self.device, self.peer)

    async def refused(self, token):
        outcome = await self.take(token)
        assert isinstance(outcome, Refusal)
        assert (await self.store.device(DEVICE)).posture == {"compliant": False}
        return outcome.reason


@pytest.fixture
async def world(tmp_path):
    made = World(tmp_path)
    record = DeviceRecord(DEVICE, "Laptop", "ada", "", "active", NOW, posture={"compliant": False})
    await made.store.add_device(record)
    yield made
    await made.store.close()


async def test_a_report_becomes_the_devices_posture_with_its_time_and_leaves_what_others_said(world):
    posture = await world.take(signed_report({"disk_encrypted": True, "os": "Debian 12"}, world.key, JTI, NOW))
    assert posture == {"disk_encrypted": True, "os": "Debian 12", "compliant": False, "reported_at": NOW}
    assert (await world.store.device(DEVICE)).posture == posture


async def test_a_report_is_good_once(world):
    token = signed_report({"disk_encrypted": True}, world.key, JTI, NOW)
    assert not isinstance(await world.take(token), Refusal)
    assert (await world.take(token)).reason == "token_replayed"


@pytest.mark.parametrize("moved", [-61, 61])
async def test_a_report_of_another_time_is_refused(world, moved):
    assert await world.refused(signed_report({"a": 1}, world.key, JTI, NOW + moved)) == "token_expired"


async def test_another_devices_key_is_refused(world):
    other = ec.generate_private_key(ec.SECP256R1())
    assert await world.refused(signed_report({"aa": 1}, other, JTI, NOW)) == "token_signature_invalid"


@pytest.mark.parametrize(
    "facts",
    [{}, {"compliant": True}, {"reported_at": 1}, {"A": 1}, {"a" * 50: 1}, {"aa": {}}, {"aa": "x" * 200}, {"aa": None}],
    ids=repr,
)
async def test_facts_that_are_none_or_not_its_own_are_refused(world, facts):
    assert await world.refused(signed_report(facts, world.key, JTI, NOW)) == "malformed_request"


async def test_garbage_and_other_tokens_are_refused(world):
    good = signed_report({"aa": 1}, world.key, JTI, NOW)
    head = b64url_encode(json.dumps({"alg": "none", "typ": "gateway-posture+jwt"}).encode())
    for token in ("", "a.b", "a.b.c", head + "." + good.partition(".")[2], good + ".x", "\u00e9" + good):
        assert await world.refused(token) == "malformed_request"
    assert await world.refused(good[:-4] + "AAAA") == "token_signature_invalid"


async def test_without_a_certificate_there_is_no_report(world):
    world.peer = Peer("192.0.2.1", 1)
    assert await world.refused(signed_report({"aa": 1}, world.key, JTI, NOW)) == "malformed_request"
