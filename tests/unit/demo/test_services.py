from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from starlette.types import ASGIApp
from websockets.sync.client import connect

from gateway.demo import services
from gateway.demo.services import ASSERTION, Assertions, directory, echo, people
from gateway.identity.devices.ca_files import found_pki


@contextlib.contextmanager
def serving(app: ASGIApp) -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = services.server(app)
        thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture(scope="module")
def echo_url() -> Iterator[str]:
    with serving(echo()) as url:
        yield url


def test_the_directory_holds_twelve_people_with_personal_data() -> None:
    found = people()
    assert len(found) == 12
    assert {"id", "name", "department", "email", "phone", "salary_account", "birthday"} <= found[0].keys()
    assert len({person["salary_account"] for person in found}) == 12
    assert people() == found


def test_the_directory_answers_as_json_and_as_a_page_and_takes_notes() -> None:
    with serving(directory()) as url, httpx.Client(base_url=url, trust_env=False) as client:
        assert len(client.get("/people").json()["people"]) == 12
        assert client.get("/people/2").json()["name"] == "Bob Brandt"
        assert client.get("/people/99").status_code == 404
        page = client.get("/").text
        assert "Bob Brandt" in page
        assert people()[1]["salary_account"] not in page
        assert client.post("/people/2/note", content="on leave").status_code == 201
        assert client.post("/people/99/note", content="?").status_code == 404
        assert client.get("/people/2").json()["notes"] == [{"by": "", "text": "on leave"}]
        assert client.get("/whoami").json()["verified"] is False


class _Signer:
    """What the directory must believe and must not."""

    def __init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        public = jwt.algorithms.ECAlgorithm.to_jwk(self.key.public_key(), as_dict=True)
        self.keys = [jwt.PyJWK({**public, "kid": "one", "alg": "ES256"})]

    def sign(self, *, typ: str = "gateway-assertion+jwt", kid: str = "one", key: Any = None, **claims: Any) -> str:
        now = int(time.time())
        document = {
            "iss": "https://gateway.localhost",
            "aud": "directory",
            "sub": "1",
            "iat": now,
            "exp": now + 60,
            "name": "Alice Adler",
            "req": {"method": "GET", "path": "/whoami"},
        }
        return jwt.encode(document | claims, key or self.key, "ES256", headers={"typ": typ, "kid": kid})


@pytest.fixture(scope="module")
def signer() -> _Signer:
    return _Signer()


@pytest.fixture(scope="module")
def vouched_url(signer: _Signer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    pki = found_pki(tmp_path_factory.mktemp("w") / "pki", ["gateway.localhost"], now=time.time(), crl_life_s=60)
    assertions = Assertions("https://gateway.localhost:1/.gateway/jwks.json", pki.root, "directory", "127.0.0.1")
    assertions._keys = {key.key_id or "": key for key in signer.keys}
    with serving(directory(assertions)) as url:
        yield url


def test_the_directory_believes_a_good_assertion(vouched_url: str, signer: _Signer) -> None:
    answer = httpx.get(f"{vouched_url}/whoami", headers={ASSERTION: signer.sign()}, trust_env=False).json()
    assert answer["verified"] is True
    assert answer["claims"]["name"] == "Alice Adler"
    assert [ASSERTION, answer["headers"][-1][1]] in answer["headers"]


@pytest.mark.parametrize(
    "claims",
    [
        {"aud": "echo"},
        {"iss": "https://elsewhere.invalid"},
        {"exp": 1},
        {"req": {"method": "POST", "path": "/whoami"}},
        {"req": {"method": "GET", "path": "/people"}},
        {"typ": "JWT"},
        {"kid": "unpublished"},
        {"key": ec.generate_private_key(ec.SECP256R1())},
    ],
    ids=["audience", "issuer", "expired", "method", "path", "type", "kid", "key"],
)
def test_the_directory_refuses_any_other(vouched_url: str, signer: _Signer, claims: dict[str, Any]) -> None:
    answer = httpx.get(f"{vouched_url}/whoami", headers={ASSERTION: signer.sign(**claims)}, trust_env=False)
    assert answer.status_code == 401


def test_the_directory_answers_nobody_without_an_assertion(vouched_url: str) -> None:
    for path in ("/", "/people", "/people/1", "/whoami", "/nowhere"):
        assert httpx.get(vouched_url + path, trust_env=False).status_code == 401


def test_the_echo_shows_what_arrived(echo_url: str) -> None:
    answer = httpx.get(f"{echo_url}/headers?a=1", headers=[("x-a", "1"), ("x-a", "2")], trust_env=False).json()
    assert answer["method"] == "GET"
    assert [value for name, value in answer["headers"] if name == "x-a"] == ["1", "2"]


def test_the_echo_streams_a_body_back_and_counts_requests(echo_url: str) -> None:
    with httpx.Client(base_url=echo_url, trust_env=False) as client:
        before = client.get("/count").json()["requests"]
        pieces = [bytes([number]) * 5_000 for number in range(40)]
        assert client.post("/echo", content=iter(pieces)).content == b"".join(pieces)
        assert client.post("/echo", content=b"").content == b""
        assert client.get("/count").json()["requests"] == before + 2


def test_the_echo_sends_as_much_as_it_is_asked_for(echo_url: str) -> None:
    with httpx.Client(base_url=echo_url, trust_env=False) as client:
        assert len(client.get("/big?mib=3").content) == 3 << 20
        assert client.get("/big?mib=0").content == b""
        for wrong in ("-1", "x", "99999", ""):
            assert client.get(f"/big?mib={wrong}").status_code == 400


def test_server_sent_events_come_one_by_one(echo_url: str) -> None:
    with httpx.stream("GET", f"{echo_url}/sse", trust_env=False) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        arrivals = [
            (time.monotonic(), json.loads(line.removeprefix("data: ")))
            for line in answer.iter_lines()
            if line.startswith("data: ")
        ]
    assert [event["tick"] for _, event in arrivals] == list(range(services.EVENTS))
    assert arrivals[-1][0] - arrivals[0][0] >= services.EVENT_GAP_S * (services.EVENTS - 2)


def test_the_websocket_echoes_text_and_bytes(echo_url: str) -> None:
    with connect(echo_url.replace("http", "ws") + "/ws", proxy=None) as websocket:
        for message in ("hello", b"\x00" * 70_000, ""):
            websocket.send(message)
            assert websocket.recv(timeout=5) == message
