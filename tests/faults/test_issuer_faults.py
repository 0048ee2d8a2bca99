"""What happens to requests when the identity provider is broken: over real HTTP on loopback, on our own clock."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator

import pytest

from gateway.adapters.http import HttpxClient
from gateway.config import Introspection, Issuer
from gateway.core.reasons import Refusal
from gateway.core.request import Peer, RequestFacts
from gateway.core.routes import Route
from gateway.demo.idp.provider import DevProvider, serving
from gateway.identity.bearer.access_tokens import TokenReader, TrustedIssuer
from gateway.identity.oidc.client_auth import KeyCredential
from gateway.identity.oidc.discovery import IssuerDirectory
from gateway.identity.oidc.introspection import Introspector

NOW = 1_800_000_000.0
FAULTS = ["empty", "500", "401", "garbage", "huge", "redirect", "slow"]
time_now = [NOW]


@pytest.fixture(scope="module")
def served() -> Iterator[DevProvider]:
    with serving(clock=lambda: time_now[0]) as provider:
        yield provider


@pytest.fixture
def provider(served: DevProvider) -> Iterator[DevProvider]:
    time_now[0] = NOW
    served.asked.clear()
    yield served
    served.mend()
    served.end_session("alice")


class Asking:
    """A gateway's token reader; every request is measured."""

    def __init__(self, reader: TokenReader) -> None:
        self.reader = reader
        self.slowest_s = 0.0

    async def __call__(self, token: str, *, introspects: bool = False) -> str:
        facts = RequestFacts(
            method="GET",
            host="staff.example.com",
            path="/",
            segments=(),
            query="",
            query_fields=(),
            headers=(("authorization", f"Bearer {token}"),),
            protocol="h2",
            content_length=None,
            peer=Peer("192.0.2.1", 1),
            client_ip="192.0.2.1",
        )
        started = time.monotonic()
        route = Route(service="s", host="staff.example.com", introspect_cache_s=10.0 if introspects else None)
        found = await self.reader.read(facts, route)
        self.slowest_s = max(self.slowest_s, time.monotonic() - started)
        return found.reason if isinstance(found, Refusal) else "ok"


@pytest.fixture
async def ask(provider: DevProvider) -> AsyncIterator[Asking]:
    http = HttpxClient(timeout_s=0.4)
    config = Issuer(
        issuer=provider.issuer,
        profile="zitadel",
        audiences=(provider.project,),
        opaque=True,
        introspection=Introspection(client_id=provider.api_client),
    )
    directory = IssuerDirectory(config, http, lambda: time_now[0], timeout_s=0.4)
    credential = KeyCredential(provider.api_client, provider.api_key_file)
    introspector = Introspector(config, directory, http, credential, lambda: time_now[0], timeout_s=0.4)
    reader = TokenReader([TrustedIssuer(config, directory, introspector)], lambda: time_now[0])
    yield Asking(reader)
    await reader.close()
    await http.close()


@pytest.mark.parametrize(
    ("endpoint", "fault"),
    [("discovery", "issuer"), *((endpoint, fault) for endpoint in ("discovery", "keys") for fault in FAULTS)],
)
async def test_without_keys_nobody_gets_in_and_with_them_everybody_does(
    provider: DevProvider, ask: Asking, endpoint: str, fault: str
) -> None:
    token = provider.access_token("alice")
    provider.fault(endpoint, fault)
    assert await ask(token) == "issuer_unavailable"
    provider.mend()
    time_now[0] += 6
    assert await ask(token) == "ok"


@pytest.mark.parametrize("fault", FAULTS)
async def test_the_last_good_keys_serve_through_an_outage_without_delay_and_then_end(
    provider: DevProvider, ask: Asking, fault: str
) -> None:
    token = provider.access_token("alice", exp=int(NOW) + 90_000)
    assert await ask(token) == "ok"
    provider.fault("keys", fault)
    time_now[0] += 310
    ask.slowest_s = 0
    assert await ask(token) == "ok"
    await asyncio.sleep(0.5 if fault == "slow" else 0.1)
    for _ in range(5):
        time_now[0] += 600
        assert await ask(token) == "ok"
    assert ask.slowest_s < 0.3
    time_now[0] += 600
    assert await ask(token) == "issuer_unavailable"


async def test_a_storm_of_unknown_keys_reaches_the_issuer_once(provider: DevProvider, ask: Asking) -> None:
    assert await ask(provider.access_token("alice")) == "ok"
    tokens = [provider.access_token("alice", headers={"kid": str(number)}) for number in range(60)]
    assert set(await asyncio.gather(*map(ask, tokens))) == {"token_key_unknown"}
    assert provider.asked["keys"] == 2


async def test_a_parallel_crowd_with_one_token_asks_the_issuer_once(provider: DevProvider, ask: Asking) -> None:
    for token in (provider.access_token("alice"), provider.opaque_token("alice")):
        provider.asked.clear()
        found = await asyncio.gather(*(ask(token, introspects=True) for _ in range(200)))
        assert set(found) == {"ok"}
        assert provider.asked["introspect"] == 1


@pytest.mark.parametrize("fault", FAULTS)
async def test_introspection_that_fails_lets_nobody_in_once_its_last_word_is_old(
    provider: DevProvider, ask: Asking, fault: str
) -> None:
    tokens = [provider.access_token("alice"), provider.opaque_token("alice")]
    for token in tokens:
        assert await ask(token, introspects=True) == "ok"
    provider.fault("introspect", fault)
    for token in tokens:
        assert await ask(token, introspects=True) == "ok"
    time_now[0] += 10
    assert [await ask(token, introspects=True) for token in tokens] == ["issuer_unavailable"] * 2
    assert ask.slowest_s < 1
    provider.mend()
    assert [await ask(token, introspects=True) for token in tokens] == ["ok"] * 2


async def test_an_issuer_that_is_gone_lets_nobody_in(ask: Asking, provider: DevProvider) -> None:
    config = Issuer(issuer="http://127.0.0.1:9", profile="zitadel", audiences=("p",))
    http = HttpxClient(timeout_s=0.4)
    reader = TokenReader([TrustedIssuer(config, IssuerDirectory(config, http, lambda: NOW))], lambda: NOW)
    assert await Asking(reader)(provider.access_token("alice", iss=config.issuer)) == "issuer_unavailable"
    await reader.close()
    await http.close()
