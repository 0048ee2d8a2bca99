from __future__ import annotations

import asyncio
import json
import ssl
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from gateway.agent import enroll as client
from gateway.agent.enroll import EnrolledDevice, EnrolmentFailed, enrol, is_due, renew
from gateway.core.reasons import Refusal
from gateway.core.subject import Device
from gateway.identity.devices.ca import issue_device, pem_of
from gateway.identity.devices.ca_files import load_authority
from tests.support.pki_world import World, make_world, new_key, peer


class Gateway:
    """A TLS listener on loopback with the two endpoints; `answer` overrides what they say."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.answer: tuple[int, bytes] | None = None
        self.url = ""

    async def start(self) -> asyncio.Server:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=self.world.files.device_ca)
        context.load_cert_chain(self.world.files.server, self.world.files.server_key)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.verify_mode = ssl.CERT_OPTIONAL
        server = await asyncio.start_server(self.serve, "127.0.0.1", 0, ssl=context)
        self.url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        return server

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = int(head.split("content-length: ")[1].split("\r\n")[0])
        body = json.loads(await reader.readexactly(length))
        der = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        status, content = self.answer or await self.judge(head.split()[1], body, der)
        writer.write(
            b"HTTP/1.1 %d X\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % (status, len(content)) + content
        )
        await writer.drain()
        writer.close()

    async def judge(self, path: str, body: dict[str, str], der: bytes | None) -> tuple[int, bytes]:
        if path == "/.gateway/enrol":
            answer: Any = await self.world.enrolment.enrol(body["token"], body["csr"])
        else:
            device = await self.world.devices.verify(peer(der) if der else peer())
            answer = device
            if isinstance(device, Device):
                answer = await self.world.enrolment.renew(device, body["csr"])
        if answer is None or isinstance(answer, Refusal):
            return 403, json.dumps({"reason": answer.reason if answer else "device_required"}).encode()
        document = {"certificate": answer.certificate_pem, "chain": answer.chain_pem, "device_id": answer.device_id}
        return 201, json.dumps(document).encode()


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = make_world(tmp_path)
    yield made
    await made.store.close()


@pytest.fixture
async def gateway(world: World) -> AsyncIterator[Gateway]:
    made = Gateway(world)
    server = await made.start()
    yield made
    server.close()
    await server.wait_closed()


async def enrolled(gateway: Gateway, folder: Path) -> EnrolledDevice:
    _, token = await gateway.world.enrolment.create_device("laptop", "ada", "it")
    return await asyncio.to_thread(enrol, gateway.url, token, folder, gateway.world.files.root)


def pair(folder: Path) -> tuple[bytes, bytes]:
    """The two files, after checking that they belong together."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_cert_chain(folder / "device.pem", folder / "device.key")
    return (folder / "device.pem").read_bytes(), (folder / "device.key").read_bytes()


async def test_a_device_makes_its_key_and_keeps_it_to_itself(gateway: Gateway, tmp_path: Path) -> None:
    device = await enrolled(gateway, tmp_path / "device")
    folder = tmp_path / "device"
    assert device.certificate == folder / "device.pem"
    assert device.key == folder / "device.key"
    assert device.not_after == gateway.world.clock.now + 86_400
    pair(folder)
    for path in (device.key, device.certificate):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert device.ca == folder / "ca.pem"
    assert device.ca.read_bytes() == gateway.world.files.root.read_bytes()
    record = await gateway.world.store.device(device.device_id)
    assert record is not None
    assert record.status == "active"


async def test_a_device_renews_over_mtls_with_a_new_key(gateway: Gateway, tmp_path: Path) -> None:
    folder = tmp_path / "device"
    first = await enrolled(gateway, folder)
    before = pair(folder)
    renewed = await asyncio.to_thread(renew, folder, force=True)
    assert renewed is not None
    assert renewed.device_id == first.device_id
    after = pair(folder)
    assert before[0] != after[0]
    assert before[1] != after[1]
    assert len(list(folder.glob("generation-*"))) == 1


async def test_a_certificate_is_due_after_two_thirds_of_its_life(gateway: Gateway, tmp_path: Path) -> None:
    folder = tmp_path / "device"
    device = await enrolled(gateway, folder)
    assert not is_due(folder, device.not_after - 86_400 / 3 - 60)
    assert is_due(folder, device.not_after - 86_400 / 3 + 60)
    assert await asyncio.to_thread(renew, folder) is None
    assert await asyncio.to_thread(renew, folder, now=device.not_after - 60) is not None


