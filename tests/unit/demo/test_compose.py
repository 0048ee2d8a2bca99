from __future__ import annotations

import asyncio
import json
import stat
import subprocess
import time
from pathlib import Path

import pytest
from starlette.types import ASGIApp

from gateway.config import load
from gateway.demo import compose
from gateway.demo.compose import Places, adopt, main, prepare
from gateway.wiring import open_state
from tests.support.redis_server import free_port, needs_redis, wait_until


@pytest.fixture
def places(tmp_path: Path) -> Places:
    found = Places(*(tmp_path / name for name in ("config", "public", "database", "redis", "zitadel")))
    for folder in (found.config, found.public, found.database, found.redis, found.zitadel):
        folder.mkdir()
    return found


def test_everything_is_made_once(places: Places) -> None:
    assert prepare(places, time.time()) == ["root.pem", "password", "redis.conf", "steps.yaml", "gateway.yaml"]
    held = {path: path.read_bytes() for path in places.config.parent.rglob("*") if path.is_file()}
    assert prepare(places, time.time()) == []
    assert {path: path.read_bytes() for path in held} == held


def test_the_configuration_is_valid_with_and_without_its_issuer(places: Places) -> None:
    prepare(places, time.time())
    before = load(places.config / "gateway.yaml")
    assert before.issuers == ()
    assert before.policy.engine == "opa"
    block = "issuers:\n  - issuer: https://id.localhost:8443\n    profile: zitadel\n    audiences: ['1']\n"
    block += "    introspection: {client_id: '2', key: {file: secrets/api-key.json}}\n"
    assert adopt(places, block)
    assert load(places.config / "gateway.yaml").issuers[0].profile == "zitadel"
    assert not adopt(places, block)
    assert stat.S_IMODE((places.config / "gateway.yaml").stat().st_mode) == 0o600


def test_what_is_no_issuer_is_not_adopted(places: Places) -> None:
    prepare(places, time.time())
    with pytest.raises(ValueError, match="no issuers block"):
        adopt(places, "Traceback")


def test_each_secret_is_strong_and_its_own(places: Places) -> None:
    prepare(places, time.time())
    master = (places.zitadel / "masterkey").read_text()
    assert len(master.encode()) == 32
    settings = json.loads((places.zitadel / "config.yaml").read_text())["Database"]["postgres"]
    first = json.loads((places.zitadel / "steps.yaml").read_text())["FirstInstance"]
    database = (places.database / "password").read_text()
    redis = (places.redis / "password").read_text()
    human = first["Org"]["Human"]["Password"]
    assert settings["Admin"]["Password"] == database
    found = {master, database, redis, human, settings["User"]["Password"]}
    assert len(found) == 5
    assert min(map(len, found)) >= 32
    assert first["Org"]["Human"]["PasswordChangeRequired"] is True
    assert f"user gateway on >{redis} " in (places.redis / "redis.conf").read_text()


async def opens(config: Path) -> None:
    state = await open_state(load(config))
    await state.store.ping()
    await state.store.close()


@needs_redis
def test_the_gateway_can_use_its_redis_and_nobody_else_can(places: Places, tmp_path: Path) -> None:
    prepare(places, time.time())
    conf = places.redis / "redis.conf"
    port = free_port()
    text = conf.read_text().replace("tls-port 6379", f"tls-port {port}\nbind 127.0.0.1")
    (tmp_path / "redis.conf").write_text(text.replace("/secret", str(places.redis)).replace("/data", str(tmp_path)))
    config = places.config / "gateway.yaml"
    text = config.read_text().replace("redis:6379", f"localhost:{port}").replace(": /state", f": {tmp_path}/state")
    config.write_text(text)
    server = subprocess.Popen(["redis-server", tmp_path / "redis.conf"], stdout=subprocess.DEVNULL)
    try:
        said = ["redis-cli", "-p", str(port), "--tls", "--cacert", places.redis / "ca.pem"]
        wait_until(lambda: subprocess.run([*said, "PING"], capture_output=True, check=False).stdout[:6] == b"NOAUTH")
        password = {"REDISCLI_AUTH": (places.redis / "password").read_text()}
        healthy = subprocess.run([*said, "--user", "gateway", "PING"], capture_output=True, env=password, check=True)
        assert healthy.stdout == b"PONG\n"
        asyncio.run(opens(config))
    finally:
        server.terminate()
        server.wait()


def test_the_command_makes_shows_and_adopts(
    places: Places, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["init"], places) == 0
    assert main(["show"], places) == 0
    name, password = capsys.readouterr().out.splitlines()[-1].split()
    assert (name, password.endswith("-Aa1")) == ("admin", True)
    monkeypatch.setattr("sys.stdin", (places.redis / "redis.conf").open())
    with pytest.raises(ValueError, match="no issuers block"), compose.sys.stdin:
        main(["adopt"], places)


def test_the_demo_service_believes_the_gateways_signature_alone(
    places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(places, time.time())
    monkeypatch.setattr(compose, "Places", lambda: places)
    app: ASGIApp = compose.demo_app()
    assert callable(app)
