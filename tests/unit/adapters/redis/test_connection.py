"""Redis over TLS, with a client certificate and an ACL user that may do what the gateway does and no more."""

from __future__ import annotations

import contextlib
import datetime as dt
import ipaddress
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from gateway.adapters.redis.documents import RedisDocuments
from gateway.adapters.redis.opening import inspect_redis
from gateway.adapters.redis.store import RedisStore
from gateway.config import Secret, StateStore, StateTls
from gateway.core.ports.stores import StoreDown
from tests.support.redis_server import RedisProcess, needs_redis, running
from tests.support.store_conformance import DEVICE, LIFE_S, NOW, SESSION

pytestmark = needs_redis
PASSWORD = "canary-password"
RULES = (
    "~gw:* &gw:* -@all +@connection +@read +@write -@dangerous +evalsha +script|load +publish +subscribe +wait +info"
)


def signed(folder: Path, name: str, issuer: tuple[x509.Name, ec.EllipticCurvePrivateKey] | None = None) -> tuple:
    """A certificate for 127.0.0.1, of its own or of `issuer`, as NAME.pem and NAME.key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = dt.datetime.now(dt.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer[0] if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    signer = issuer[1] if issuer else key
    builder = builder.add_extension(
        x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False
    )
    if issuer is None:
        usage = x509.KeyUsage(
            digital_signature=True,
            key_cert_sign=True,
            crl_sign=True,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            encipher_only=False,
            decipher_only=False,
        )
        builder = builder.add_extension(usage, critical=True)
    certificate = builder.sign(signer, hashes.SHA256())
    (folder / f"{name}.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / f"{name}.key").write_bytes(key.private_bytes(*form))
    return subject, key


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tls")
    ca = signed(folder, "ca")
    signed(folder, "stranger")
    signed(folder, "server", ca)
    signed(folder, "client", ca)
    (folder / "good").write_text(PASSWORD)
    (folder / "wrong").write_text("canary-wrong")
    for name in ("good", "wrong"):
        (folder / name).chmod(0o600)
    (folder / "users.acl").write_text(f"user default off\nuser gateway on >{PASSWORD} {RULES}\n")
    return folder


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[RedisProcess]:
    port = ["--port", "0", "--tls-port"]
    files = ["--tls-cert-file", "server.pem", "--tls-key-file", "server.key", "--tls-ca-cert-file", "ca.pem"]
    files = [str(folder / text) if not text.startswith("-") else text for text in files]
    found = RedisProcess(folder / "redis", [*port, "", *files, "--aclfile", str(folder / "users.acl")])
    found.arguments[3] = str(found.port)
    found.start()
    try:
        yield found
    finally:
        found.kill()


def settings(
    server: RedisProcess, folder: Path, ca: str = "ca", entry: str = "good", timeout_ms: int = 5_000
) -> StateStore:
    tls = StateTls(ca=folder / f"{ca}.pem", certificate=folder / "client.pem", key=folder / "client.key")
    password = Secret(file=folder / entry)
    return StateStore(
        kind="redis", address=server.address, tls=tls, username="gateway", password=password, timeout_ms=timeout_ms
    )


@contextlib.asynccontextmanager
async def opened(said: StateStore, folder: Path) -> AsyncIterator[RedisStore]:
    store = RedisStore(said, bytes(32), folder / "anchor")
    try:
        await store.open()
        yield store
    finally:
        await store.close()


async def test_the_documented_acl_rules_are_enough_for_everything(
    server: RedisProcess, folder: Path, tmp_path: Path
) -> None:
    async with opened(settings(server, folder), tmp_path) as store:
        await store.add_device(DEVICE)
        await store.change_device(DEVICE.id, lambda record: record.revoke(NOW, "stolen"))
        assert len(await store.devices()) == 1
        await store.revoked_certificates(NOW)
        await store.put_session(SESSION)
        assert await store.revoke_session("b_1", NOW, "left")
        assert len(await store.sessions()) == len(await store.sessions("ada")) == 1
        assert await store.first_use("k", NOW, NOW + LIFE_S)
        await store.add_enrolment("aa", "d1", NOW + LIFE_S)
        assert await store.take_enrolment("aa", NOW) == "d1"
        assert await store.put_secret("p", "n", NOW, b"1")
        await store.secrets("p")
        await store.drop_secret("p", "n")
        documents = RedisDocuments(store)
        await documents.overwrite("c", "k", b"1", NOW + LIFE_S, group="g")
        assert len(await documents.list("c", "g", NOW)) == 1
        assert await documents.take("c", "k", NOW)
        assert len(await store.changes(0) or ()) == 3
        await store.wait(3, 0.05)
        assert store._ears is not None
        assert not store._ears.done()
        await store.ping()
        # What cannot be looked at is said, and harms nothing.
        assert "appendfsync" in (await store.weaknesses())[0].what
    assert await inspect_redis(settings(server, folder), bytes(32), tmp_path)


@pytest.mark.parametrize("command", [("FLUSHALL",), ("CONFIG", "GET", "*"), ("GET", "others"), ("KEYS", "*")])
async def test_those_rules_allow_no_more(
    server: RedisProcess, folder: Path, tmp_path: Path, command: tuple[str, ...]
) -> None:
    async with opened(settings(server, folder), tmp_path) as store:
        with pytest.raises(StoreDown, match="NoPermission"):
            await store.write(*command)


async def test_a_server_of_another_ca_is_refused(server: RedisProcess, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(StoreDown, match="CERTIFICATE_VERIFY_FAILED"):
        async with opened(settings(server, folder, ca="stranger"), tmp_path):
            pass


async def test_a_wrong_password_is_store_down_and_not_shown(server: RedisProcess, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(StoreDown) as caught:
        async with opened(settings(server, folder, entry="wrong"), tmp_path):
            pass
    assert "canary" not in str(caught.value)
    assert caught.value.__cause__ is None


async def test_a_server_that_wants_tls_is_not_spoken_to_in_clear(
    server: RedisProcess, folder: Path, tmp_path: Path
) -> None:
    plain = settings(server, folder).model_copy(update={"tls": None})
    with pytest.raises(StoreDown):
        async with opened(plain, tmp_path):
            pass


async def test_a_server_without_tls_is_not_spoken_to(folder: Path, tmp_path: Path) -> None:
    with running(tmp_path / "plain") as plain, pytest.raises(StoreDown):
        async with opened(settings(plain, folder, timeout_ms=300), tmp_path):  # a handshake that nobody answers
            pass
