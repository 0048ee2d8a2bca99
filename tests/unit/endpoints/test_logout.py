from __future__ import annotations

from typing import Any

import pytest

from gateway.core.reasons import Refusal
from gateway.core.request import Peer, RequestFacts
from gateway.endpoints.logout import LogoutEndpoints
from gateway.endpoints.router import Router
from gateway.replies.replies import Reply

FORM = [("content-type", "application/x-www-form-urlencoded")]


class Receiver:
    """Stands for both receivers, which have tests of their own: answers what it is told to."""

    def __init__(self, outcome: int | Refusal = 1) -> None:
        self.outcome = outcome
        self.heard: list[Any] = []

    async def receive(self, *heard: Any) -> int | Refusal:
        self.heard.append(heard)
        return self.outcome


async def post(
    path: str, body: bytes, headers: list[tuple[str, str]], receiver: Receiver, method: str = "POST"
) -> tuple[int, dict[str, str], bytes]:
    logout = LogoutEndpoints(logouts={"id": receiver}, webhooks={"id": receiver})  # type: ignore[dict-item]
    fields = tuple((name.lower(), value) for name, value in headers)
    peer = Peer("192.0.2.1", 1)
    facts = RequestFacts(method, "gateway.example.com", path, (), "", (), fields, "h2", len(body), peer, peer.ip)
    reply = await Router(logout.endpoints()).answer(facts, None, body)
    assert isinstance(reply, Reply)
    return reply.status, dict(reply.headers), reply.body


async def test_a_logout_token_is_handed_over_and_nothing_is_cached() -> None:
    receiver = Receiver()
    status, headers, body = await post("/.gateway/backchannel/id", b"x=1&logout_token=a.b.c", FORM, receiver)
    assert (status, headers["cache-control"], body) == (200, "no-store", b"")
    assert receiver.heard == [("a.b.c",)]


@pytest.mark.parametrize(
    ("reason", "status"),
    [("token_signature_invalid", 400), ("token_expired", 400), ("store_down", 503), ("issuer_unavailable", 503)],
)
async def test_only_a_bad_token_is_400(reason: str, status: int) -> None:
    receiver = Receiver(Refusal(reason, "a detail for the operator"))
    got, headers, body = await post("/.gateway/backchannel/id", b"logout_token=a.b.c", FORM, receiver)
    assert (got, headers["cache-control"]) == (status, "no-store")
    assert ("retry-after" in headers) is (status == 503)
    assert b"detail" not in body


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b"", FORM),
        (b"token=a", FORM),
        (b"logout_token=a&logout_token=b", FORM),
        (b"logout_token=a", []),
        (b"logout_token=a", [("content-type", "application/json")]),
        (b"logout_token=" + b"a" * 40_000, FORM),
        (b"&".join(b"a=1" for _ in range(40)) + b"&logout_token=a", FORM),
        (b"logout_token=\xff", FORM),
    ],
)
async def test_anything_but_one_token_in_a_form_is_400(body: bytes, headers: list[tuple[str, str]]) -> None:
    receiver = Receiver()
    status, _, _ = await post("/.gateway/backchannel/id", body, headers, receiver)
    assert (status, receiver.heard) == (400, [])


async def test_an_unknown_issuer_is_404_and_a_get_is_405() -> None:
    for path in ("/.gateway/backchannel/other", "/.gateway/hooks/zitadel/other"):
        assert (await post(path, b"logout_token=a", FORM, Receiver()))[0] == 404
    for path in ("/.gateway/backchannel/id", "/.gateway/hooks/zitadel/id"):
        assert (await post(path, b"", [], Receiver(), "GET"))[0] == 405


@pytest.mark.parametrize("name", ["ZITADEL-Signature", "X-ZITADEL-Signature"])
async def test_a_webhook_is_handed_over_as_it_came_under_either_name_of_the_signature(name: str) -> None:
    receiver = Receiver()
    headers = [(name, "t=1,v1=ab"), ("content-type", "application/json")]
    status, fields, _ = await post("/.gateway/hooks/zitadel/id", b'{"a": \n1}', headers, receiver)
    assert (status, fields["cache-control"]) == (200, "no-store")
    assert receiver.heard == [(["t=1,v1=ab"], b'{"a": \n1}')]


@pytest.mark.parametrize(
    ("reason", "status"),
    [
        ("token_signature_invalid", 401),
        ("token_expired", 401),
        ("token_malformed", 401),
        ("malformed_request", 400),
        ("body_too_large", 413),
        ("store_down", 503),
        ("issuer_unavailable", 503),
    ],
)
async def test_every_refusal_of_a_webhook_has_its_status(reason: str, status: int) -> None:
    assert (await post("/.gateway/hooks/zitadel/id", b"{}", [], Receiver(Refusal(reason))))[0] == status
