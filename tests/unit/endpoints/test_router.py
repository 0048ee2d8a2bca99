import json
from base64 import b64encode
from typing import Any, NoReturn

import pytest

from gateway.core.ports.pipeline import Enrolled
from gateway.core.reasons import Refusal
from gateway.core.request import Peer, RequestFacts
from gateway.core.subject import Device
from gateway.endpoints.enrolment import EnrolmentEndpoints
from gateway.endpoints.metadata import MetadataEndpoints
from gateway.endpoints.rate_limit import RateLimiter
from gateway.endpoints.router import BODY_LIMIT_BYTES, Endpoint, Router
from gateway.replies.documents import json_reply

JSON = [("content-type", "application/json")]
DEVICE = Device("dev-1", "x" * 43)


class Clock:
    now = 0.0

    def __call__(self) -> Any:
        return self.now


class InteractionStarter:
    """An enrolment desk that knows one token."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []

    async def enrol(self, token: Any, csr_pem: Any) -> Any:
        self.asked.append((token, csr_pem))
        return Enrolled("dev-1", "CERT", "CHAIN") if token == "good" else Refusal("device_unknown", "canary")

    async def renew(self, device: Any, csr_pem: Any) -> Any:
        self.asked.append((device.id, csr_pem))
        return Enrolled(device.id, "NEXT", "CHAIN")


@pytest.fixture
def desk() -> Any:
    return InteractionStarter()


@pytest.fixture
def ask(desk: Any) -> Any:
    router = routed(
        jwks=lambda: {"keys": [{"kid": "k1"}]},
        crl=lambda: b"\x30\x00",
        ca=lambda: b"-----BEGIN CERTIFICATE-----",
        protected_resource=lambda host, path: {"resource": f"https://{host}{path}"} if path != "/no" else None,
        enrolment=desk,
    )

    async def send(
        method: Any,
        path: Any,
        *,
        body: Any = b"",
        headers: Any = (),
        device: Any = None,
        ip: Any = "192.0.2.7",
        app: Any = router,
    ) -> Any:
        facts = RequestFacts(method, "gw.example", path, (), "", (), tuple(headers), "h2", len(body), Peer(ip, 1), ip)
        reply = await app.answer(facts, device, body)
        return reply.status, dict(reply.headers), reply.body

    return send


def routed(*, enrolment: Any = None, limiter: Any = None, **changes: Any) -> Any:
    values = {"jwks": dict, "crl": lambda: None, "ca": lambda: None, "protected_resource": lambda *_: None}
    enrolment = EnrolmentEndpoints(enrolment=enrolment, limiter=limiter or RateLimiter())
    return Router([*MetadataEndpoints(**{**values, **changes}).endpoints(), *enrolment.endpoints()])


async def test_keys_are_handed_out_and_may_be_kept_for_minutes(ask: Any) -> None:
    status, headers, body = await ask("GET", "/.gateway/jwks.json")
    assert (status, json.loads(body)) == (200, {"keys": [{"kid": "k1"}]})
    assert headers["cache-control"] == "public, max-age=300"


async def test_the_crl_is_der_whichever_form_the_file_has(ask: Any) -> None:
    status, headers, body = await ask("GET", "/.gateway/crl")
    assert (status, headers["content-type"], body) == (200, "application/pkix-crl", b"\x30\x00")
    pem = b"-----BEGIN X509 CRL-----\n" + b64encode(b"\x30\x82" + b"z" * 100) + b"\n-----END X509 CRL-----\n"
    _, _, body = await ask("GET", "/.gateway/crl", app=routed(crl=lambda: pem))
    assert body == b"\x30\x82" + b"z" * 100


async def test_the_ca_is_pem(ask: Any) -> None:
    status, headers, body = await ask("GET", "/.gateway/ca.pem")
    assert (status, headers["content-type"]) == (200, "application/x-pem-file")
    assert body.startswith(b"-----BEGIN")


@pytest.mark.parametrize("path", ["/.gateway/crl", "/.gateway/ca.pem", "/.well-known/oauth-protected-resource"])
async def test_what_is_not_there_is_not_found(ask: Any, path: Any) -> None:
    status, headers, _ = await ask("GET", path, app=routed())
    assert (status, headers["x-gateway-reason"]) == (404, "route_not_found")


@pytest.mark.parametrize(("path", "resource"), [("", "https://gw.example/"), ("/api/v1", "https://gw.example/api/v1")])
async def test_the_metadata_is_that_of_the_host_and_path(ask: Any, path: Any, resource: Any) -> None:
    status, _, body = await ask("GET", f"/.well-known/oauth-protected-resource{path}")
    assert (status, json.loads(body)) == (200, {"resource": resource})
    status, _, _ = await ask("GET", "/.well-known/oauth-protected-resource/no")
    assert status == 404


async def test_a_device_enrols_with_a_token_and_a_csr(ask: Any, desk: Any) -> None:
    body = json.dumps({"token": "good", "csr": "CSR"}).encode()
    status, headers, answer = await ask("POST", "/.gateway/enrol", body=body, headers=JSON)
    assert (status, headers["cache-control"]) == (201, "no-store")
    assert json.loads(answer) == {"device_id": "dev-1", "certificate": "CERT", "chain": "CHAIN"}
    assert desk.asked == [("good", "CSR")]


async def test_a_refused_enrolment_says_its_reason_and_no_detail(ask: Any) -> None:
    body = json.dumps({"token": "bad", "csr": "CSR"}).encode()
    status, headers, answer = await ask("POST", "/.gateway/enrol", body=body, headers=JSON)
    assert (status, headers["x-gateway-reason"]) == (403, "device_unknown")
    assert len(headers["x-gateway-decision"]) == 24
    assert headers["content-type"] == "application/problem+json"
    assert b"canary" not in answer


@pytest.mark.parametrize(
    ("body", "headers", "reason"),
    [
        (b"{}", [("content-type", "text/plain")], "malformed_request"),
        (b"{}", [], "malformed_request"),
        (b"", JSON, "malformed_request"),
        (b"\xff", JSON, "malformed_request"),
        (b"[]", JSON, "malformed_request"),
        (b"[" * 20_000, JSON, "malformed_request"),
        (b'{"token":"good"}', JSON, "malformed_request"),
        (b'{"token":"good","csr":"CSR","admin":true}', JSON, "malformed_request"),
        (b'{"token":["good"],"csr":"CSR"}', JSON, "malformed_request"),
        (b'{"token":"","csr":"CSR"}', JSON, "malformed_request"),
        (b'{"token":"good","csr":null}', JSON, "malformed_request"),
        (json.dumps({"token": "x" * 513, "csr": "CSR"}).encode(), JSON, "malformed_request"),
        (json.dumps({"token": "good", "csr": "x" * 16_385}).encode(), JSON, "malformed_request"),
        (b" " * (BODY_LIMIT_BYTES + 1), JSON, "body_too_large"),
    ],
)
async def test_garbage_never_reaches_the_enrolment(ask: Any, desk: Any, body: Any, headers: Any, reason: Any) -> None:
    _, found, _ = await ask("POST", "/.gateway/enrol", body=body, headers=headers)
    assert found["x-gateway-reason"] == reason
    assert desk.asked == []


async def test_a_renewal_is_for_the_device_that_the_handshake_proved(ask: Any, desk: Any) -> None:
    body = json.dumps({"csr": "CSR"}).encode()
    status, headers, _ = await ask("POST", "/.gateway/renew", body=body, headers=JSON)
    assert (status, headers["x-gateway-reason"]) == (403, "device_required")
    status, _, answer = await ask("POST", "/.gateway/renew", body=body, headers=JSON, device=DEVICE)
    assert (status, json.loads(answer)["certificate"]) == (201, "NEXT")
    assert desk.asked == [("dev-1", "CSR")]


async def test_a_renewal_cannot_name_another_device(ask: Any, desk: Any) -> None:
    body = json.dumps({"csr": "CSR", "device": "dev-2"}).encode()
    _, headers, _ = await ask("POST", "/.gateway/renew", body=body, headers=JSON, device=DEVICE)
    assert headers["x-gateway-reason"] == "malformed_request"
    assert desk.asked == []


@pytest.mark.parametrize("path", ["/.gateway/enrol", "/.gateway/renew"])
async def test_without_an_issuing_key_nobody_can_enrol(ask: Any, path: Any) -> None:
    status, _, _ = await ask("POST", path, body=b"{}", headers=JSON, device=DEVICE, app=routed())
    assert status == 404


async def test_attempts_from_one_address_are_limited_and_others_go_on(ask: Any, desk: Any) -> None:
    app = routed(enrolment=desk, limiter=RateLimiter(burst=2, clock=Clock()))
    body = json.dumps({"token": "bad", "csr": "CSR"}).encode()

    async def attempt(ip: Any) -> Any:
        status, _, _ = await ask("POST", "/.gateway/enrol", body=body, headers=JSON, ip=ip, app=app)
        return status

    assert [await attempt("192.0.2.7") for _ in range(4)] == [403, 403, 429, 429]
    assert await attempt("192.0.2.8") == 403
    assert len(desk.asked) == 3


@pytest.mark.parametrize(
    ("method", "path", "status", "reason"),
    [
        ("GET", "/.gateway/unknown", 404, "route_not_found"),
        ("GET", "/.gateway/jwks.json/", 404, "route_not_found"),
        ("GET", "/.gateway/enrol", 405, "method_not_allowed"),
        ("POST", "/.gateway/crl", 405, "method_not_allowed"),
    ],
)
async def test_what_is_not_published_is_refused_with_a_reason(
    ask: Any, method: Any, path: Any, status: Any, reason: Any
) -> None:
    found, headers, _ = await ask(method, path)
    assert (found, headers["x-gateway-reason"]) == (status, reason)
    assert ("allow" in headers) == (status == 405)


async def test_health_says_ok_and_no_more(ask: Any) -> None:
    status, _, body = await ask("GET", "/.gateway/health")
    assert (status, json.loads(body)) == (200, {"status": "ok"})


async def test_a_head_request_gets_no_body(ask: Any) -> None:
    status, _, body = await ask("HEAD", "/.gateway/jwks.json")
    assert (status, body) == (200, b"")


async def test_what_a_part_raises_comes_out(ask: Any) -> None:
    def fail() -> None:
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        await ask("GET", "/.gateway/crl", app=routed(crl=fail))


async def test_the_data_path_gets_a_reply(desk: Any) -> None:
    facts = RequestFacts(
        "POST", "gw.example", "/.gateway/renew", (".gateway", "renew"), "", (), (("content-type", "application/json"),),
        "h2", None, Peer("192.0.2.7", 1), "192.0.2.7",
    )  # fmt: skip
    app = routed(enrolment=desk)
    reply = await app.answer(facts, DEVICE, b'{"csr":"CSR"}')
    assert (reply.status, reply.reason) == (201, "local")
    assert "content-length" not in dict(reply.headers)
    reply = await app.answer(facts, None, b'{"csr":"CSR"}')
    assert (reply.status, reply.reason) == (403, "device_required")


async def test_a_path_is_its_own_method_and_no_longer_one(ask: Any) -> None:
    async def handler(request: Any) -> Any:
        return json_reply({"slug": request.slug})

    router = Router([Endpoint("GET", "/a", handler), Endpoint("POST", "/a", handler), Endpoint("POST", "/b/", handler)])
    assert (await ask("PUT", "/a", app=router))[1]["allow"] == "GET, HEAD, POST"
    assert json.loads((await ask("POST", "/b/%C3%A9", app=router))[2]) == {"slug": "é"}
    for path in ("/b/", "/b/c/d", "/b/c%2Fd", "/b", "/a/"):
        assert (await ask("POST", path, app=router))[0] == 404, path


async def test_the_handlers_bound_a_body_only_where_they_say_so(ask: Any) -> None:
    async def handler(request: Any) -> Any:
        return json_reply({"size": len(request.body)})

    body = b"x" * (BODY_LIMIT_BYTES + 1)
    router = Router([Endpoint("POST", "/a", handler), Endpoint("POST", "/b", handler, body_limit_bytes=None)])
    assert (await ask("POST", "/a", body=body, app=router))[1]["x-gateway-reason"] == "body_too_large"
    assert json.loads((await ask("POST", "/b", body=body, app=router))[2]) == {"size": len(body)}


def test_no_two_endpoints_answer_the_same_request() -> None:
    async def handler(request: Any) -> NoReturn:
        raise AssertionError

    with pytest.raises(ValueError, match="two endpoints"):
        Router([Endpoint("GET", "/a", handler), Endpoint("GET", "/a", handler)])