async def test_a_revoked_device_cannot_renew_and_keeps_what_it_has(gateway: Gateway, tmp_path: Path) -> None:
    folder = tmp_path / "device"
    device = await enrolled(gateway, folder)
    before = pair(folder)
    await gateway.world.enrolment.revoke(device.device_id, "stolen")
    with pytest.raises(EnrolmentFailed, match="device_revoked"):
        await asyncio.to_thread(renew, folder, force=True)
    assert pair(folder) == before


async def test_a_refused_token_leaves_nothing_behind_and_is_not_shown(gateway: Gateway, tmp_path: Path) -> None:
    token = "gwe_" + "A" * 43
    with pytest.raises(EnrolmentFailed, match="403 enrolment_invalid") as caught:
        await asyncio.to_thread(enrol, gateway.url, token, tmp_path / "device", gateway.world.files.root)
    assert token not in str(caught.value)
    assert not (tmp_path / "device").exists()


async def test_a_gateway_that_the_ca_did_not_certify_never_sees_the_token(gateway: Gateway, tmp_path: Path) -> None:
    _, token = await gateway.world.enrolment.create_device("laptop", "ada", "it")
    other = make_world(tmp_path / "other")
    for ca in (other.files.root, None):
        with pytest.raises(EnrolmentFailed, match="cannot be reached"):
            await asyncio.to_thread(enrol, gateway.url, token, tmp_path / "device", ca)
    await other.store.close()
    assert await asyncio.to_thread(enrol, gateway.url, token, tmp_path / "device", gateway.world.files.root)


@pytest.mark.parametrize(
    ("status", "content"),
    [
        (200, b""),
        (200, b"[]"),
        (200, b"{}"),
        (200, b'{"certificate": 1, "chain": "", "device_id": ""}'),
        (200, b'{"certificate": "garbage", "chain": "", "device_id": ""}'),
        (200, b'{"certificate": "\xc3\xa9", "chain": "", "device_id": ""}'),
        (200, b" " * 70_000),
        (302, b""),
        (403, b"not JSON"),
        (500, b"{}"),
    ],
)
async def test_an_answer_that_will_not_do_is_one_clear_error(
    gateway: Gateway, tmp_path: Path, status: int, content: bytes
) -> None:
    folder = tmp_path / "device"
    await enrolled(gateway, folder)
    before = pair(folder)
    gateway.answer = (status, content)
    with pytest.raises(EnrolmentFailed):
        await asyncio.to_thread(renew, folder, force=True)
    assert pair(folder) == before


async def test_a_certificate_for_another_key_is_not_kept(gateway: Gateway, tmp_path: Path) -> None:
    folder = tmp_path / "device"
    await enrolled(gateway, folder)
    before = pair(folder)
    stale = {"certificate": before[0].decode(), "chain": "", "device_id": "x"}
    gateway.answer = (200, json.dumps(stale).encode())
    with pytest.raises(EnrolmentFailed, match="another key"):
        await asyncio.to_thread(renew, folder, force=True)
    assert pair(folder) == before


async def test_a_crash_at_any_step_of_a_renewal_leaves_a_pair_that_works(
    gateway: Gateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "device"
    device = await enrolled(gateway, folder)
    for step in range(1, 6):
        count = 0

        def crash(name: str, step: int = step) -> Any:
            real = getattr(client, name)

            def wrapped(*args: Any) -> None:
                nonlocal count
                count += 1
                if count == step:
                    raise KeyboardInterrupt
                real(*args)

            return wrapped

        with monkeypatch.context() as patched:
            for name in ("write_file", "_link"):
                patched.setattr(client, name, crash(name))
            with pytest.raises(KeyboardInterrupt):
                crash_in(gateway, folder)
        pair(folder)
        renewed = await asyncio.to_thread(renew, folder, force=True)
        assert renewed is not None
        assert renewed.device_id == device.device_id


def crash_in(gateway: Gateway, folder: Path) -> None:
    """The part of a renewal that writes, with an answer made by the CA itself."""
    files, now = gateway.world.files, gateway.world.clock.now
    leaf = x509.load_pem_x509_certificates((folder / "device.pem").read_bytes())[0]
    device_id = leaf.subject.rfc4514_string().removeprefix("CN=")
    key = new_key()
    authority = load_authority(files.device_ca, files.device_key)
    issued = issue_device(authority, key.public_key(), device_id, "gateway.internal", now=now, life_s=60)
    answer = {
        "certificate": pem_of(issued).decode(),
        "chain": pem_of(authority.certificate).decode(),
        "device_id": device_id,
    }
    client._store(folder, key, answer)


@pytest.mark.parametrize(
    "url", ["http://gateway.example", "gateway.example", "https://", "https://a@b", "https://a/path"]
)
def test_only_https_origins_are_asked(url: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="must look like"):
        enrol(url, "gwe_x", tmp_path)
